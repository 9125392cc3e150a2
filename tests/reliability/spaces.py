"""Scenarios that want mounts or limits of their own: run in new namespaces of the kernel, in a process of their own.

`python -m tests.reliability.spaces NAME FOLDER` runs one; `in_spaces` runs it from a test, or skips loudly.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from appliance.formats import write_frame
from appliance.settings import WatchSettings
from appliance.station import Station
from appliance.verdict_log import VerdictLog
from appliance.watch import Watcher
from tests.appliance.running import Daemon, drop, outbox, wait_until
from tests.conftest import dark
from tests.reliability.ledger import Ledger

SETTINGS = "[watch]\nrescan_s = 0.1\nsettle_s = 0.1\nincomplete_s = 0\n[api]\nport = 0\n"
KB = 1 << 10


def run(*command: str | Path) -> None:
    subprocess.run(command, check=True)


def small_station(folder: Path, *, kilobytes: int, disk: str) -> Station:
    """A station on a disk of its own; compiled engines lie elsewhere."""
    root = folder / "station"
    root.mkdir()
    run("mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "none", root)
    (folder / "engines").mkdir(exist_ok=True)
    (root / "engines").symlink_to(folder / "engines")
    (root / "umbra.toml").write_text(f"{SETTINGS}[disk]\n{disk}\n")
    return Station.open(root, create=True)


class Ballast:
    """A file that fills a disk."""

    def __init__(self, station: Station) -> None:
        self._path, self._station = station.root / "ballast", station

    def leave(self, nbytes: int) -> None:
        """Fill the disk until so much is free."""
        with self._path.open("ab") as file:
            os.posix_fallocate(
                file.fileno(), 0, max(1, self._path.stat().st_size + self._station.free_bytes() - nbytes)
            )

    def drop(self) -> None:
        self._path.unlink()


def full_disk(folder: Path) -> None:
    """The disk fills at one step after the other; with room again everything goes on, and nothing is lost."""
    station = small_station(folder, kilobytes=12 * KB, disk="low_bytes = 0\nstop_bytes = 0")
    ledger, ballast = Ledger(station), Ballast(station)
    running = Daemon(station, api=False)
    running.wait_ready()
    paused = 0
    for number, room in enumerate((0, 4, 8, 16, 24, 32, 48, 64, 96, 160)):
        for i in range(2):
            ledger.feed(f"f{number}-{i}", hidden=True)
        ballast.leave(room * KB)
        ledger.show()
        time.sleep(1.5)  # whatever it does with so little room
        assert running.process.poll() is None, f"the daemon ended with {room} kB free"
        paused += ledger.pending() > 0
        ballast.drop()
        ledger.wait_done()
        ledger.look()
    assert paused >= 3, "the disk was hardly ever too small"
    wait_until(lambda: (station.read_state() or {})["ready"], "ready at the end")
    assert running.stop() == 0
    ledger.check()
    print(f"full disk: {paused} of 10 rooms were too small")


def low_disk(folder: Path) -> None:
    """Below the mark nothing is screened and the API says why; above it everything goes on; a start waits, too."""
    station = small_station(folder, kilobytes=40 * KB, disk="low_bytes = 0\nstop_bytes = 8_000_000")
    ballast = Ballast(station)
    running = Daemon(station)
    url = running.url
    running.wait_ready()
    drop(station, "a", seed=1)
    wait_until(lambda: len(outbox(station)) == 1, "a verdict")
    ballast.leave(7_000_000)
    wait_until(lambda: httpx.get(f"{url}/readyz").status_code == 503, "not ready")
    assert "screening stops below 8000000" in httpx.get(f"{url}/readyz").text
    waiting = drop(station, "b", seed=2)
    time.sleep(1)
    assert waiting.exists()
    assert len(outbox(station)) == 1
    running.stop()
    running = Daemon(station, api=False)
    wait_until(
        lambda: any("wanted to start" in r for r in (station.read_state() or {})["reasons"]), "it waits to start"
    )
    ballast.drop()
    wait_until(lambda: len(outbox(station)) == 2, "the pending frame's verdict")
    assert running.stop() == 0
    log = VerdictLog(station.database, readonly=True)
    assert log.newest_event("disk.full") is not None
    log.close()


def unmounted_share(folder: Path) -> None:
    """An inbox that is a mount goes and comes back: not ready in between, and no frame lost."""
    root = folder / "station"
    root.mkdir()
    (root / "umbra.toml").write_text(f"{SETTINGS}[disk]\nlow_bytes = 0\n")
    station = Station.open(root, create=True)
    share = folder / "share"
    share.mkdir()

    def drop_on_share(name: str, seed: int) -> None:
        made = write_frame(share / ".scratch", name, dark(seed=seed), bits=8, format_name="tiff")
        (share / "P" / "L").mkdir(parents=True, exist_ok=True)
        made.rename(share / "P" / "L" / made.name)

    run("mount", "--bind", share, station.inbox)
    running = Daemon(station, api=False)
    running.wait_ready()
    drop_on_share("a", 1)
    wait_until(lambda: len(outbox(station)) == 1, "a verdict")
    wait_until((station.done / "P" / "L" / "a.tif").exists, "put away, on another mount")
    run("umount", "-l", station.inbox)
    wait_until(lambda: not (station.read_state() or {})["ready"], "not ready")
    astray = drop(station, "astray", seed=9)  # where the share is not
    drop_on_share("b", 2)
    time.sleep(0.5)
    assert astray.exists()
    assert len(outbox(station)) == 1
    run("mount", "--bind", share, station.inbox)
    wait_until(lambda: len(outbox(station)) == 2, "the verdict of what came meanwhile")
    wait_until(lambda: (station.read_state() or {})["ready"], "ready again")
    drop_on_share("c", 3)
    wait_until(lambda: len(outbox(station)) == 3, "a verdict")
    assert running.stop() == 0


def no_inotify(folder: Path) -> None:
    """Without watches to be had, the re-scan finds everything; watches that run out later are noticed."""
    Path("/proc/sys/user/max_inotify_watches").write_text("0")
    inbox = folder / "inbox"
    inbox.mkdir()
    watcher = Watcher(inbox, WatchSettings(rescan_s=0.1, settle_s=0.1))
    watcher.start()
    assert not watcher.listening
    found = burst(watcher, inbox, 50)
    assert found == 50
    watcher.stop()

    Path("/proc/sys/user/max_inotify_watches").write_text("3")
    later = Watcher(inbox, WatchSettings(rescan_s=0.1, settle_s=0.1))
    later.start()
    assert later.listening
    for number in range(8):
        (inbox / f"lot{number}").mkdir()
        (inbox / f"lot{number}" / "a.tif").write_bytes(b"x")
    offered(later, 58)
    later.stop()


def burst(watcher: Watcher, inbox: Path, count: int) -> int:
    """Make files as fast as possible; how many different ones are offered."""
    for number in range(count):
        os.close(os.open(inbox / f"{number:06d}.tif", os.O_CREAT | os.O_WRONLY))
    return len(offered(watcher, count))


def offered(watcher: Watcher, count: int) -> set[str]:
    """Look until so many different files were offered: their names."""
    names: set[str] = set()

    def all_there() -> bool:
        names.update(candidate.relative for candidate in watcher.poll())
        return len(names) >= count

    wait_until(all_there, f"{count} files are offered")
    return names


def fuse_inbox(folder: Path) -> None:
    """A FUSE mount tells of nothing that happens behind it: it is recognised and polled."""
    share, inbox = folder / "share", folder / "inbox"
    share.mkdir()
    inbox.mkdir()
    run("bindfs", share, inbox)
    try:
        watcher = Watcher(inbox, WatchSettings(rescan_s=0.1, settle_s=0.1))
        watcher.start()
        assert not watcher.listening
        (share / "a.tif").write_bytes(b"x")
        assert offered(watcher, 1) == {"a.tif"}
        watcher.stop()
    finally:
        run("umount", inbox)


SCENARIOS: dict[str, Callable[[Path], None]] = {
    f.__name__: f for f in (full_disk, low_disk, unmounted_share, no_inotify, fuse_inbox)
}


def in_spaces(scenario: Callable[[Path], None], folder: Path, *, user: bool = False) -> None:
    """Run a scenario where it may mount and set limits.

    Args:
        scenario: one of SCENARIOS.
        folder: for its files.
        user: in a user namespace, which has limits of its own.
    """
    spaces = ["unshare", "-Urm"] if user or os.geteuid() else ["unshare", "-m"]
    allowed = subprocess.run(
        [*spaces, "mount", "-t", "tmpfs", "none", "/mnt"], capture_output=True, text=True, check=False
    )
    if allowed.returncode:
        pytest.skip(f"NO NAMESPACES HERE, {scenario.__name__} was not tested: {allowed.stderr.strip()}")
    command = [*spaces, sys.executable, "-m", "tests.reliability.spaces", scenario.__name__, str(folder)]
    told = folder / "told.txt"
    with told.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, start_new_session=True)
        try:
            code = process.wait(280)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # and what it left running
            process.wait()
    assert code == 0, told.read_text()


if __name__ == "__main__":
    SCENARIOS[sys.argv[1]](Path(sys.argv[2]))
