"""A log copied while it is written, and put back: no verdict lost, no number given twice."""

from __future__ import annotations

import json
import shutil
import threading
from contextlib import closing
from pathlib import Path

import pytest

from appliance.backup import back_up, restore
from appliance.errors import RefusedError, StationBusyError
from appliance.station import Station
from appliance.verdict_log import VerdictLog
from tests.appliance.running import Daemon, drop, outbox, wait_until
from tests.appliance.test_cli import umbra
from tests.appliance.test_decide import frame
from tests.appliance.test_verdict_log import row_of


def fill(log: VerdictLog, start: int, count: int) -> None:
    for number in range(start, start + count):
        log.record(frame(), row_of(f"P/L/{number}.tif", f"{number:064d}"))


def test_a_backup_is_one_moment_of_a_log_that_is_being_written(station: Station, tmp_path: Path) -> None:
    with closing(VerdictLog(station.database)) as log:
        fill(log, 0, 200)
        stop = threading.Event()
        written = [200]

        def go_on() -> None:
            with closing(VerdictLog(station.database)) as own:
                while not stop.is_set():
                    fill(own, written[0], 1)
                    written[0] += 1

        writer = threading.Thread(target=go_on)
        writer.start()
        told = back_up(station, tmp_path / "copy")
        stop.set()
        writer.join()
    assert 200 <= told["verdicts"] <= written[0]
    with closing(VerdictLog(tmp_path / "copy" / "umbra.db", readonly=True)) as copy:
        assert [row["seq"] for row in copy.verdicts(limit=10_000)] == list(range(1, told["verdicts"] + 1))
    assert (tmp_path / "copy" / "umbra.toml").read_text() == (station.root / "umbra.toml").read_text()
    assert not list((tmp_path / "copy").glob("*-wal"))


def test_a_restored_station_gives_no_number_twice_and_finds_what_is_missing(station: Station, tmp_path: Path) -> None:
    running = Daemon(station, api=False)
    drop(station, "a", seed=1)
    wait_until((station.done / "P/L/a.tif").exists, "judged")
    umbra("backup", tmp_path / "copy", "--station", station.root)
    drop(station, "b", seed=2)
    drop(station, "c", seed=3)
    wait_until(lambda: len(list(station.done.rglob("*.tif"))) == 3, "judged")
    refused = umbra("restore", tmp_path / "copy", "--station", station.root, expect=1)
    assert "another `umbra run`" in refused.stderr
    running.stop()
    published = outbox(station)
    station.database.write_bytes(b"damaged")
    told = umbra("restore", tmp_path / "copy", "--station", station.root, "--again").stdout
    assert "1 verdicts; the next one is number 4" in told
    assert "2 frames are back in the inbox" in told
    [aside] = station.root.glob("umbra.db.before-*Z")
    assert aside.read_bytes() == b"damaged"
    again = Daemon(station, api=False)
    wait_until(lambda: len(list(station.done.rglob("*.tif"))) == 3, "judged again")
    again.stop()
    now = outbox(station)
    assert now["P/L/a.json"] == published["P/L/a.json"]
    for name in ("b", "c"):
        assert now[f"P/L/{name}.json"]["seq"] > 3
        assert now[f"P/L/{name}.json"]["score"] == published[f"P/L/{name}.json"]["score"]
    with closing(VerdictLog(station.database, readonly=True)) as log:
        assert log.counts()["RETEST"] + log.counts()["PASS"] + log.counts()["FAIL"] == 3
        assert log.newest_event("log.restored") is not None


def test_without_again_missing_frames_are_told_and_stay(station: Station, tmp_path: Path) -> None:
    with closing(VerdictLog(station.database)) as log:
        fill(log, 0, 1)
    back_up(station, tmp_path / "copy")
    stray = station.done / "P" / "L" / "stray.tif"
    stray.parent.mkdir(parents=True)
    stray.write_bytes(b"x")
    done = restore(tmp_path / "copy", station)
    assert done.without_verdict == (stray,)
    assert stray.exists()
    assert done.next_seq == 2


def test_a_damaged_or_strange_backup_is_refused_and_changes_nothing(station: Station, tmp_path: Path) -> None:
    with closing(VerdictLog(station.database)) as log:
        fill(log, 0, 3)
    good = tmp_path / "good"
    back_up(station, good)
    before = station.database.read_bytes()

    def changed(name: str) -> Path:
        folder = tmp_path / name
        shutil.copytree(good, folder)
        return folder

    cut = changed("cut")
    with (cut / "umbra.db").open("r+b") as file:
        file.truncate(4096)
    newer = changed("newer")
    manifest = json.loads((newer / "manifest.json").read_text())
    (newer / "manifest.json").write_text(json.dumps(manifest | {"schema": 99}))
    outside = changed("outside")
    (outside / "manifest.json").write_text(json.dumps(manifest | {"files": {"../../etc/passwd": "0"}}))
    empty = tmp_path / "empty"
    empty.mkdir()
    for folder, words in (
        (cut, "SHA-256"),
        (newer, "schema 99"),
        (outside, "no umbra.db"),
        (empty, "no backup of Umbra"),
    ):
        with pytest.raises(RefusedError, match=words):
            restore(folder, station)
    assert station.database.read_bytes() == before
    with pytest.raises(RefusedError, match="holds something"):
        back_up(station, good)


def test_a_backup_of_a_damaged_log_is_refused_and_leaves_nothing(station: Station, tmp_path: Path) -> None:
    with closing(VerdictLog(station.database)) as log:
        fill(log, 0, 300)
    with station.database.open("r+b") as file:
        file.seek(station.database.stat().st_size // 2)
        file.write(b"\xff" * 8192)
    with pytest.raises(RefusedError):
        back_up(station, tmp_path / "copy")
    assert not list(tmp_path.glob("*copy*"))


def test_two_cannot_restore_at_once(station: Station, tmp_path: Path) -> None:
    from appliance.station import StationLock

    with closing(VerdictLog(station.database)) as log:
        fill(log, 0, 1)
    back_up(station, tmp_path / "copy")
    lock = StationLock(station)
    with pytest.raises(StationBusyError):
        restore(tmp_path / "copy", station)
    lock.release()
