"""Every schema that was ever stored becomes today's, with all that it held; what is damaged is refused with what to do."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from appliance.decide import decide
from appliance.errors import RefusedError
from appliance.migrations import MIGRATIONS
from appliance.verdict_log import VerdictLog
from tests.appliance.test_decide import frame
from tests.appliance.test_verdict_log import row_of

SCHEMAS = Path(__file__).parent / "schemas"
OLDER = range(1, len(MIGRATIONS))


def stored(version: int, path: Path) -> Path:
    with closing(sqlite3.connect(path)) as old:
        old.executescript((SCHEMAS / f"{version}.sql").read_text())
        assert old.execute("PRAGMA user_version").fetchone()[0] == version
    return path


def everything(path: Path) -> dict[str, list[str]]:
    """The statements that would make the file anew, by their first three words."""
    with closing(sqlite3.connect(path)) as found:
        rows = found.execute("SELECT type, name, sql FROM sqlite_master WHERE name NOT LIKE 'sqlite_%' ORDER BY name")
        return {f"{kind} {name}": " ".join(sql.split()).replace('"', "").split(" ") for kind, name, sql in rows if sql}


def test_each_older_schema_has_a_stored_example() -> None:
    assert [int(p.stem) for p in sorted(SCHEMAS.glob("*.sql"))] == list(OLDER)


@pytest.mark.parametrize("version", OLDER)
def test_an_older_log_is_brought_up_to_date_and_keeps_everything(version: int, tmp_path: Path) -> None:
    path = stored(version, tmp_path / "umbra.db")
    with pytest.raises(RefusedError, match=f"schema {version}, .*`umbra run` brings it up to date"):
        VerdictLog(path, readonly=True)
    with closing(VerdictLog(path)) as log:
        first, second = log.verdicts()
        assert (first["path"], first["verdict"], first["score"], first["die_x"]) == ("P/L/a.tif", "PASS", 0.0015, 2)
        assert len(first["histogram"]) == 1024
        assert (second["verdict"], second["score"], second["origin"]) == ("RETEST", None, "screen")
        labels = log.labels(1)[1]
        assert (labels[0].class_name, labels[0].level, labels[0].who) == ("Spot", 4.5, "jo")
        assert labels[0].boxes == ((10, 20, 30, 40),)
        if version >= 2:
            assert labels[1].box_classes == ("line",)
        assert log.spec_for("P", 0.5) == 0.3
        assert log.active_bundle() == "starter"
        assert log.cursor("outbox") == 2
        assert log.newest_event("screener.started") is not None
        assert log.record(frame(), row_of("P/L/c.tif", "c" * 64))["seq"] == 3
        log.check()


@pytest.mark.parametrize("version", OLDER)
def test_a_migrated_log_has_the_schema_of_a_new_one(version: int, tmp_path: Path) -> None:
    VerdictLog(tmp_path / "new.db").close()
    path = stored(version, tmp_path / "umbra.db")
    VerdictLog(path).close()
    assert everything(path) == everything(tmp_path / "new.db")


def test_a_damaged_log_is_refused_with_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "umbra.db"
    with closing(VerdictLog(path)) as log:
        for number in range(300):
            log.record(frame(), row_of(f"P/L/{number}.tif", f"{number:064d}"))
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2)
        file.write(b"\xff" * 8192)
    with closing(VerdictLog(path)) as log, pytest.raises(RefusedError, match=r"umbra restore BACKUP` sets it aside"):
        log.check(seconds=10)


def test_what_is_no_database_is_refused_with_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "umbra.db"
    path.write_bytes(b"no database at all" * 1000)
    with pytest.raises(RefusedError, match=r"not a database.*umbra restore BACKUP"):
        VerdictLog(path)


def test_looking_for_damage_ends_in_time(tmp_path: Path) -> None:
    with closing(VerdictLog(tmp_path / "umbra.db")) as log:
        for number in range(300):
            log.record(frame(), row_of(f"P/L/{number}.tif", f"{number:064d}"))
        log.check(seconds=0)
        decision = decide(frame("x"), None, spec=0.3, capture_failed="retest")
        assert decision.verdict == "RETEST"
        assert log.record(frame(), row_of("P/L/x.tif", "f" * 64))["seq"] == 301
