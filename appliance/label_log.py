"""Labels in the log: appended, taken back and renamed, never changed."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from appliance.labels import Label, Origin, Retraction, by_frame, check_name, fields_of, in_order
from appliance.log_file import LogFile
from appliance.naming import Earlier, Renames, Renaming, follow
from appliance.verdict import Row, now_utc

_ROW = ("SELECT labels.*, retractions.who AS retracted_by, retractions.at AS retracted_at "
        "FROM labels LEFT JOIN retractions ON label_id = labels.id")  # fmt: skip
_ELSEWHERE = ("id", "retracted", "earlier")  # fields of a label that are no columns of its row
_OF_FRAME = "label_id IN (SELECT id FROM labels WHERE frame_id = ?)"
_HOLDS = "id NOT IN (SELECT label_id FROM retractions)"  # of a label


class Stored(NamedTuple):
    """A label in the log.

    Attributes:
        id: its number.
        new: whether it was not there before.
        taken_back: whether it was only now written down that it was taken back.
    """

    id: int
    new: bool
    taken_back: bool


class LabelLog(LogFile):
    """What people and proposals said of frames; as LogFile."""

    def labels(self, frame_id: int | None = None, *, taken_back: bool = False) -> dict[int, list[Label]]:
        """Labels by the number of their frame, oldest first, with the names that classes have now.

        Args:
            frame_id: of this frame only.
            taken_back: those too that were taken back.
        """
        rows = self._label_rows(frame_id)
        return by_frame((row for row in rows if taken_back or row["retracted"] is None), self._renames(frame_id))

    def _label_rows(self, frame_id: int | None = None) -> list[Row]:
        where, values = ("1", ()) if frame_id is None else ("frame_id = ?", (frame_id,))
        rows = self.select(f"{_ROW} WHERE {where} ORDER BY labels.id", values)
        return [row | {"retracted": _retraction(row)} for row in rows]

    def add_labels(self, new: Sequence[tuple[int, Label]], *, said_now: bool = False) -> list[Stored]:
        """Append labels of frames, all or none; earlier ones stay.

        What a frame has already is not stored again, whatever its classes are called now, and even where it was taken back.
        What a label says of its being taken back, or of its classes being renamed, is written down, too.

        Args:
            new: number of the frame, and its label, checked.
            said_now: they hold against all that was said of their frames before: none is written down as of a time before
                that, which a clock that was set back would else do.

        Raises:
            OutOfServiceError: the disk does not take them; none is stored.
        """
        with self.transaction() as db:
            frames = dict[int, _OfFrame]()
            stored = []
            for frame_id, label in new:
                if frame_id not in frames:
                    frames[frame_id] = _OfFrame.of(self.labels(frame_id, taken_back=True).get(frame_id, ()))
                of = frames[frame_id]
                if said_now:
                    given = replace(label, at=max(label.at, of.newest))
                    of.forget_what_was_taken_back(given)
                    stored.append(of.add(db, frame_id, given))
                else:
                    stored.append(of.add(db, frame_id, label))
            return stored

    def frames_people_labeled(self, *, after: int = 0) -> list[int]:
        """Numbers of the frames that a person has labeled, however often; proposals do not count.

        Args:
            after: only labels with larger numbers count.
        """
        sql = f"SELECT DISTINCT frame_id FROM labels WHERE origin = ? AND id > ? AND {_HOLDS}"  # noqa: S608  (constants)
        return [row["frame_id"] for row in self.select(sql, (Origin.PERSON.value, after))]

    def state_of_labels(self) -> tuple[int, int, int]:
        """Largest number of a label, of one taken back, and of a renaming: while these stay, labels say the same."""
        [row] = self.select("""
            SELECT (SELECT COALESCE(MAX(id), 0) FROM labels) AS labels,
                (SELECT COALESCE(MAX(id), 0) FROM retractions) AS retractions,
                (SELECT COALESCE(MAX(id), 0) FROM class_names) + (SELECT COALESCE(MAX(id), 0) FROM label_names) AS renames
        """)
        return row["labels"], row["retractions"], row["renames"]

    def newest_label(self, *, by: str) -> int:
        """Number of the newest label that was said by a time; 0 where there is none."""
        rows = self.select("SELECT COALESCE(MAX(id), 0) AS id FROM labels WHERE at <= ?", (by,))
        return int(rows[0]["id"])

    def retract_label(self, number: int, *, who: str) -> bool:
        """Take a label back: it stays in the log and says nothing any more. False where there is none, or it was taken back.

        Raises:
            LabelError: nobody can be called so.
        """
        with self.transaction() as db:
            sql = f"SELECT 1 FROM labels WHERE id = ? AND {_HOLDS}"  # noqa: S608  (constants)
            if not db.execute(sql, (number,)).fetchone():
                return False
            check_name(who)
            _take_back(db, number, Retraction(who, now_utc()))
            return True

    def add_rename(self, old: str, new: str, *, who: str) -> None:
        """Give a class of boxes another name in all labels so far; the log keeps what they said.

        Raises:
            LabelError: nobody can be called so.
        """
        check_name(who)
        with self.transaction() as db:
            db.execute(
                "INSERT INTO class_names (old, new, last_label, who, at) "
                "VALUES (?, ?, (SELECT COALESCE(MAX(id), 0) FROM labels), ?, ?)", (old, new, who, now_utc()),
            )  # fmt: skip

    def _renames(self, frame_id: int | None) -> Renames:
        """All renamings that hold for labels, of one frame or of all."""
        found = Renames()
        for row in self.select("SELECT * FROM class_names ORDER BY id", ()):
            found.add_of_all(row["id"], _renaming(row), row["last_label"])
        of, values = ("1", ()) if frame_id is None else (_OF_FRAME, (frame_id,))
        for row in self.select(f"SELECT * FROM label_names WHERE {of} ORDER BY id", values):  # noqa: S608  (constants)
            found.add_of_one(row["id"], _renaming(row), row["label_id"], row["after_rename"])
        return found

    def names_now(self, frame_id: int, labels: Sequence[Label]) -> list[dict[str, str]]:
        """For each label of a file what its classes of boxes are called once the log has the file's renamings, too.

        Nothing for a label that the log does not have.

        Args:
            frame_id: of whom the labels are.
            labels: as the file has them, checked.
        """
        of = _OfFrame.of(self.labels(frame_id, taken_back=True).get(frame_id, ()))
        found = []
        for label in labels:
            known = of.has(label)
            names = follow(known.box_classes, of.unknown_renamings(known, label))[0] if known else ()
            pairs = set(zip(label.box_classes, names, strict=True)) if known else set()
            of_each = Counter(there for there, _ in pairs)  # one that stands for two here says nothing
            found.append({t: h for t, h in pairs if t is not None and h is not None and of_each[t] == 1})
        return found


@dataclass(slots=True)
class _OfFrame:
    """What the log has of a frame while labels are added.

    Attributes:
        known: its labels by what they say, by all the names that their classes ever had.
        newest: time of the newest; empty where there is none.
    """

    known: dict[tuple[object, ...], Label]
    newest: str

    @classmethod
    def of(cls, labels: Sequence[Label]) -> _OfFrame:
        """Of its labels, those too that were taken back."""
        known: dict[tuple[object, ...], Label] = {}
        for label in sorted(labels, key=lambda label: label.id or 0):
            for content in label.contents:
                known.setdefault(content, label)
        return cls(known, max((in_order(label.at) for label in labels), default=""))

    def has(self, label: Label) -> Label | None:
        """The label of the log that says, or once said, what this one says or once said."""
        return next((self.known[content] for content in label.contents if content in self.known), None)

    @staticmethod
    def unknown_renamings(known: Label, label: Label) -> tuple[Renaming, ...]:
        """Of a label's renamings those after the last that the log's own has, as far as they change a name which it has now."""
        given = label.earlier.renamed if label.earlier else ()
        there = known.earlier.renamed if known.earlier else ()
        last = max((number for number, one in enumerate(given) if one in there), default=-1)
        return follow(known.box_classes, given[last + 1 :])[1]

    def forget_what_was_taken_back(self, label: Label) -> None:
        """Whoever says again what was taken back means it."""
        known = self.known.get(label.content)
        if known is not None and known.retracted:
            for content in known.contents:
                if self.known.get(content) is known:
                    del self.known[content]

    def add(self, db: sqlite3.Connection, frame_id: int, label: Label) -> Stored:
        """Append a label, where it is new, and that it was taken back or renamed, where that is."""
        known = self.has(label)
        new = known is None
        if known is None:
            said = replace(label, box_classes=label.earlier.box_classes if label.earlier else label.box_classes)
            known = replace(said, id=_append(db, frame_id, said), earlier=None, retracted=None)
            self.newest = max(self.newest, label.at)
        number = known.id or 0
        for one in (renamings := self.unknown_renamings(known, label)):
            _rename(db, number, one)
        taken_back = label.retracted if known.retracted is None else None
        if taken_back is not None:
            _take_back(db, number, taken_back)
        self._keep(known, renamings, taken_back)
        return Stored(number, new, taken_back is not None)

    def _keep(self, label: Label, renamings: Sequence[Renaming], taken_back: Retraction | None) -> None:
        """Remember a label with what was added to it."""
        before = label.earlier or Earlier(label.box_classes, ())
        names = follow(label.box_classes, renamings)[0]
        earlier = Earlier(before.box_classes, (*before.renamed, *renamings))
        label = replace(label, box_classes=names, earlier=earlier if earlier.renamed else None,
                        retracted=taken_back or label.retracted)  # fmt: skip
        for content in label.contents:
            if content not in self.known or self.known[content].id == label.id:
                self.known[content] = label


def _retraction(row: Row) -> dict[str, Any] | None:
    return {"who": row["retracted_by"], "at": row["retracted_at"]} if row["retracted_at"] else None


def _renaming(row: Row) -> Renaming:
    return Renaming(*(row[name] for name in Renaming._fields))


def _append(db: sqlite3.Connection, frame_id: int, label: Label) -> int:
    fields = fields_of(label)
    row = {"frame_id": frame_id} | {name: value for name, value in fields.items() if name not in _ELSEWHERE}
    row |= {name: json.dumps(fields[name]) for name in ("boxes", "box_classes")}
    names, marks = ", ".join(row), ", ".join("?" * len(row))
    return int(db.execute(f"INSERT INTO labels ({names}) VALUES ({marks})", list(row.values())).lastrowid or 0)  # noqa: S608


def _take_back(db: sqlite3.Connection, number: int, by: Retraction) -> None:
    db.execute("INSERT INTO retractions (label_id, who, at) VALUES (?, ?, ?)", (number, by.who, by.at))


def _rename(db: sqlite3.Connection, number: int, renaming: Renaming) -> None:
    db.execute(
        "INSERT INTO label_names (label_id, after_rename, old, new, who, at) "
        "VALUES (?, (SELECT COALESCE(MAX(id), 0) FROM class_names), ?, ?, ?, ?)", (number, *renaming),
    )  # fmt: skip
