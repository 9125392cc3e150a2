"""The units as systemd's own tools see them, installed below another root and removed again."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from appliance.settings import read_settings
from appliance.station import Station
from appliance.verdict_log import VerdictLog
from tests.appliance.running import api_of, drop, outbox, wait_until
from tests.systemd.confined import allowed

SYSTEMD = Path(__file__).parents[2] / "systemd"
UNITS = sorted(p.name for p in SYSTEMD.glob("umbra-*.*"))
EXPOSURE = {
    "umbra-api.service": 1.5,
    "umbra-screen.service": 2.5,
    "umbra-line.service": 1.5,
    "umbra-retain.service": 1.5,
    "umbra-golden.service": 1.5,
}

pytestmark = pytest.mark.skipif(
    not shutil.which("systemd-analyze"), reason="NO SYSTEMD HERE: its units were not looked at"
)


def run(*command: str | Path, root: Path | None = None, check: bool = True) -> subprocess.CompletedProcess[str]:
    environment = os.environ | ({"DESTDIR": str(root)} if root else {})
    return subprocess.run(command, capture_output=True, text=True, check=check, env=environment)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A root in which the units are installed, and beside them the program that they start."""
    run(SYSTEMD / "station", "install", root=tmp_path)
    program = tmp_path / "opt" / "umbra" / "bin" / "umbra"
    program.parent.mkdir(parents=True)
    program.symlink_to(Path(sys.executable).with_name("umbra"))
    return tmp_path


def test_systemd_finds_nothing_wrong_with_any_unit(tmp_path: Path) -> None:
    program = Path(sys.executable).with_name("umbra")
    for unit in UNITS:
        (tmp_path / unit).write_text((SYSTEMD / unit).read_text().replace("/opt/umbra/bin/umbra", str(program)))
    found = run("systemd-analyze", "verify", *(tmp_path / unit for unit in UNITS), check=False)
    ours = [line for line in (found.stdout + found.stderr).splitlines() if "umbra" in line]
    assert (found.returncode, ours) == (0, [])
    broken = tmp_path / "umbra-broken.service"
    broken.write_text((tmp_path / "umbra-api.service").read_text().replace("ProtectClock=yes", "ProtectKlock=yes"))
    assert "ProtectKlock" in run("systemd-analyze", "verify", broken, check=False).stderr


@pytest.mark.parametrize("unit", EXPOSURE)
def test_little_is_exposed(unit: str) -> None:
    threshold = round(10 * EXPOSURE[unit])  # the tool counts in tenths
    command = (
        "systemd-analyze",
        "security",
        "--offline=true",
        f"--threshold={threshold}",
        "--no-pager",
        str(SYSTEMD / unit),
    )
    found = run(*command, check=False)
    assert found.returncode == 0, found.stdout
    assert "Unknown key" not in found.stderr
    assert run(*command[:3], "--threshold=1", *command[4:], check=False).returncode != 0, "the threshold says nothing"


def test_user_and_folders_are_made(root: Path) -> None:
    (root / "etc").mkdir(exist_ok=True)
    run("systemd-sysusers", f"--root={root}", root / "etc/sysusers.d/umbra.conf")
    [entry] = [line for line in (root / "etc/passwd").read_text().splitlines() if line.startswith("umbra:")]
    assert entry.split(":")[5] == "/var/lib/umbra"
    if os.geteuid() == 0:
        run("systemd-tmpfiles", f"--root={root}", "--create", root / "etc/tmpfiles.d/umbra.conf", check=False)
        assert (root / "var/lib/umbra/inbox").stat().st_mode & 0o7777 == 0o2770


def test_settings_that_are_installed_are_valid_and_never_overwritten(root: Path) -> None:
    settings = root / "var/lib/umbra/umbra.toml"
    assert read_settings(settings.parent).retention.free_bytes == 5_000_000_000
    settings.write_text("# mine\n")
    run(SYSTEMD / "station", "install", root=root)
    assert settings.read_text() == "# mine\n"


def test_uninstalling_leaves_the_stations_data_alone(root: Path) -> None:
    told = run(SYSTEMD / "station", "uninstall", root=root).stdout
    assert "stay" in told
    left = sorted(str(p.relative_to(root)) for p in root.rglob("*") if p.is_file() or p.is_symlink())
    assert left == ["var/lib/umbra/umbra.toml"]


def test_every_command_of_a_unit_exists(root: Path) -> None:
    umbra = root / "opt/umbra/bin/umbra"
    for unit in UNITS:
        for line in (SYSTEMD / unit).read_text().splitlines():
            if line.startswith("ExecStart="):
                command = line.removeprefix("ExecStart=").split()
                options = [word for word in command[1:] if word.startswith("--")]
                words = [word for word in command[1:] if not word.startswith(("-", "/"))]
                shown = run(umbra, *words, "--help").stdout
                assert all(option in shown or option.replace("--no-", "--") in shown for option in options), line


def test_the_installers_usage_is_told(root: Path) -> None:
    wrong = run(SYSTEMD / "station", "what", check=False)
    assert wrong.returncode == 2
    assert "install [WHEEL]" in wrong.stdout


def confined(unit: str, *command: str | Path) -> list[str | Path]:
    """A command of our program as a unit starts it."""
    program = Path(sys.executable).with_name("umbra")
    return [sys.executable, "-m", "tests.systemd.confined", SYSTEMD / unit, program, *command]


def test_system_calls_that_are_refused_are_refused_here_too() -> None:
    command = [*confined("umbra-api.service")[:-1], sys.executable, "-c", "import os; os.nice(1)"]
    refused = run(*command, check=False)
    if "prctl 22" in refused.stderr:
        pytest.skip(f"NO SECCOMP HERE: the units' system calls were not tested: {refused.stderr.splitlines()[-1]}")
    assert "PermissionError" in refused.stderr
    assert "nice" not in allowed(SYSTEMD / "umbra-api.service")


def test_the_api_comes_up_with_the_system_calls_that_its_unit_leaves_it(station: Station) -> None:
    with closing(VerdictLog(station.database)):
        pass
    with api_of(station, command=confined("umbra-api.service", "serve", "--station", station.root)) as http:
        assert http.get("/v1/verdicts").json() == {"verdicts": [], "cursor": 0}
        assert http.get("/readyz").status_code == 503


def test_the_screener_screens_and_its_timers_work_with_the_system_calls_that_are_left(station: Station) -> None:
    command = confined("umbra-screen.service", "run", "--no-api", "--station", station.root)
    with (station.root / "test.log").open("ab") as log:
        screener = subprocess.Popen(command, stderr=log)
    try:
        drop(station, "a", seed=1)
        wait_until(lambda: outbox(station), (station.root / "test.log").read_text() or "a verdict")
        checked = run(*confined("umbra-golden.service", "engines", "check", "--station", station.root))
        assert "measured by the screener" in " ".join(checked.stdout.split())
        assert (
            "deleted: pictures of 0 frames"
            in run(*confined("umbra-retain.service", "retain", "--station", station.root)).stdout
        )
    finally:
        screener.terminate()
    assert screener.wait(30) == 0
