"""Which files of an inbox are complete, seen on real files with a clock that the test turns."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from appliance.settings import WatchSettings
from appliance.watch import Watcher


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def inbox(tmp_path: Path) -> Path:
    folder = tmp_path / "inbox"
    folder.mkdir()
    return folder


@pytest.fixture
def watcher(inbox: Path, clock: Clock) -> Watcher:
    """Never started: what the re-scan alone finds."""
    return Watcher(inbox, WatchSettings(rescan_s=1, settle_s=0.5, incomplete_s=10), clock)


def names(watcher: Watcher, clock: Clock, *, after: float = 0.0) -> list[str]:
    clock.now += after
    return [c.relative for c in watcher.poll()]


def until(condition: Callable[[], bool], *, seconds: float = 5.0) -> bool:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


def test_a_file_is_offered_once_when_it_has_rested(watcher: Watcher, inbox: Path, clock: Clock) -> None:
    (inbox / "a.tif").write_bytes(b"1")
    assert names(watcher, clock) == []
    assert names(watcher, clock, after=0.3) == []
    assert names(watcher, clock, after=0.3) == ["a.tif"]
    assert names(watcher, clock, after=5) == []


def test_a_growing_file_waits(watcher: Watcher, inbox: Path, clock: Clock) -> None:
    path = inbox / "a.tif"
    for size in range(1, 6):
        path.write_bytes(bytes(size))
        assert names(watcher, clock, after=0.4) == []
    names(watcher, clock, after=0.4)
    assert names(watcher, clock, after=0.4) == ["a.tif"]


def test_old_files_need_no_settling(watcher: Watcher, inbox: Path, clock: Clock) -> None:
    path = inbox / "P" / "L" / "a.tif"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"1")
    os.utime(path, (time.time() - 60, time.time() - 60))
    assert names(watcher, clock) == ["P/L/a.tif"]


def test_a_settled_file_comes_back_only_when_it_changes(watcher: Watcher, inbox: Path, clock: Clock) -> None:
    path = inbox / "a.tif"
    path.write_bytes(b"1")
    names(watcher, clock)
    clock.now += 1
    [candidate] = watcher.poll()
    watcher.settle(candidate)
    assert names(watcher, clock, after=100) == []
    path.write_bytes(b"22")
    names(watcher, clock, after=1)
    assert names(watcher, clock, after=1) == ["a.tif"]


def test_a_file_that_changed_in_our_hands_is_not_settled(watcher: Watcher, inbox: Path, clock: Clock) -> None:
    path = inbox / "a.tif"
    path.write_bytes(b"1")
    names(watcher, clock)
    clock.now += 1
    [candidate] = watcher.poll()
    path.write_bytes(b"another")
    names(watcher, clock, after=1)
    watcher.settle(candidate)
    assert names(watcher, clock, after=1) == ["a.tif"]


def test_a_deferred_file_gets_a_last_try(watcher: Watcher, inbox: Path, clock: Clock) -> None:
    (inbox / "a.tif").write_bytes(b"half")
    names(watcher, clock)
    clock.now += 1
    [candidate] = watcher.poll()
    watcher.defer(candidate)
    assert names(watcher, clock, after=5) == []
    clock.now += 5
    [last] = watcher.poll()
    assert last.rested_s >= 10


def test_a_deferred_file_comes_back_when_it_changes(watcher: Watcher, inbox: Path, clock: Clock) -> None:
    path = inbox / "a.tif"
    path.write_bytes(b"half")
    names(watcher, clock)
    clock.now += 1
    [candidate] = watcher.poll()
    watcher.defer(candidate)
    path.write_bytes(b"the whole of it")
    names(watcher, clock, after=1)
    assert names(watcher, clock, after=1) == ["a.tif"]


def test_what_is_no_frame_is_never_offered(watcher: Watcher, inbox: Path, clock: Clock, tmp_path: Path) -> None:
    for name in (".hidden.tif", "a.tif.tmp", "a.part", "a.raw.json"):
        (inbox / name).write_bytes(b"1")
    (inbox / "x.tif").mkdir()
    (tmp_path / "outside.tif").write_bytes(b"1")
    (inbox / "link.tif").symlink_to(tmp_path / "outside.tif")
    (inbox / "loop").symlink_to(inbox)
    names(watcher, clock)
    assert names(watcher, clock, after=60) == []
    assert watcher.waiting == 0


@pytest.mark.parametrize("name", ["ä ö.tif", "new\nline.tif", "日本.tif", "a" * 200 + ".tif", "\udcff.tif"])
def test_any_name_is_found(watcher: Watcher, inbox: Path, clock: Clock, name: str) -> None:
    (inbox / name).write_bytes(b"1")
    names(watcher, clock)
    assert names(watcher, clock, after=1) == [name]


def test_a_closed_file_needs_no_settling(inbox: Path) -> None:
    watcher = Watcher(inbox, WatchSettings(rescan_s=60, settle_s=60, incomplete_s=60))
    watcher.start()
    try:
        (inbox / "a.tif").write_bytes(b"1")
        assert until(lambda: [c.relative for c in watcher.poll()] == ["a.tif"])
    finally:
        watcher.stop()


def test_a_file_moved_in_needs_no_settling(inbox: Path) -> None:
    watcher = Watcher(inbox, WatchSettings(rescan_s=60, settle_s=60, incomplete_s=60))
    watcher.start()
    try:
        (inbox / ".a.tmp").write_bytes(b"1")
        (inbox / ".a.tmp").rename(inbox / "a.tif")
        assert until(lambda: [c.relative for c in watcher.poll()] == ["a.tif"])
    finally:
        watcher.stop()


def test_an_inbox_made_anew_is_watched_again(inbox: Path) -> None:
    watcher = Watcher(inbox, WatchSettings(rescan_s=0.05, settle_s=0.05, incomplete_s=60))
    watcher.start()
    try:
        shutil.rmtree(inbox)
        assert until(lambda: not watcher.poll() and not watcher.present)
        inbox.mkdir()
        (inbox / "a.tif").write_bytes(b"1")
        assert until(lambda: [c.relative for c in watcher.poll()] == ["a.tif"])
    finally:
        watcher.stop()


def test_a_file_that_cannot_be_put_away_comes_again_later_and_later(
    watcher: Watcher, inbox: Path, clock: Clock
) -> None:
    (inbox / "a.tif").write_bytes(b"1")
    names(watcher, clock)
    clock.now += 1
    [candidate] = watcher.poll()
    for pause in (5, 10, 20):
        watcher.try_later(candidate)
        assert names(watcher, clock, after=pause - 1) == []
        clock.now += 1.5
        [candidate] = watcher.poll()
    watcher.settle(candidate)
    assert names(watcher, clock, after=10_000) == []


def test_a_file_that_was_gone_for_a_moment_is_offered_again(watcher: Watcher, inbox: Path, clock: Clock) -> None:
    """As on a share that blinks: back with the same inode, size and time."""
    file = inbox / "a.tif"
    file.write_bytes(b"1")
    watcher.poll()
    clock.now += 1
    [candidate] = watcher.poll()
    file.rename(inbox.parent / "away")
    watcher.offer_again(candidate)  # what the screener says of a file that vanished
    (inbox.parent / "away").rename(file)
    assert names(watcher, clock, after=1) == ["a.tif"]


@pytest.mark.skipif(os.geteuid() == 0 and not shutil.which("setpriv"), reason="ROOT READS EVERYTHING: not tested")
def test_folders_that_cannot_be_listed_are_told(watcher: Watcher, inbox: Path, clock: Clock) -> None:
    """A process without the right to override modes looks, as the screener's user is one."""
    (inbox / "open").mkdir()
    (inbox / "open" / "a.tif").write_bytes(b"1")
    (inbox / "closed").mkdir(mode=0)
    (inbox / "lost+found").mkdir(mode=0)
    code = (
        "import sys; from pathlib import Path; from appliance.watch import Watcher; "
        "from appliance.settings import WatchSettings; watcher = Watcher(Path(sys.argv[1]), WatchSettings(settle_s=0)); "
        "print([c.relative for c in watcher.poll()], watcher.closed)"
    )
    prefix = [] if os.geteuid() else ["setpriv", "--bounding-set=-dac_override,-dac_read_search"]
    told = subprocess.run([*prefix, sys.executable, "-c", code, inbox], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "['open/a.tif'] {'closed': 'Permission denied'}"
    (inbox / "closed").chmod(0o700)
    (inbox / "closed" / "b.tif").write_bytes(b"1")
    rested = names(watcher, clock)  # the first file, if the process above took its time
    assert sorted([*rested, *names(watcher, clock, after=1)]) == ["closed/b.tif", "open/a.tif"]
    assert watcher.closed == {}


def test_folders_deeper_than_any_stack_are_walked(watcher: Watcher, inbox: Path, clock: Clock) -> None:
    deep, relative = inbox, ""
    for _ in range(1500):
        deep, relative = deep / "d", f"{relative}d/"
        deep.mkdir()
    (deep / "a.tif").write_bytes(b"1")
    try:
        names(watcher, clock)
        assert names(watcher, clock, after=1) == [f"{relative}a.tif"]
    finally:
        subprocess.run(["rm", "-r", inbox / "d"], check=True)  # pytest's own way is recursive


def test_a_dead_mount_is_not_there(inbox: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stat = os.stat

    def dead(path: object, *args: object, **named: object) -> os.stat_result:
        if str(path) == str(inbox):
            raise OSError(errno.ENOTCONN, os.strerror(errno.ENOTCONN))
        return stat(path, *args, **named)  # type: ignore[arg-type]

    watcher = Watcher(inbox, WatchSettings())
    assert watcher.present
    monkeypatch.setattr(os, "stat", dead)
    assert not watcher.present
