"""The durable log of frames, verdicts, labels, specs, bundles and events: what is written to umbra.db and read from it."""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from appliance.frame import Frame
from appliance.label_log import LabelLog
from appliance.reading import UNREAD
from appliance.station_log import StationLog
from appliance.verdict import Row, now_utc

LARGEST_SEQ = 2**63 - 1
LOOKED_THROUGH = 200  # verdicts, before an index is asked
_ROW = "SELECT v.*, f.path, f.sha256, f.name, f.product, f.lot, f.wafer, f.die_x, f.die_y, f.width, f.height"
_VERDICT_ROW = f"{_ROW} FROM verdicts v JOIN frames f ON f.id = v.frame_id"
_ONE_BY_ONE = (
    "FROM verdicts v NOT INDEXED CROSS JOIN frames f ON f.id = v.frame_id"  # in this order, whatever SQLite thinks
)
_WITHOUT = (
    "width IS NOT NULL AND (? IS NULL OR product = ?) AND (? IS NULL OR lot = ?) "
    "AND NOT EXISTS (SELECT 1 FROM verdicts v WHERE v.frame_id = f.id AND v.bundle = ?)"
)
_FRAME_COLUMNS = ("path", "sha256", "name", "product", "lot", "wafer", "die_x", "die_y")


class VerdictLog(LabelLog, StationLog):
    """The log, open for writing (the screener; labels and specs from the API) or for reading only; as LogFile."""

    # --- frames and verdicts -------------------------------------------------------------------------------------

    def find_verdict(self, path: str, sha256: str, bundle: str) -> Row | None:
        """The verdict that a bundle has already given on these bytes at this path."""
        rows = self.select(f"{_VERDICT_ROW} WHERE f.path = ? AND f.sha256 = ? AND v.bundle = ?", (path, sha256, bundle))
        return rows[0] if rows else None

    def record(self, frame: Frame, row: Mapping[str, Any], *, origin: str = "inbox") -> Row:
        """Commit a frame and its verdict, durably, before anything is published.

        Args:
            frame: who it is and how large.
            row: of verdict_row.
            origin: "inbox" (published in the outbox) or "screen" (asked for by hand, only logged).

        Returns:
            The row as stored, with seq and frame_id; where this bundle has judged these bytes here before, that row.

        Raises:
            OutOfServiceError: the disk does not take it.
        """
        with self.transaction() as db:
            frame_id = self._frame_id(db, frame, row)
            if given := self.find_verdict(row["path"], row["sha256"], row["bundle"]):
                return given  # another process was quicker: one verdict, whoever asks
            columns = {k: v for k, v in row.items() if k not in _FRAME_COLUMNS} | {
                "frame_id": frame_id,
                "origin": origin,
            }
            names = ", ".join(columns)
            marks = ", ".join("?" * len(columns))
            seq = db.execute(f"INSERT INTO verdicts ({names}) VALUES ({marks})", list(columns.values())).lastrowid  # noqa: S608
        return dict(row) | {"seq": seq, "frame_id": frame_id, "origin": origin}

    def _frame_id(self, db: sqlite3.Connection, frame: Frame, row: Mapping[str, Any]) -> int:
        known = db.execute(
            "SELECT id FROM frames WHERE path = ? AND sha256 = ?", (row["path"], row["sha256"])
        ).fetchone()
        if known:
            return int(known["id"])
        raw = frame.raw
        values = [*(row[c] for c in _FRAME_COLUMNS), frame.file_bytes, raw.width if raw else None,
                  raw.height if raw else None, raw.bits if raw else None, row["decided_at"]]  # fmt: skip
        names = ", ".join((*_FRAME_COLUMNS, "file_bytes", "width", "height", "bits", "first_seen_at"))
        marks = ", ".join("?" * len(values))
        return int(db.execute(f"INSERT INTO frames ({names}) VALUES ({marks})", values).lastrowid or 0)  # noqa: S608

    def verdict(self, seq: int) -> Row | None:
        """One verdict by its number."""
        rows = self.select(f"{_VERDICT_ROW} WHERE v.seq = ?", (seq,))
        return rows[0] if rows else None

    def newest_verdicts(self, frames: Sequence[int]) -> dict[int, str]:
        """What frames, by their numbers, were judged last: PASS, FAIL or RETEST; those that were forgotten are not in it."""
        sql = "SELECT frame_id, verdict FROM verdicts WHERE frame_id IN (SELECT value FROM json_each(?)) ORDER BY seq"
        return {row["frame_id"]: row["verdict"] for row in self.select(sql, (json.dumps(list(frames)),))}

    def verdicts(
        self, where: str = "1", values: Sequence[Any] = (), *, limit: int = 1000, newest: bool = False
    ) -> list[Row]:
        """Verdicts that satisfy an SQL condition over v (verdicts) and f (frames), in order of seq."""
        order = "DESC" if newest else "ASC"
        return self.select(f"{_VERDICT_ROW} WHERE {where} ORDER BY v.seq {order} LIMIT ?", (*values, limit))

    def span(self, where: str, values: Sequence[Any], *, first: int, last: int) -> list[Row]:
        """Verdicts of these numbers that satisfy a condition, as `verdicts` finds them, looked at one by one."""
        sql = f"{_ROW} {_ONE_BY_ONE} WHERE {where} AND v.seq BETWEEN ? AND ? ORDER BY v.seq"
        return self.select(sql, (*values, first, last))

    def numbers(
        self, where: str = "1", values: Sequence[Any] = (), *, after: int = 0, before: int | None = None, limit: int,
        newest: bool = False, ranged: bool = False,
    ) -> list[int]:  # fmt: skip
        """Numbers of verdicts that satisfy a condition, as `verdicts` takes it.

        The nearest LOOKED_THROUGH are looked at one by one, which finds what is frequent; the rest is left to the
        indices, which find what is rare.

        Args:
            where: the condition.
            values: of its marks.
            after: numbers above this.
            before: numbers below this.
            limit: so many at most.
            newest: the largest numbers first, else the smallest.
            ranged: the condition holds of a range of scores or times. Its index gives no order, wherefore SQLite would
                rather look at every verdict.
        """
        first, last = after + 1, LARGEST_SEQ if before is None else before - 1
        edge = self._number(
            f"SELECT COALESCE({'MAX' if newest else 'MIN'}(seq), 0) FROM verdicts WHERE seq > ? AND seq <= ?",  # noqa: S608
            (after, last),
        )
        if not edge:
            return []
        if newest:
            near = max(first, edge - LOOKED_THROUGH + 1), edge
            far = first, near[0] - 1
        else:
            near = edge, min(last, edge + LOOKED_THROUGH - 1)
            far = near[1] + 1, last
        order = "DESC" if newest else "ASC"
        one_by_one = (
            f"SELECT v.seq {_ONE_BY_ONE} WHERE {where} AND v.seq BETWEEN ? AND ? ORDER BY v.seq {order} LIMIT ?"
        )
        seq = "+v.seq" if ranged else "v.seq"
        indexed = f"""SELECT v.seq FROM verdicts v LEFT JOIN frames f ON f.id = v.frame_id
            WHERE {where} AND {seq} BETWEEN ? AND ? ORDER BY {seq} {order} LIMIT ?"""  # noqa: S608  (values are marks)
        found = self.select(one_by_one, (*values, *near, limit))
        if len(found) < limit:
            found += self.select(indexed, (*values, *far, limit - len(found)))
        return [row["seq"] for row in found]

    def frames(self, where: str, values: Sequence[Any]) -> list[Row]:
        """Frames that satisfy an SQL condition on the table frames, newest first."""
        return self.select(f"SELECT * FROM frames WHERE {where} ORDER BY id DESC", values)  # noqa: S608  (from code)

    def last_seq(self) -> int:
        """Number of the newest verdict; 0 where there is none."""
        return self._number("SELECT COALESCE(MAX(seq), 0) FROM verdicts")

    def measured(self) -> int:
        """How many frames have a verdict that measured them."""
        sql = "SELECT COUNT(DISTINCT frame_id) FROM verdicts WHERE score IS NOT NULL"
        return self._number(sql)

    def newest_measured(self, *, bundle: str | None = None, origin: str | None = None) -> Row | None:
        """The newest verdict that measured an unseen map, of a bundle and an origin where they are given."""
        asked = {"bundle": bundle, "origin": origin}
        only = {name: value for name, value in asked.items() if value is not None}
        where = " AND ".join(("v.histogram IS NOT NULL", *(f"v.{name} = ?" for name in only)))
        rows = self.verdicts(where, list(only.values()), limit=1, newest=True)
        return rows[0] if rows else None

    def measured_by(self, bundle: str, *, or_not: bool = False) -> NDArray[np.int64]:
        """Numbers of the frames of which a bundle (`or_not`: any other one) measured an unseen map, each once, in order."""
        which = "bundle <> ?" if or_not else "bundle = ?"
        sql = f"SELECT json_group_array(frame_id) AS found FROM verdicts WHERE histogram IS NOT NULL AND {which}"  # noqa: S608
        return np.unique(np.array(json.loads(self.select(sql, (bundle,))[0]["found"]), np.int64))

    def measured_numbers(self, bundle: str) -> NDArray[np.int64]:
        """Numbers of the verdicts of a bundle that measured an unseen map."""
        sql = "SELECT json_group_array(seq) AS found FROM verdicts WHERE histogram IS NOT NULL AND bundle = ?"
        return np.array(json.loads(self.select(sql, (bundle,))[0]["found"]), np.int64)

    def frames_without(
        self, bundle: str, *, after: int, limit: int, product: str | None = None, lot: str | None = None
    ) -> list[Row]:
        """Frames with larger numbers that could be read and that a bundle has not judged, oldest first."""
        sql = f"SELECT * FROM frames f WHERE id > ? AND {_WITHOUT} ORDER BY id LIMIT ?"  # noqa: S608  (constants)
        return self.select(sql, (after, product, product, lot, lot, bundle, limit))

    def has_frames(self, *, product: str | None = None, lot: str | None = None) -> bool:
        """Whether there is any frame, of this product and lot where they are given."""
        sql = "SELECT 1 FROM frames WHERE (? IS NULL OR product = ?) AND (? IS NULL OR lot = ?) LIMIT 1"
        return bool(self.select(sql, (product, product, lot, lot)))

    def frames_of(self, bundle: str, *, first: int, last: int) -> set[int]:
        """Numbers, in a range, of the frames that a bundle has judged."""
        sql = "SELECT frame_id FROM verdicts WHERE bundle = ? AND frame_id BETWEEN ? AND ?"
        return {row["frame_id"] for row in self.select(sql, (bundle, first, last))}

    def count_frames_of(self, bundle: str, *, product: str | None = None, lot: str | None = None) -> int:
        """How many there are of them, of a product and a lot."""
        sql = ("SELECT COUNT(*) FROM verdicts v JOIN frames f ON f.id = v.frame_id WHERE v.bundle = ? "
               "AND (? IS NULL OR f.product = ?) AND (? IS NULL OR f.lot = ?)")  # fmt: skip
        return self._number(sql, (bundle, product, product, lot, lot))

    def count_frames_without(self, bundle: str, *, product: str | None = None, lot: str | None = None) -> int:
        """How many there are of them."""
        sql = f"SELECT COUNT(*) FROM frames f WHERE {_WITHOUT}"  # noqa: S608  (constants)
        return self._number(sql, (product, product, lot, lot, bundle))

    def counts(self, *, after: int = 0, up_to: int = LARGEST_SEQ) -> dict[str, int]:
        """How many of each verdict, of those numbered above `after` and up to `up_to`."""
        sql = "SELECT verdict, COUNT(*) AS count FROM verdicts WHERE seq > ? AND seq <= ? GROUP BY verdict"
        rows = self.select(sql, (after, up_to))
        return {"PASS": 0, "FAIL": 0, "RETEST": 0} | {row["verdict"]: row["count"] for row in rows}

    def count_after(self, seq: int, *, most: int) -> int:
        """How many verdicts on frames of the inbox have larger numbers; no more than `most` are counted."""
        sql = "SELECT COUNT(*) FROM (SELECT 1 FROM verdicts WHERE seq > ? AND origin = 'inbox' LIMIT ?)"
        return self._number(sql, (seq, most))

    def horizon(self) -> int:
        """Number of the newest time before which verdicts were forgotten; 0 where none ever was."""
        return self._number("SELECT COALESCE(MAX(id), 0) FROM horizons")

    def _number(self, sql: str, values: Sequence[Any] = ()) -> int:
        [row] = self.select(sql, values)
        [number] = row.values()
        return int(number)

    # --- what is kept, and numbers ---------------------------------------------------------------------------------

    def frames_that_stay(self) -> set[int]:
        """Numbers of the frames that retention leaves alone: a person labeled them, or rates them."""
        rated = self.select("SELECT DISTINCT frame_id FROM rating_frames")
        return {*self.frames_people_labeled(), *(row["frame_id"] for row in rated)}

    def judged_frames(self, relative: str, size: int) -> list[Row]:
        """Frames with a verdict that a file may be, by its name and size: their id and sha256.

        Args:
            relative: path in done/ or quarantine/, its own or one with its hash (put_away.places_of).
            size: of the file, bytes.
        """
        folder, _, name = relative.rpartition("/")
        hashed = re.fullmatch(r".*\.([0-9a-f]{8})(\.\d+)?(\.[^.]*)?", name)
        sha8 = hashed[1] if hashed else "-"
        return self.select(
            "SELECT f.id, f.sha256 FROM frames f WHERE (f.path = ? OR (f.sha256 BETWEEN ? AND ? AND f.path GLOB ?)) "
            "AND (f.file_bytes = ? OR f.sha256 = ?) AND EXISTS (SELECT 1 FROM verdicts v WHERE v.frame_id = f.id)",
            (relative, sha8.ljust(64, "0"), sha8.ljust(64, "f"), _below(folder), size, UNREAD),
        )

    def newest_frame_before(self, at: str) -> int:
        """Largest number of a frame first seen before a time; 0 where there is none."""
        sql = "SELECT COALESCE(MAX(id), 0) FROM frames WHERE first_seen_at < ?"
        return self._number(sql, (at,))

    def is_due(self, before: str, *, after: int) -> bool:
        """Whether a verdict with a larger number was decided before a time."""
        return bool(self.select("SELECT 1 FROM verdicts WHERE decided_at < ? AND seq > ? LIMIT 1", (before, after)))

    def forget(self, before: str, *, chunk: int, up_to: int = LARGEST_SEQ) -> int:
        """Delete verdicts decided before a time, and frames that have no other; those that a person labeled or rates stay.

        Args:
            before: time as verdicts carry it; written down first, since the log refuses to delete anything younger.
            chunk: rows a transaction.
            up_to: largest number that may go.

        Returns:
            How many verdicts.
        """
        due = ("SELECT v.seq, v.frame_id FROM verdicts v JOIN frames f ON f.id = v.frame_id "
               "WHERE v.decided_at < ? AND f.first_seen_at < ? AND v.seq <= ? "
               "AND NOT EXISTS (SELECT 1 FROM labels l WHERE l.frame_id = v.frame_id AND "
               "(l.origin <> 'proposal' OR l.id IN (SELECT label_id FROM retractions))) "
               "AND NOT EXISTS (SELECT 1 FROM rating_frames r WHERE r.frame_id = v.frame_id) LIMIT ?")  # fmt: skip
        gone = 0
        if not self.select(due, (before, before, up_to, 1)):
            return gone
        self._set_horizon(before)
        while rows := self._forget_some(due, (before, before, up_to, chunk)):
            gone += rows
        self._set_horizon(before)  # whoever counted meanwhile counts again
        return gone

    def _forget_some(self, due: str, values: Sequence[Any]) -> int:
        """Delete the verdicts that a question finds, and their frames with what was proposed for them; how many."""
        with self.transaction() as db:  # the question, too: nobody labels a frame between it and the end of the frame
            rows = self.select(due, values)
            db.executemany("DELETE FROM verdicts WHERE seq = ?", [(row["seq"],) for row in rows])
            for table, frame in (("labels", "labels.frame_id"), ("frames", "frames.id")):
                db.executemany(
                    f"DELETE FROM {table} WHERE {frame} = ? AND NOT EXISTS (SELECT 1 FROM verdicts v WHERE v.frame_id = {frame})",  # noqa: S608
                    [(row["frame_id"],) for row in rows],
                )
        return len(rows)

    def _set_horizon(self, before: str) -> None:
        with self.transaction() as db:
            db.execute("INSERT INTO horizons (before, at) VALUES (?, ?)", (before, now_utc()))

    def skip_numbers(self, *, seq: int, frame_id: int) -> None:
        """Give later verdicts and frames numbers above these."""
        with self.transaction() as db:
            for table, number in (("verdicts", seq), ("frames", frame_id)):
                db.execute("INSERT INTO sqlite_sequence (name, seq) SELECT ?, 0 WHERE NOT EXISTS "
                           "(SELECT 1 FROM sqlite_sequence WHERE name = ?)", (table, table))  # fmt: skip
                db.execute("UPDATE sqlite_sequence SET seq = MAX(seq, ?) WHERE name = ?", (number, table))

    def next_seq(self) -> int:
        """Number of the next verdict."""
        return self._number("SELECT COALESCE(MAX(seq), 0) FROM sqlite_sequence WHERE name = 'verdicts'") + 1


def _below(folder: str) -> str:
    """GLOB of what lies in a folder."""
    escaped = re.sub(r"([*?\[])", r"[\1]", folder)
    return f"{escaped}/*" if folder else "*"
