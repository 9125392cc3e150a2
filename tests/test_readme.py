"""What the README and the docs promise is there: commands, files, links."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from appliance.settings import Settings

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


def commands() -> list[list[str]]:
    """The distinct umbra commands of the README's code blocks."""
    found = re.findall(r"^umbra (\w+)(?: (\w+))?", (ROOT / "README.md").read_text(), flags=re.MULTILINE)
    nested = {"spec", "bundle", "engines"}
    return [[first, second] if first in nested else [first] for first, second in sorted(set(found))]


@pytest.mark.parametrize("command", commands(), ids=" ".join)
def test_a_command_of_the_readme_exists(command: list[str]) -> None:
    done = subprocess.run([sys.executable, "-m", "appliance.cli", *command, "--help"], capture_output=True, check=False)
    assert done.returncode == 0


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
        assert (page.parent / target).exists(), target


def test_the_settings_of_the_docs_are_read() -> None:
    text = (ROOT / "docs" / "operations.md").read_text()
    [block] = re.findall(r"```toml\n(.*?)```", text, flags=re.DOTALL)
    table = tomllib.loads(block)
    table["api"]["token_sha256"] = "0" * 64
    table["name_pattern"] = "(?P<wafer>x)"
    settings = Settings.model_validate(table)
    shown = settings.model_copy(update={"format": (), "name_pattern": Settings().name_pattern,
                                        "api": Settings().api})  # fmt: skip
    assert shown == Settings(), "the docs show other defaults than the code has"


def test_make_has_every_target_that_the_habits_name() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for target in ("demo", "run", "test", "lint", "type", "fmt", "bench", "gpu", "golden", "wheel"):
        assert re.search(rf"^{target}: ", makefile, flags=re.MULTILINE), target
