"""Inboxes as they are in plants: bursts, shares that go and come, no inotify, deep folders, files that change."""

from __future__ import annotations

import os
import shutil
import time
from hashlib import sha256
from pathlib import Path

import pytest

from appliance.formats import write_frame
from appliance.settings import WatchSettings
from appliance.station import Station
from appliance.verdict_log import VerdictLog
from appliance.watch import Watcher
from tests.appliance.running import Daemon, drop, outbox, wait_until
from tests.conftest import dark
from tests.reliability.spaces import burst, dead_mount, fuse_inbox, in_spaces, no_inotify, unmounted_share

BURST = 60_000
fuse = pytest.mark.skipif(
    not shutil.which("bindfs") or not Path("/dev/fuse").exists(),
    reason="NO BINDFS OR /dev/fuse HERE: FUSE mounts were not tested",
)


def test_of_a_burst_of_60000_files_none_is_lost_and_lost_events_are_counted(tmp_path: Path) -> None:
    inbox = tmp_path / "inbox"
    inbox.mkdir()
    watcher = Watcher(inbox, WatchSettings(rescan_s=1, settle_s=0))
    watcher.start()
    assert burst(watcher, inbox, BURST) == BURST
    print(f"{watcher.events_lost} of {BURST} files were announced by no event")
    watcher.stop()


def test_files_that_no_event_announced_are_counted(tmp_path: Path) -> None:
    inbox = tmp_path / "inbox"
    inbox.mkdir()
    (inbox / "before.tif").write_bytes(b"x")
    watcher = Watcher(inbox, WatchSettings(rescan_s=0.05, settle_s=0))
    watcher.start()
    assert [c.relative for c in watcher.poll()] == ["before.tif"]
    (inbox / "told.tif").write_bytes(b"x")
    wait_until(watcher._hints.wake.is_set, "an event")
    wait_until(lambda: [c.relative for c in watcher.poll()] == ["told.tif"], "it is offered")
    assert watcher.events_lost == 0
    (inbox / "lost.tif").write_bytes(b"x")
    wait_until(lambda: watcher._hints._announced.get(str(inbox / "lost.tif")), "its last event")
    watcher._hints.take()  # as an overflowing queue does
    wait_until(lambda: [c.relative for c in watcher.poll()] == ["lost.tif"], "it is offered all the same")
    assert watcher.events_lost == 1
    watcher.stop()


def test_a_share_that_goes_and_comes_back(tmp_path: Path) -> None:
    assert in_spaces(unmounted_share, tmp_path) == {"nothing read behind it": True, "verdicts": 3, "ended": 0}


def test_without_inotify_everything_is_found_and_what_watches_missed_is_counted(tmp_path: Path) -> None:
    found = in_spaces(no_inotify, tmp_path, user=True)
    assert found == {"listened": [False, True], "found": 50, "found later": 59, "not announced": 1}


@fuse
def test_a_fuse_mount_is_polled(tmp_path: Path) -> None:
    assert in_spaces(fuse_inbox, tmp_path) == {"listened": False, "names": ["a.tif"]}


@fuse
def test_a_mount_whose_server_died_ends_nobody(tmp_path: Path) -> None:
    found = in_spaces(dead_mount, tmp_path)
    assert (found["verdicts"], found["ended"]) == (2, 0)
    assert any("is not there" in reason for reason in found["why"])


@pytest.mark.parametrize("kind", ["nfs4", "cifs", "fuse.sshfs", "fuse.rclone"])
def test_shares_are_polled(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("appliance.watch.file_system_of", lambda _path: kind)
    watcher = Watcher(tmp_path, WatchSettings())
    watcher.start()
    assert not watcher.listening
    watcher.stop()


def test_a_mount_that_should_be_there_and_is_not(tmp_path: Path) -> None:
    watcher = Watcher(tmp_path, WatchSettings(mounted=True))
    watcher.start()
    assert not watcher.present
    watcher.stop()


def test_links_depth_and_hard_links(daemon: Daemon, station: Station, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    secret = write_frame(outside, "secret", dark(seed=1), bits=8, format_name="tiff")
    deep = "/".join(["P", "L", *(f"level{n}" for n in range(18))])
    drop(station, "deep", seed=2, folder=deep)
    lot = station.inbox / "P" / "L"
    (lot / "link.tif").symlink_to(secret)
    (lot / "folder").symlink_to(outside)
    (lot / "dangling.tif").symlink_to(lot / "none.tif")
    hard = write_frame(station.root / "scratch", "hard", dark(seed=3), bits=8, format_name="tiff")
    os.link(hard, lot / "hard.tif")
    wait_until(lambda: len(outbox(station)) == 2, "two verdicts")
    assert outbox(station).keys() == {f"{deep}/deep.json", "P/L/hard.json"}
    wait_until((station.done / "P/L/hard.tif").exists, "put away")
    assert hard.exists()
    assert secret.exists()
    assert sorted(p.name for p in lot.iterdir() if p.is_symlink()) == ["dangling.tif", "folder", "link.tif"]


def test_a_writer_that_pauses_in_a_file_of_full_size_is_waited_for(daemon: Daemon, station: Station) -> None:
    """As one that makes room first, or whose samples come before a header that is mended at the end."""
    whole = write_frame(station.root / "scratch", "x", dark(seed=1), bits=8, format_name="tiff").read_bytes()
    lot = station.inbox / "P" / "L"
    lot.mkdir(parents=True)
    with (lot / "slow.tif").open("wb") as file:
        file.write(whole[: len(whole) // 2])
        file.truncate(len(whole))
        file.flush()
        drop(station, "after", seed=2)
        wait_until(lambda: "P/L/after.json" in outbox(station), "one that came after it is judged")
        rest = 4 * station.settings.watch.settle_s
        wait_until(
            lambda: time.time() - (lot / "slow.tif").stat().st_mtime > rest, "it rested longer than a whole file must"
        )
        assert "P/L/slow.json" not in outbox(station)
        file.seek(len(whole) // 2)
        file.write(whole[len(whole) // 2 :])
    wait_until((station.done / "P/L/slow.tif").exists, "put away")
    log = VerdictLog(station.database, readonly=True)
    assert [r["sha256"] for r in log.verdicts("f.name = 'slow.tif'")] == [sha256(whole).hexdigest()]
    log.close()


def test_a_file_replaced_while_it_waits_is_judged_as_it_is(daemon: Daemon, station: Station) -> None:
    for round_ in range(5):
        for seed in range(3):
            drop(station, f"a{round_}", seed=10 * round_ + seed)
    wait_until(lambda: not list(station.inbox.rglob("*.tif")), "all are put away")
    log = VerdictLog(station.database, readonly=True)
    rows = log.verdicts()
    for name, told in outbox(station).items():
        newest = max((r for r in rows if r["name"] == told["frame"]), key=lambda r: r["seq"])
        assert (told["seq"], told["sha256"]) == (newest["seq"], newest["sha256"]), name
    done = {p.read_bytes() for p in station.done.rglob("*.tif")}
    for round_ in range(5):
        last = write_frame(station.root / "scratch", "x", dark(seed=10 * round_ + 2), bits=8, format_name="tiff")
        assert last.read_bytes() in done, "the last bytes at a path were judged"
    log.close()


def test_a_file_that_may_not_be_read_is_told(station: Station) -> None:
    """Even root needs these capabilities to read what its mode forbids."""
    without = "--bounding-set=-dac_override,-dac_read_search"
    running = Daemon(station, api=False, prefix=() if os.geteuid() else ("setpriv", without))
    running.wait_ready()
    target = drop(station, "a")
    target.chmod(0)
    wait_until(lambda: outbox(station), "a verdict")
    assert outbox(station)["P/L/a.json"]["reason"] == "unreadable: cannot be opened: Permission denied"
    assert running.stop() == 0
