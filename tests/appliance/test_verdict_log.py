"""The log keeps everything, once, and says so when it cannot."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from appliance import log_file
from appliance.decide import decide
from appliance.errors import OutOfServiceError, RefusedError
from appliance.labels import Label, Origin
from appliance.mounts import file_system_of
from appliance.verdict import Row, document, verdict_row
from appliance.verdict_log import LARGEST_SEQ, VerdictLog
from benchmarks.line.feeding import fill
from tests.appliance.test_decide import frame, measured


def row_of(
    path: str = "P/L/a.tif", sha256: str = "0" * 64, bundle: str = "b@1", *, unreadable: str | None = None
) -> Row:
    made = frame(unreadable)
    measurement = None if unreadable else measured()
    decision = decide(made, measurement, spec=0.3, capture_failed="retest")
    row = verdict_row(made, measurement, decision, bundle=(bundle, "e@1"), unseen=(0.5, 2.0),
                      ms={"decode": 1, "inspect": 2, "total": 3})  # fmt: skip
    product, lot, name = path.split("/")
    return row | {"path": path, "sha256": sha256, "product": product, "lot": lot, "name": name}


@pytest.fixture
def log(tmp_path: Path) -> VerdictLog:
    return VerdictLog(tmp_path / "umbra.db")


def test_a_verdict_is_found_again_by_path_bytes_and_bundle(log: VerdictLog) -> None:
    stored = log.record(frame(), row_of())
    assert log.find_verdict("P/L/a.tif", "0" * 64, "b@1")["seq"] == stored["seq"] == 1  # type: ignore[index]
    assert log.find_verdict("P/L/a.tif", "1" * 64, "b@1") is None
    assert log.find_verdict("P/L/a.tif", "0" * 64, "b@2") is None


def test_one_bundle_judges_the_same_bytes_once(log: VerdictLog) -> None:
    first = log.record(frame(), row_of())
    assert log.record(frame(), row_of())["seq"] == first["seq"]
    log.record(frame(), row_of(bundle="b@2"))
    assert log.counts() == {"PASS": 2, "FAIL": 0, "RETEST": 0}
    assert log.database["frames"].count == 1


def test_in_a_retest_what_was_not_measured_is_null(log: VerdictLog) -> None:
    log.record(frame("broken"), row_of(unreadable="broken"))
    stored = log.verdict(1)
    assert stored is not None
    made = document(stored)
    assert (made["verdict"], made["reason"]) == ("RETEST", "unreadable: broken")
    for field in ("p", "p_ng", "level", "score", "class", "unseen", "noise"):
        assert made[field] is None
    assert made["bin"] == {"hard": 3, "soft": None}


def test_the_database_itself_refuses_a_pass_without_a_score(log: VerdictLog) -> None:
    with pytest.raises(sqlite3.IntegrityError):
        log.record(frame(), row_of() | {"score": None})


@pytest.mark.parametrize("sql", ["DELETE FROM verdicts", "UPDATE verdicts SET verdict = 'PASS'", "DELETE FROM frames"])
def test_verdicts_cannot_be_changed(log: VerdictLog, sql: str) -> None:
    log.record(frame(), row_of())
    with pytest.raises(sqlite3.IntegrityError, match="append-only"):
        log.database.conn.execute(sql)


def test_commits_reach_the_disk(log: VerdictLog) -> None:
    assert log.database.conn.execute("PRAGMA journal_mode").fetchone()[0] == "wal"
    assert log.database.conn.execute("PRAGMA synchronous").fetchone()[0] == 2  # FULL


def test_the_newest_limit_of_a_product_is_in_force(log: VerdictLog) -> None:
    assert log.spec_for("P", 0.4) == 0.4
    log.set_spec(None, 0.5, who="jo")
    assert log.spec_for("P", 0.4) == 0.5
    log.set_spec("P", 0.2, who="jo", note="customer")
    log.set_spec("P", 0.3, who="jo")
    log.set_spec(None, 0.6, who="jo")
    assert (log.spec_for("P", 0.4), log.spec_for("Q", 0.4)) == (0.3, 0.6)


def test_a_cursor_is_remembered(log: VerdictLog, tmp_path: Path) -> None:
    assert log.cursor("outbox") == 0
    log.set_cursor("outbox", 7)
    log.close()
    assert VerdictLog(tmp_path / "umbra.db").cursor("outbox") == 7


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "umbra.db").write_bytes(b"this is no database, whatever its name says" * 100)
    with pytest.raises(RefusedError, match="not a database"):
        VerdictLog(tmp_path / "umbra.db")


def test_a_newer_schema_is_refused(log: VerdictLog, tmp_path: Path) -> None:
    log.database.conn.execute("PRAGMA user_version = 99")
    log.close()
    with pytest.raises(RefusedError, match="schema 99"):
        VerdictLog(tmp_path / "umbra.db")


def test_a_network_file_system_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_file, "file_system_of", lambda _path: "nfs4")
    with pytest.raises(RefusedError, match="nfs4"):
        VerdictLog(tmp_path / "umbra.db")


def test_the_file_system_is_named_as_the_kernel_does() -> None:
    assert file_system_of(Path("/proc/self")) == "proc"


def test_a_database_that_cannot_be_written_stops_the_service(log: VerdictLog) -> None:
    log.database.conn.execute("PRAGMA max_page_count = 1")  # SQLite answers as for a full disk
    with pytest.raises(OutOfServiceError, match="full"):
        for number in range(1000):
            log.record(frame(), row_of(sha256=f"{number:064d}"))
    assert log.database.conn.in_transaction is False


def test_reading_changes_nothing(log: VerdictLog, tmp_path: Path) -> None:
    log.record(frame(), row_of())
    reader = VerdictLog(tmp_path / "umbra.db", readonly=True)
    assert reader.last_seq() == 1
    with pytest.raises(OutOfServiceError, match="readonly"):
        reader.set_cursor("x", 1)


CONDITIONS: tuple[tuple[str, list[object], bool], ...] = (
    ("1", [], False), ("v.verdict = ?", ["RETEST"], False), ("v.verdict = ?", ["PASS"], False), ("v.class = ?", ["Spot"], False),
    ("f.product = ?", ["P3"], False), ("f.lot = ?", ["L7"], False), ("v.score >= ?", [0.99], True),
    ("v.decided_at < ?", ["2025"], True), ("v.verdict = ? AND v.class = ?", ["FAIL", "OK"], False),
    ("f.name = ?", ["77.tif"], False),
)  # fmt: skip


SPANS = (
    (0, None, 20),
    (0, None, 5000),
    (150, 2900, 300),
    (2990, None, 7),
    (400, 401, 1),
    (5000, None, 3),
    (LARGEST_SEQ, None, 1),
)


@pytest.fixture(scope="module")
def long_log(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VerdictLog]:
    with closing(VerdictLog(tmp_path_factory.mktemp("long") / "umbra.db")) as log:
        fill(log, 3000)
        yield log


@pytest.mark.parametrize(("where", "values", "ranged"), CONDITIONS)
@pytest.mark.parametrize("newest", [False, True])
def test_numbers_are_those_that_looking_at_each_verdict_finds(
    long_log: VerdictLog, where: str, values: list[object], ranged: bool, newest: bool
) -> None:
    for after, before, limit in SPANS:
        every = [
            row["seq"] for row in long_log.span(where, values, first=min(after, 5000) + 1, last=(before or 3001) - 1)
        ]
        expected = sorted(every, reverse=newest)[:limit]
        found = long_log.numbers(where, values, after=after, before=before, limit=limit, newest=newest, ranged=ranged)
        assert found == expected, (after, before, limit)


@pytest.mark.parametrize(("where", "values", "ranged"), CONDITIONS)
def test_a_question_takes_as_long_in_a_long_log(
    long_log: VerdictLog, where: str, values: list[object], ranged: bool
) -> None:
    """By the steps of SQLite's machine: looking at all 3000 verdicts takes 21,000 and more."""
    steps = 0

    def step() -> None:
        nonlocal steps
        steps += 100

    for newest in (False, True):
        steps = 0
        long_log.database.conn.set_progress_handler(step, 100)
        long_log.numbers(where, values, limit=20, newest=newest, ranged=ranged)
        long_log.database.conn.set_progress_handler(None, 0)
        assert steps <= 5000


def test_what_was_only_proposed_goes_with_its_frame(log: VerdictLog) -> None:
    for number in range(1, 5):
        log.record(frame(), row_of(f"P/L/{number}.tif", f"{number:064d}"))
    said = Label(class_name="OK", who="jo", at="2026-01-01T00:00:00.000Z")
    proposed = replace(said, origin=Origin.PROPOSAL, who="b@1")
    log.add_labels([(1, proposed), (2, proposed), (2, said), (3, said), (4, proposed)])
    log.retract_label(3, who="jo")  # of frame 2
    log.retract_label(5, who="jo")  # of frame 4: a person spoke of it
    with pytest.raises(sqlite3.IntegrityError, match="append-only"):
        log.database.conn.execute("DELETE FROM labels")
    assert log.forget("2999-01-01T00:00:00.000Z", chunk=2) == 1
    assert {row["frame_id"] for row in log.verdicts()} == {2, 3, 4}
    assert set(log.labels(taken_back=True)) == {2, 3, 4}
    assert log.add_labels([(2, replace(said, note="again"))])[0].id == 6  # numbers are not given twice
