"""A log copied while it is written, and put back: no verdict lost, no number given twice."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import threading
from contextlib import closing
from pathlib import Path

import pytest

from appliance.again import alone
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
        fill(log, 0, 20)
        for _ in range(100):  # so large that it is copied in many steps, and commits fall between them
            log.add_event("test.filler", text="x" * 100_000)
        stop = threading.Event()
        written = [20]

        def go_on() -> None:
            with closing(VerdictLog(station.database)) as own:
                while not stop.is_set():
                    fill(own, written[0], 1)
                    written[0] += 1

        writer = threading.Thread(target=go_on)
        writer.start()
        wait_until(lambda: written[0] > 22, "the writer is at work")
        before = written[0]
        told = back_up(station, tmp_path / "copy")
        after = written[0]
        stop.set()
        writer.join()
    assert after > before + 2, "nothing was committed while it was copied"
    assert before <= told["verdicts"] + 1 <= after + 1
    with closing(VerdictLog(tmp_path / "copy" / "umbra.db", readonly=True)) as copy:
        assert [row["seq"] for row in copy.verdicts(limit=10_000)] == list(range(1, told["verdicts"] + 1))
    assert (tmp_path / "copy" / "umbra.toml").read_text() == (station.root / "umbra.toml").read_text()
    assert not list((tmp_path / "copy").glob("*-wal"))


def test_a_backup_may_lie_on_a_share(station: Station, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    share = tmp_path / "share"
    monkeypatch.setattr("appliance.log_file.file_system_of", lambda path: "nfs4" if share in path.parents else "ext4")
    with closing(VerdictLog(station.database)) as log:
        fill(log, 0, 3)
    assert back_up(station, share / "copy")["verdicts"] == 3
    with pytest.raises(RefusedError, match="lies on nfs4"):
        VerdictLog(share / "copy" / "umbra.db")
    with closing(VerdictLog(share / "copy" / "umbra.db", readonly=True)) as copy:
        assert copy.last_seq() == 3


def test_a_leftover_of_the_log_before_does_not_leak_into_the_restored_one(station: Station, tmp_path: Path) -> None:
    with closing(VerdictLog(station.database)) as log:
        fill(log, 0, 3)
    back_up(station, tmp_path / "copy")
    with closing(VerdictLog(station.database)) as log:
        fill(log, 3, 3)
        leftover = station.database.with_name("umbra.db-wal").read_bytes()
    assert leftover
    station.again.root.mkdir()
    station.again.database.touch()  # of frames that the backup does not know
    station.database.unlink()  # an operator moved the log away, and forgot what belongs to it
    station.database.with_name("umbra.db-wal").write_bytes(leftover)
    done = restore(tmp_path / "copy", station)
    with closing(VerdictLog(station.database, readonly=True)) as log:
        assert log.last_seq() == done.verdicts == 3
    [aside] = station.root.glob("umbra.db.before-*-wal")
    assert aside.read_bytes() == leftover
    assert not station.again.root.exists()


def test_nothing_is_restored_while_archived_frames_are_judged_again(station: Station, tmp_path: Path) -> None:
    with closing(VerdictLog(station.database)) as log:
        fill(log, 0, 1)
    back_up(station, tmp_path / "copy")
    with alone(station), pytest.raises(StationBusyError, match="another `umbra rescreen`"):
        restore(tmp_path / "copy", station)
    assert restore(tmp_path / "copy", station).verdicts == 1


def test_frames_that_are_judged_again_replace_nothing(station: Station, tmp_path: Path) -> None:
    with closing(VerdictLog(station.database)) as log:
        fill(log, 0, 1)
    back_up(station, tmp_path / "copy")
    taken, hashed = b"judged after the backup", b"another of the same name"
    sha256 = hashlib.sha256(hashed).hexdigest()
    for place, content in (
        (station.done / "P/L/a.tif", taken), (station.inbox / "P/L/a.tif", b"dropped meanwhile"),
        (station.done / f"P/L/b.{sha256[:8]}.tif", hashed),
    ):  # fmt: skip
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)
    done = restore(tmp_path / "copy", station, again=True)
    assert len(done.without_verdict) == 2
    assert [path.name for path in done.back] == [f"b.{sha256[:8]}.tif"]
    assert (station.inbox / "P/L/a.tif").read_bytes() == b"dropped meanwhile"
    assert (station.done / "P/L/a.tif").read_bytes() == taken
    assert (station.inbox / "P/L/b.tif").read_bytes() == hashed


@pytest.mark.skipif(os.geteuid() != 0, reason="ONLY ROOT CAN RESTORE FOR ANOTHER USER: not tested")
def test_settings_of_its_own_stay_and_that_is_told(station: Station, tmp_path: Path) -> None:
    settings = station.root / "umbra.toml"
    settings.write_text("[limits]\npixels = 1000\n")
    VerdictLog(station.database).close()
    back_up(station, tmp_path / "copy")
    assert not restore(tmp_path / "copy", station).settings_stay, "the same"
    settings.write_text("[limits]\npixels = 2000\n")
    assert (
        "umbra.toml is the one that was there" in umbra("restore", tmp_path / "copy", "--station", station.root).stdout
    )
    assert "2000" in settings.read_text()


def test_what_root_restores_belongs_to_the_stations_owner(station: Station, tmp_path: Path) -> None:
    with closing(VerdictLog(station.database)) as log:
        fill(log, 0, 1)
    back_up(station, tmp_path / "copy")
    os.chown(station.root, 1234, 1234)
    restore(tmp_path / "copy", station)
    assert {path.stat().st_uid for path in station.root.glob("umbra.db*") if ".before-" not in path.name} == {1234}


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
    for path in station.outbox.rglob("[bc].json"):
        path.unlink()  # line control has taken them
    assert Daemon(station, api=False).wait_ended() != 0
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
