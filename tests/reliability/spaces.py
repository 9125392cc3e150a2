"""Scenarios that want mounts or limits of their own: run in new namespaces of the kernel, in a process of their own.

`python -m tests.reliability.spaces NAME FOLDER` runs one and writes down what it found; `in_spaces` does that from a
test, which looks at it, or skips loudly.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from appliance.formats import write_frame
from appliance.mounts import is_mount
from appliance.settings import WatchSettings
from appliance.station import Station
from appliance.verdict_log import VerdictLog
from appliance.watch import Watcher
from tests.appliance.running import Daemon, drop, outbox, wait_until
from tests.conftest import dark
from tests.reliability.ledger import Ledger

SETTINGS = "[watch]\nrescan_s = 0.1\nsettle_s = 0.1\nincomplete_s = 0\n[api]\nport = 0\n"
KB = 1 << 10
FOUND = "found.json"
Found = dict[str, Any]


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


def full_disk(folder: Path) -> Found:
    """The disk fills at one step after the other; with room again everything goes on, and nothing is lost."""
    station = small_station(folder, kilobytes=12 * KB, disk="low_bytes = 0\nstop_bytes = 0")
    ledger, ballast = Ledger(station), Ballast(station)
    running = Daemon(station, api=False, log=folder / "daemon.log")  # as a journal: elsewhere
    running.wait_ready()
    before = 0

    def told_full(daemon: Daemon) -> bool:
        return len(daemon.log_lines("disk.full")) > before

    paused = []
    for number, room in enumerate((0, 4, 8, 16, 24, 32, 48, 64, 96, 160)):
        for i in range(2):
            ledger.feed(f"f{number}-{i}", hidden=True)
        ballast.leave(room * KB)
        ledger.show()
        wait_until(lambda: ledger.pending() == 0 or told_full(running), "all is done, or it said that the disk is full")
        assert running.process.poll() is None, f"the daemon ended with {room} kB free"
        if ledger.pending():
            paused.append(room)
        ballast.drop()
        ledger.wait_done()
        ledger.look()
        before = len(running.log_lines("disk.full"))
    wait_until(lambda: (station.read_state() or {})["ready"], "ready at the end")
    ended = running.stop()
    ledger.check()
    return {"rooms": 10, "too small": paused, "frames": len(ledger.fed), "ended": ended}


def low_disk(folder: Path) -> Found:
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
    beats(station, 3)
    kept = waiting.exists() and len(outbox(station)) == 1
    running.stop()
    running = Daemon(station, api=False)
    wait_until(
        lambda: any("wanted to start" in r for r in (station.read_state() or {})["reasons"]), "it waits to start"
    )
    ballast.drop()
    wait_until(lambda: len(outbox(station)) == 2, "the pending frame's verdict")
    ended = running.stop()
    with closing(VerdictLog(station.database, readonly=True)) as log:
        told = log.newest_event("disk.full") is not None
    return {"pending frame waited": kept, "told": told, "ended": ended}


def beats(station: Station, count: int) -> None:
    """Until a screener has told so often how it is: time enough for what it should not do."""
    for _ in range(count):
        before = (station.read_state() or {}).get("at")
        wait_until(lambda at=before: (station.read_state() or {}).get("at") != at, "a heartbeat")  # type: ignore[misc]


def beside_a_share(folder: Path) -> tuple[Station, Path]:
    """An empty station, and a folder that can be mounted as its inbox."""
    root, share = folder / "station", folder / "share"
    root.mkdir()
    share.mkdir()
    (root / "umbra.toml").write_text(f"{SETTINGS}[disk]\nlow_bytes = 0\n")
    return Station.open(root, create=True), share


def put(share: Path, name: str, *, seed: int) -> None:
    """Put a frame on a share as a tester elsewhere does."""
    made = write_frame(share / ".scratch", name, dark(seed=seed), bits=8, format_name="tiff")
    (share / "P" / "L").mkdir(parents=True, exist_ok=True)
    made.rename(share / "P" / "L" / made.name)


def unmounted_share(folder: Path) -> Found:
    """An inbox that is a mount goes and comes back: not ready in between, and no frame lost."""
    station, share = beside_a_share(folder)

    run("mount", "--bind", share, station.inbox)
    running = Daemon(station, api=False)
    running.wait_ready()
    put(share, "a", seed=1)
    wait_until(lambda: len(outbox(station)) == 1, "a verdict")
    wait_until((station.done / "P" / "L" / "a.tif").exists, "put away, on another mount")
    run("umount", "-l", station.inbox)
    wait_until(lambda: not (station.read_state() or {})["ready"], "not ready")
    astray = drop(station, "astray", seed=9)  # where the share is not
    put(share, "b", seed=2)
    beats(station, 2)
    behind = astray.exists() and len(outbox(station)) == 1
    run("mount", "--bind", share, station.inbox)
    wait_until(lambda: len(outbox(station)) == 2, "the verdict of what came meanwhile")
    wait_until(lambda: (station.read_state() or {})["ready"], "ready again")
    put(share, "c", seed=3)
    wait_until(lambda: len(outbox(station)) == 3, "a verdict")
    return {"nothing read behind it": behind, "verdicts": len(outbox(station)), "ended": running.stop()}


def dead_mount(folder: Path) -> Found:
    """The process behind a FUSE mount dies: every look at the inbox fails, until it is mounted anew."""
    station, share = beside_a_share(folder)
    server = subprocess.Popen(["bindfs", "-f", share, station.inbox])
    wait_until(lambda: is_mount(station.inbox), "mounted")
    running = Daemon(station)
    url = running.url
    running.wait_ready()
    put(share, "a", seed=1)
    wait_until(lambda: len(outbox(station)) == 1, "a verdict")
    server.kill()
    server.wait()
    wait_until(lambda: httpx.get(f"{url}/readyz").status_code == 503, "not ready")
    why = httpx.get(f"{url}/readyz").json()["reasons"]
    running.stop()
    again = Daemon(station, api=False)  # a start while it is dead
    wait_until(lambda: (station.read_state() or {}).get("pid") == again.process.pid, "it runs")
    run("umount", "-l", station.inbox)
    run("bindfs", share, station.inbox)
    put(share, "b", seed=2)
    wait_until(lambda: len(outbox(station)) == 2, "a verdict")
    found = {"why": why, "verdicts": len(outbox(station)), "ended": again.stop()}
    run("umount", station.inbox)
    return found


def no_inotify(folder: Path) -> Found:
    """Without watches to be had, the re-scan finds everything; where they run out later, it counts what it found alone."""
    Path("/proc/sys/user/max_inotify_watches").write_text("0")
    inbox = folder / "inbox"
    inbox.mkdir()
    watcher = Watcher(inbox, WatchSettings(rescan_s=0.1, settle_s=0.1))
    watcher.start()
    listened = [watcher.listening]
    found = burst(watcher, inbox, 50)
    watcher.stop()

    Path("/proc/sys/user/max_inotify_watches").write_text("3")
    later = Watcher(inbox, WatchSettings(rescan_s=0.1, settle_s=0.1))
    later.start()
    listened.append(later.listening)
    for number in range(8):
        (inbox / f"lot{number}").mkdir()
        (inbox / f"lot{number}" / "a.tif").write_bytes(b"x")
    names = offered(later, 58)
    (inbox / "lot7" / "late.tif").write_bytes(b"x")  # in a folder that no watch was left for
    names |= offered(later, 1)
    later.stop()
    return {"listened": listened, "found": found, "found later": len(names), "not announced": later.events_lost}


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


def fuse_inbox(folder: Path) -> Found:
    """A FUSE mount tells of nothing that happens behind it: it is recognised and polled."""
    share, inbox = folder / "share", folder / "inbox"
    share.mkdir()
    inbox.mkdir()
    run("bindfs", share, inbox)
    try:
        watcher = Watcher(inbox, WatchSettings(rescan_s=0.1, settle_s=0.1))
        watcher.start()
        (share / "a.tif").write_bytes(b"x")
        found = {"listened": watcher.listening, "names": sorted(offered(watcher, 1))}
        watcher.stop()
        return found
    finally:
        run("umount", inbox)


SCENARIOS: dict[str, Callable[[Path], Found]] = {
    f.__name__: f for f in (full_disk, low_disk, unmounted_share, dead_mount, no_inotify, fuse_inbox)
}


def in_spaces(scenario: Callable[[Path], Found], folder: Path, *, user: bool = False) -> Found:
    """Run a scenario where it may mount and set limits.

    Args:
        scenario: one of SCENARIOS.
        folder: for its files.
        user: in a user namespace, which has limits of its own.

    Returns:
        What it found.
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
    found: Found = json.loads((folder / FOUND).read_text())
    return found


if __name__ == "__main__":
    (Path(sys.argv[2]) / FOUND).write_text(json.dumps(SCENARIOS[sys.argv[1]](Path(sys.argv[2]))))
