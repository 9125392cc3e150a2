"""What a station forgets: by age and bytes, pictures and frames first, verdicts last, nothing unjudged ever."""

from __future__ import annotations

import errno
import hashlib
import json
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from appliance.again import AgainLog
from appliance.images import ImageStore
from appliance.labels import Label, Origin
from appliance.line.feed import key_of
from appliance.naming import Earlier, Renaming
from appliance.reading import UNREAD
from appliance.retention import DAY_S, Report, Retention
from appliance.settings import LineSettings, LotSettings, MqttSettings, OpcUaSettings, RetentionSettings, Settings
from appliance.station import Station
from appliance.verdict import now_utc
from appliance.verdict_log import VerdictLog
from tests.appliance.running import Daemon, drop, outbox, wait_until
from tests.appliance.test_cli import umbra
from tests.appliance.test_decide import frame, measured
from tests.appliance.test_verdict_log import row_of

NOW = time.time()


@pytest.fixture
def log(station: Station) -> Iterator[VerdictLog]:
    with closing(VerdictLog(station.database)) as made:
        yield made


def put(
    station: Station, log: VerdictLog, name: str, *, size: int = 1000, judged: bool = True, folder: str = "done"
) -> int:
    """A frame that was put away, with its verdict, file and pictures; its number."""
    path = station.root / folder / "P" / "L" / f"{name}.tif"
    path.parent.mkdir(parents=True, exist_ok=True)
    content = name.encode().ljust(size, b".")
    path.write_bytes(content)
    if not judged:
        return 0
    row = log.record(frame(size=size), row_of(f"P/L/{name}.tif", hashlib.sha256(content).hexdigest()))
    file = station.outbox / "P" / "L" / f"{name}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({"seq": row["seq"]}))
    with closing(ImageStore(station.images)) as store:
        store.add(row["frame_id"], replace(measured(), image=np.zeros((224, 224), np.uint8)), seq=row["seq"])
    return int(row["frame_id"])


def keep(
    station: Station, log: VerdictLog, *, days_from_now: float = 0, line: LineSettings | None = None, **wanted: Any
) -> Report:
    chosen = Settings(retention=RetentionSettings(**wanted), line=line or LineSettings())
    return Retention(Station(station.root, chosen), log, NOW + days_from_now * DAY_S).run()


def kept_pictures(station: Station) -> list[int]:
    with closing(sqlite3.connect(station.images)) as store:
        return [row[0] for row in store.execute("SELECT frame_id FROM images ORDER BY 1")]


def frames_in(folder: Path) -> list[str]:
    return sorted(p.stem for p in folder.rglob("*.tif"))


def test_without_settings_nothing_goes(station: Station, log: VerdictLog) -> None:
    put(station, log, "a")
    assert keep(station, log, days_from_now=10_000) == Report()
    assert frames_in(station.done) == ["a"]


def test_frames_go_by_age_with_their_sidecars_and_verdicts_stay(station: Station, log: VerdictLog) -> None:
    put(station, log, "a")
    (station.done / "P" / "L" / "a.tif.json").write_text("{}")
    assert keep(station, log, days_from_now=6, done_days=7).frames == 0
    report = keep(station, log, days_from_now=8, done_days=7)
    assert (report.frames, report.bytes_, report.verdicts, report.files) == (1, 1000, 0, 0)
    assert not list(station.done.iterdir())
    assert log.last_seq() == 1
    assert len(outbox(station)) == 1


def test_a_frame_without_a_verdict_is_never_deleted(station: Station, log: VerdictLog) -> None:
    put(station, log, "judged", folder="quarantine")
    put(station, log, "never", judged=False)
    put(station, log, "odd", judged=False, folder="quarantine")
    put(station, log, "other")
    other = station.done / "P" / "L" / "other.tif"
    other.write_bytes(b"x" * other.stat().st_size)  # of the same size, as all raw frames of a sensor are
    report = keep(station, log, days_from_now=1000, done_days=1, quarantine_days=1, free_bytes=1 << 60)
    assert sorted(report.kept) == ["P/L/never.tif", "P/L/odd.tif", "P/L/other.tif"]
    assert (frames_in(station.done), frames_in(station.quarantine)) == (["never", "other"], ["odd"])


@pytest.mark.parametrize("number", ["", ".2"])
def test_a_frame_put_away_with_its_hash_is_known(number: str, station: Station, log: VerdictLog) -> None:
    put(station, log, "a")
    sha256 = hashlib.sha256((station.done / "P/L/a.tif").read_bytes()).hexdigest()
    (station.done / "P/L/a.tif").rename(station.done / f"P/L/a.{sha256[:8]}{number}.tif")
    assert keep(station, log, days_from_now=9, done_days=1).frames == 1


@pytest.mark.parametrize("labeled", [0, 1])
def test_of_two_frames_of_one_name_and_size_the_labeled_one_stays(
    labeled: int, station: Station, log: VerdictLog
) -> None:
    ids, paths = [], []
    for n in range(2):
        ids.append(put(station, log, "a", size=1000 + n))
        paths.append(station.done / "P" / "L" / f"v{n}.tif")
        (station.done / "P/L/a.tif").rename(paths[n])
    # Both lie where frames of that name are put: one under its name, the other with its hash.
    sha256 = hashlib.sha256(paths[1].read_bytes()).hexdigest()
    paths[0].rename(station.done / "P" / "L" / "a.tif")
    paths[1].rename(station.done / "P" / "L" / f"a.{sha256[:8]}.tif")
    log.add_labels([(ids[labeled], Label(class_name="Spot", who="jo", at=now_utc()))])
    assert keep(station, log, days_from_now=9, done_days=1).frames == 1
    [left] = station.done.rglob("*.tif")
    assert left.stat().st_size == 1000 + labeled


def test_a_file_that_never_could_be_read_goes_from_quarantine_by_its_name(station: Station, log: VerdictLog) -> None:
    log.record(frame(size=0), row_of("P/L/closed.tif", UNREAD))
    for folder in (station.quarantine, station.done):
        (folder / "P" / "L").mkdir(parents=True)
        (folder / "P" / "L" / "closed.tif").write_bytes(b"what nobody saw")
    report = keep(station, log, days_from_now=9, done_days=1, quarantine_days=1)
    assert (report.frames, report.kept) == (1, ["P/L/closed.tif"])
    assert frames_in(station.done) == ["closed"]


def test_the_oldest_frames_go_until_few_enough_bytes_are_left(
    station: Station, log: VerdictLog, tmp_path: Path
) -> None:
    clock = tmp_path / "clock"

    def later_than(path: Path) -> bool:
        clock.touch()
        return clock.stat().st_ctime_ns > path.stat().st_ctime_ns

    for name in "abcde":
        put(station, log, name)
        newest = station.done / "P" / "L" / f"{name}.tif"
        wait_until(partial(later_than, newest), "the file system's clock goes on")
    labeled = log.frames("name = ?", ("b.tif",))[0]["id"]
    log.add_labels([(labeled, Label(class_name="Spot", who="jo", at=now_utc()))])
    report = keep(station, log, done_bytes=2500)
    assert report.frames == 3
    assert frames_in(station.done) == ["b", "e"]


def test_what_a_person_labeled_stays(station: Station, log: VerdictLog) -> None:
    labeled, other = put(station, log, "labeled"), put(station, log, "other")
    log.add_labels([(labeled, Label(class_name="Spot", who="jo", at=now_utc()))])
    report = keep(station, log, days_from_now=99, done_days=1, images_days=1, outbox_days=1, verdicts_days=1)
    assert (report.frames, report.pictures, report.verdicts) == (1, 1, 1)
    assert frames_in(station.done) == ["labeled"]
    assert kept_pictures(station) == [labeled]
    assert [row["frame_id"] for row in log.verdicts()] == [labeled]
    assert log.frames("id = ?", (other,)) == []


def test_pictures_go_by_bytes_and_their_room_is_given_back(station: Station, log: VerdictLog) -> None:
    rng = np.random.default_rng(0)
    with closing(ImageStore(station.images)) as store:
        for number in range(1, 1201):
            store._connection.execute(
                "INSERT INTO images (frame_id, image) VALUES (?, ?)",
                (number, rng.integers(0, 256, 4000, np.uint8).tobytes()),
            )
        before = store.size()
    report = keep(station, log, images_bytes=before // 2)
    assert report.pictures == 1000
    assert kept_pictures(station) == list(range(1001, 1201))
    assert station.images.stat().st_size < before // 2


def judged_again(station: Station, log: VerdictLog) -> int:
    """Another bundle's verdicts on all frames of the log, with pictures; how many."""
    station.again.root.mkdir(exist_ok=True)
    rows = log.verdicts()
    with closing(AgainLog(station, log)) as again, closing(ImageStore(station.again.images)) as store:
        for row in rows:
            told = again.record(frame(size=1000), row_of(row["path"], row["sha256"]) | {"bundle": "other@1"})
            assert told["frame_id"] == row["frame_id"]
            store.add(told["frame_id"], replace(measured(), image=np.zeros((224, 224), np.uint8)), seq=told["seq"])
    return len(rows)


def test_what_was_judged_again_goes_with_what_the_line_said(station: Station, log: VerdictLog) -> None:
    labeled, other = put(station, log, "d1"), put(station, log, "d2")
    log.add_labels([(labeled, Label(class_name="OK", who="jo", at=now_utc()))])
    judged_again(station, log)
    report = keep(station, log, days_from_now=2, images_days=1, outbox_days=9)
    assert (report.pictures, report.verdicts_again) == (2, 0)  # on the line and again
    with closing(AgainLog(station)) as again, closing(ImageStore(station.again.images, readonly=True)) as store:
        assert (store.frames(), len(again.verdicts())) == ({labeled}, 2)
        report = keep(station, log, days_from_now=2, verdicts_days=1, outbox_days=1)
        assert (report.verdicts, report.verdicts_again, report.troubles) == (1, 1, [])
        assert [row["frame_id"] for row in again.verdicts()] == [labeled]
    assert log.frames("id = ?", [other]) == []
    assert keep(station, log, days_from_now=3, verdicts_days=1, outbox_days=1).verdicts_again == 0


def test_what_was_judged_again_before_goes_too(station: Station, log: VerdictLog) -> None:
    """Retention of an earlier version wrote down a time before which verdicts in again/ might go."""
    put(station, log, "d1")
    judged_again(station, log)
    with closing(sqlite3.connect(station.again.database)) as old, old:
        old.execute("DROP TRIGGER horizons_stay")
        old.execute("UPDATE horizons SET before = '2020-01-01T00:00:00.000Z'")
    report = keep(station, log, days_from_now=2, verdicts_days=1, outbox_days=1)
    assert (report.verdicts, report.verdicts_again, report.troubles) == (1, 1, [])


@pytest.mark.parametrize("damage", [b"", b"no database" * 100])
def test_a_damaged_log_in_again_hinders_nothing(station: Station, log: VerdictLog, damage: bytes) -> None:
    put(station, log, "d1")
    judged_again(station, log)
    for suffix in ("-wal", "-shm"):
        station.again.database.with_name(f"umbra.db{suffix}").unlink(missing_ok=True)
    station.again.database.write_bytes(damage)
    report = keep(station, log, days_from_now=2, images_days=1, done_bytes=1, verdicts_days=1, outbox_days=1)
    assert (report.pictures, report.frames, report.verdicts) == (2, 1, 1)
    assert len(report.troubles) == bool(damage)
    assert all("may be deleted with its folder" in trouble for trouble in report.troubles)


def test_a_log_in_again_that_cannot_be_written_hinders_nothing(
    station: Station, log: VerdictLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(station, log, "d1")
    judged_again(station, log)

    def another_users(path: Path) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr("appliance.log_file._alone", another_users)
    report = keep(station, log, days_from_now=2, done_bytes=1, outbox_days=9)
    assert report.frames == 1
    assert [t for t in report.troubles if "Permission denied" in t]


def test_pictures_in_again_go_without_its_log(station: Station, log: VerdictLog) -> None:
    put(station, log, "d1")
    judged_again(station, log)
    station.again.database.unlink()
    assert keep(station, log, days_from_now=2, images_days=1, outbox_days=9).pictures == 2


def test_pictures_of_an_earlier_store_are_given_back_too(station: Station, log: VerdictLog) -> None:
    with closing(sqlite3.connect(station.images)) as old:
        old.execute("CREATE TABLE images (frame_id INTEGER PRIMARY KEY, image BLOB, unseen BLOB)")
        old.executemany("INSERT INTO images VALUES (?, zeroblob(4000), NULL)", [(n,) for n in range(1, 601)])
        old.commit()
    before = station.images.stat().st_size
    keep(station, log, images_bytes=before // 2)
    assert station.images.stat().st_size < before // 2


def small_disk(monkeypatch: pytest.MonkeyPatch, station: Station) -> None:
    """As if the station had a disk of its own of a megabyte: what is free follows what lies there."""

    def free(self: Station) -> int:
        lies = [*self.root.glob("images.db*"), *self.done.rglob("*.tif")]
        return 1_000_000 - sum(path.stat().st_size for path in lies)

    monkeypatch.setattr(Station, "free_bytes", free)


def test_short_of_room_pictures_go_before_frames_and_verdicts_never(
    station: Station, log: VerdictLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in "abc":
        put(station, log, name, size=100_000)
    with closing(ImageStore(station.images)) as store:
        store._connection.execute("UPDATE images SET image = randomblob(100000)")
    small_disk(monkeypatch, station)
    first = keep(station, log, free_bytes=600_000)
    assert (first.pictures, first.frames, first.files, first.verdicts) == (3, 0, 0, 0)
    second = keep(station, log, free_bytes=700_000)
    assert (second.pictures, second.frames, second.files, second.verdicts) == (0, 1, 0, 0)
    last = keep(station, log, free_bytes=1 << 60)
    assert (last.frames, last.files, last.verdicts) == (2, 0, 0)
    assert len(outbox(station)) == 3
    assert log.last_seq() == 3


def test_damaged_pictures_do_not_keep_frames_on_a_full_disk(station: Station, log: VerdictLog) -> None:
    put(station, log, "a")
    station.images.write_bytes(b"no database" * 1000)
    report = keep(station, log, days_from_now=9, images_days=1, done_days=1)
    assert report.frames == 1
    assert "images.db" in report.troubles[0]


def test_pictures_are_forgotten_beside_a_screener_that_adds_some(station: Station, log: VerdictLog) -> None:
    with closing(ImageStore(station.images)) as store, closing(ImageStore(station.images)) as other:
        for number in range(1, 1500):
            store._connection.execute("INSERT INTO images (frame_id, image) VALUES (?, zeroblob(100))", (number,))
        stop = threading.Event()

        def screen() -> None:
            number = 2000
            while not stop.is_set():
                other._connection.execute("INSERT INTO images (frame_id, image) VALUES (?, zeroblob(100))", (number,))
                number += 1

        screener = threading.Thread(target=screen)
        screener.start()
        try:
            assert store.forget(kept=(), up_to=1499, count=1200) == 1200
        finally:
            stop.set()
            screener.join()


def test_the_log_refuses_to_delete_what_no_horizon_covers(station: Station, log: VerdictLog) -> None:
    put(station, log, "a")
    for statement in ("DELETE FROM verdicts", "DELETE FROM frames"):
        with pytest.raises(sqlite3.IntegrityError, match="append-only"):
            log.database.conn.execute(statement)
    assert log.forget("2000-01-01T00:00:00.000Z", chunk=10) == 0
    with pytest.raises(sqlite3.IntegrityError, match="append-only"):
        log.database.conn.execute("DELETE FROM verdicts")


def test_a_proposal_whose_classes_were_renamed_elsewhere_goes_and_names_of_a_label_stay(
    station: Station, log: VerdictLog
) -> None:
    earlier = Earlier(("ring",), (Renaming("ring", "halo", "jo", now_utc()),))
    said = Label(boxes=((1, 2, 3, 4),), box_classes=("halo",), who="jo", at=now_utc(), earlier=earlier)
    proposed, labeled = put(station, log, "d1"), put(station, log, "d2")
    log.add_labels([(proposed, replace(said, origin=Origin.PROPOSAL)), (labeled, said)])
    with pytest.raises(sqlite3.IntegrityError, match="append-only"):
        log.database.conn.execute("DELETE FROM label_names")
    assert keep(station, log, days_from_now=9, outbox_days=1, verdicts_days=2).verdicts == 1
    assert [replace(label, id=None) for label in log.labels()[labeled]] == [said]
    assert log.database.conn.execute("SELECT COUNT(*) FROM label_names").fetchone()[0] == 1


def test_numbers_of_forgotten_verdicts_are_not_given_again(station: Station, log: VerdictLog) -> None:
    put(station, log, "a")
    assert keep(station, log, days_from_now=9, outbox_days=1, verdicts_days=2).verdicts == 1
    assert log.record(frame(), row_of("P/L/b.tif", "b" * 64))["seq"] == 2


def test_verdicts_wait_for_the_host_that_has_taken_least(station: Station, log: VerdictLog) -> None:
    for name in "abcd":
        put(station, log, name)
    hosts = LineSettings(mqtt=MqttSettings(host="broker"), stdf=LotSettings(), opcua=OpcUaSettings())
    log.set_cursor(key_of("mqtt"), 4)
    log.set_cursor(key_of("stdf"), 2)  # OPC UA has none: nobody has ever told it
    log.set_cursor(key_of("secs_gem"), 1)  # no longer in umbra.toml
    report = keep(station, log, days_from_now=9, outbox_days=1, verdicts_days=2, line=hosts)
    assert (report.verdicts, [row["seq"] for row in log.verdicts()]) == (2, [3, 4])
    assert report.troubles == ["verdicts after number 2 stay: the host by stdf has not taken them"]
    log.set_cursor(key_of("stdf"), 4)
    report = keep(station, log, days_from_now=9, outbox_days=1, verdicts_days=2, line=hosts)
    assert (report.verdicts, report.troubles, log.verdicts()) == (2, [], [])


def test_verdicts_do_not_go_before_their_files() -> None:
    with pytest.raises(ValueError, match="wants outbox_days"):
        RetentionSettings(verdicts_days=5)
    with pytest.raises(ValueError, match="wants outbox_days"):
        RetentionSettings(verdicts_days=5, outbox_days=6)


def test_retention_beside_a_running_screener(station: Station) -> None:
    with (station.root / "umbra.toml").open("a") as settings:
        settings.write("[retention]\ndone_bytes = 1\nimages_bytes = 1\n")
    running = Daemon(station, api=False)
    for seed in range(4):
        drop(station, f"f{seed}", seed=seed)
    wait_until(lambda: len(frames_in(station.done)) == 4, "all are put away")
    told = json.loads(umbra("retain", "--station", station.root, "--json").stdout)
    assert (told["frames"], told["verdicts"], told["kept"]) == (4, 0, [])
    drop(station, "after", seed=9)
    wait_until(lambda: "P/L/after.json" in outbox(station), "screening goes on")
    assert running.stop() == 0
