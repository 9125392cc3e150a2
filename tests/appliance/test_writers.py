"""Whether somebody still writes: real writers, of this user and of others, with and without the capability to ask."""

from __future__ import annotations

import mmap
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest

from appliance.settings import WatchSettings
from appliance.watch import Watcher
from appliance.writers import has_writer
from tests.appliance.test_watch import Clock, names

NOBODY = 65534
ASK = """
import subprocess, sys
from pathlib import Path
from appliance.writers import has_writer, keep_capabilities_from_children
keep_capabilities_from_children()
held = subprocess.run(["grep", "CapEff", "/proc/self/status"], capture_output=True, text=True).stdout.split()[1]
print(Path(sys.argv[1]).open("rb").read(1), has_writer(Path(sys.argv[1])), int(held, 16))
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a.raw"


@pytest.fixture
def writing(path: Path) -> Iterator[IO[bytes]]:
    with path.open("wb") as file:
        file.truncate(4096)
        yield file


def test_a_file_has_a_writer_until_it_is_closed(path: Path, writing: IO[bytes]) -> None:
    assert has_writer(path)
    with path.open("rb"):
        assert has_writer(path)
    writing.close()
    with path.open("rb"):
        assert not has_writer(path), "readers are no writers"


def test_one_who_writes_through_memory_is_a_writer(path: Path, writing: IO[bytes]) -> None:
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 4096):
        file.close()
        writing.close()
        assert has_writer(path)
    assert not has_writer(path)


def test_a_writer_at_another_name_of_the_file_counts(path: Path, writing: IO[bytes]) -> None:
    os.link(path, path.with_name("b.raw"))
    assert has_writer(path.with_name("b.raw"))


@pytest.mark.parametrize("make", [lambda p: None, lambda p: p.mkdir(), lambda p: p.symlink_to("/dev/null")])
def test_what_is_no_file_has_none(path: Path, make: object) -> None:
    make(path)  # type: ignore[operator]
    assert not has_writer(path)


@pytest.mark.skipif(os.geteuid() != 0, reason="NOT ROOT: files of other users were not tested")
def test_of_another_users_file_only_the_capability_tells(path: Path, writing: IO[bytes]) -> None:
    """As the unit has it, and keeps it from its children; without it a file only has to rest."""
    for parent in path.parents[:-2]:
        parent.chmod(parent.stat().st_mode | 0o005)
    path.chmod(0o644)
    without = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
    for command, answer in (
        (without, "b'\\x00' False 0"),
        ([*without, "--inh-caps=+lease", "--ambient-caps=+lease"], "b'\\x00' True 0"),
    ):
        found = subprocess.run([*command, sys.executable, "-c", ASK, path], capture_output=True, text=True, check=False)
        assert found.stdout.strip() == answer, found.stderr


def test_the_watcher_waits_for_a_writer_but_not_for_ever(path: Path, writing: IO[bytes]) -> None:
    clock = Clock()
    watcher = Watcher(path.parent, WatchSettings(rescan_s=0.01, settle_s=1, incomplete_s=10), clock)
    watcher.start()
    assert names(watcher, clock) == []
    assert names(watcher, clock, after=5) == [], "it rested, and is still being written"
    assert names(watcher, clock, after=4.9) == []
    assert names(watcher, clock, after=0.2) == ["a.raw"]
    watcher.stop()
