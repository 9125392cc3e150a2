"""again/: what other bundles say of archived frames, beside the line's log. It may be deleted at any time."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from typing import Any

from appliance import log as events
from appliance.errors import ApplianceError, FrameVanishedError
from appliance.frame import Frame
from appliance.station import Station, StationLock
from appliance.verdict import Row, now_utc
from appliance.verdict_log import VerdictLog

CHUNK = 1000  # frames or verdicts looked at together
_EVERYTHING = "9999"  # the horizon of this log: nothing in it has to stay
_FOLLOWED = "line.horizon"
_log = events.get()


class AgainLog(VerdictLog):
    """Verdicts on frames of the line's log, by their numbers there; a log that need not keep anything.

    Args:
        place: the station.
        line: its log, for writing; None: to be read only.
    """

    mending = "it may be deleted with its folder; `umbra rescreen` makes it anew"
    upgrading = "`umbra rescreen` brings it up to date"

    def __init__(self, place: Station, line: VerdictLog | None = None) -> None:
        super().__init__(place.again.database, readonly=line is None)
        self._line = line
        if (
            line is not None
            and self.select("SELECT COALESCE(MAX(before), '') AS at FROM horizons")[0]["at"] < _EVERYTHING
        ):
            self._set_horizon(_EVERYTHING)  # retention of an earlier version wrote others

    def _frame_id(self, db: sqlite3.Connection, frame: Frame, row: Mapping[str, Any]) -> int:
        """Number of a frame on the line, whose row is taken over; what has its number or its name without being it goes.

        Raises:
            FrameVanishedError: the line's log has forgotten it.
        """
        assert self._line is not None, "opened to be read"  # noqa: S101  (SQLite would refuse the rest)
        found = self._line.select("SELECT * FROM frames WHERE path = ? AND sha256 = ?", (row["path"], row["sha256"]))
        if not found:
            raise FrameVanishedError(f"{frame.identity.path}: the log has forgotten it")
        own = found[0]
        others = db.execute(
            "SELECT id FROM frames WHERE (id = :id OR (path = :path AND sha256 = :sha256)) "
            "AND NOT (id = :id AND path = :path AND sha256 = :sha256)",
            own,
        ).fetchall()
        if _let_go(db, [int(other["id"]) for other in others]):  # whoever counted them counts again
            db.execute("INSERT INTO horizons (before, at) VALUES (?, ?)", (_EVERYTHING, now_utc()))
        names, marks = ", ".join(own), ", ".join("?" * len(own))
        db.execute(f"INSERT OR IGNORE INTO frames ({names}) VALUES ({marks})", list(own.values()))  # noqa: S608
        return int(own["id"])

    def follow(self, line: VerdictLog) -> int:
        """Let go of the frames that the line's log has forgotten; how many verdicts on them went."""
        horizon, gone, last = line.horizon(), 0, 0
        if self.cursor(_FOLLOWED) == horizon:
            return gone
        while rows := self.select(
            "SELECT id, path, sha256 FROM frames WHERE id > ? ORDER BY id LIMIT ?", (last, CHUNK)
        ):
            sql = "SELECT id, path, sha256 FROM frames WHERE id IN (SELECT value FROM json_each(?))"
            there = line.select(sql, (json.dumps([row["id"] for row in rows]),))
            last = rows[-1]["id"]
            known = {tuple(row.values()) for row in there}
            with self.transaction() as db:
                gone += _let_go(db, [row["id"] for row in rows if tuple(row.values()) not in known])
        if gone:
            self._set_horizon(_EVERYTHING)  # whoever counted meanwhile counts again
        self.set_cursor(_FOLLOWED, horizon)
        return gone


def _let_go(db: sqlite3.Connection, frames: list[int]) -> int:
    """Delete frames and their verdicts; how many of these."""
    numbers = [(frame_id,) for frame_id in frames]
    gone = db.executemany("DELETE FROM verdicts WHERE frame_id = ?", numbers).rowcount if numbers else 0
    db.executemany("DELETE FROM frames WHERE id = ?", numbers)
    return max(0, gone)


@contextmanager
def alone(place: Station) -> Iterator[None]:
    """One process judges again at a time.

    Raises:
        StationBusyError: another one does.
    """
    lock = StationLock(place, ".again.lock", "another `umbra rescreen` judges archived frames")
    try:
        yield
    finally:
        lock.release()


@contextmanager
def opened_again(place: Station) -> Iterator[AgainLog | None]:
    """What was judged again, to be read; None where nothing was. What cannot be read is told, and nothing as well."""
    if not place.again.database.exists():
        yield None
        return
    try:
        found = AgainLog(place)
    except ApplianceError as error:
        unreadable(error)
        yield None
        return
    with closing(found):
        yield found


def unreadable(error: ApplianceError) -> None:
    """Tell that something in again/ cannot be read, and that it is passed over."""
    _log.warning(events.AGAIN_UNREADABLE, reason=str(error))


@dataclass(slots=True)
class Changes:
    """What a bundle says of archived frames, beside what the line says of them.

    Attributes:
        became: how many frames of a verdict on the line have which one.
    """

    became: Counter[tuple[str, str]] = field(default_factory=Counter)

    def of(
        self, again: VerdictLog, line: VerdictLog, bundle: str, *, product: str | None = None, lot: str | None = None
    ) -> Iterator[Row]:
        """The verdicts that differ, in the order in which they were given; all are counted once they were gone through."""
        where = "v.bundle = ? AND v.seq > ? AND (? IS NULL OR f.product = ?) AND (? IS NULL OR f.lot = ?)"
        last = 0
        while rows := again.verdicts(where, [bundle, last, product, product, lot, lot], limit=CHUNK):
            before = line.newest_verdicts([row["frame_id"] for row in rows])
            for row in rows:
                was = before.get(row["frame_id"], "nothing")
                self.became[was, row["verdict"]] += 1
                if was != row["verdict"]:
                    yield row
            last = rows[-1]["seq"]

    def __str__(self) -> str:
        found = [f"{n} {was} became {now}" for (was, now), n in sorted(self.became.items()) if was != now]
        return ", ".join(found) or "all as before"
