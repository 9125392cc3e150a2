"""What people, and proposals, say of frames: appended, never changed; which label of a frame holds, and who disagrees."""

from __future__ import annotations

import enum
import json
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import combinations
from typing import Any, NamedTuple, TypeVar

from appliance.errors import ApplianceError
from appliance.frame import checked_text
from appliance.naming import Earlier, Renames, Renaming, follow
from appliance.times import utc_text
from engines.classes import CLASSES

Box = tuple[int, int, int, int]
Number = TypeVar("Number", int, float)
LONGEST_NAME = 200
UNNAMED = "object"  # what files call the class of a box that has none
SAME_BOX_IOU = 0.5
LEVEL_DISPUTE = 1.0  # raters differ by one level without disagreeing
OVERHANG = 1  # pixels that a box may lie outside its frame by rounding; it is cut there


class LabelError(ApplianceError):
    """A label says what cannot be of this frame, or a file of labels cannot be read."""


class Origin(enum.StrEnum):
    """Who speaks."""

    PERSON = "person"
    PROPOSAL = "proposal"  # a bundle; never trained on


class Retraction(NamedTuple):
    """That a label was taken back.

    Attributes:
        who, at: name, and time as now_utc writes it.
    """

    who: str
    at: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Label:
    """One label of one frame.

    Attributes:
        class_name: OK, Spot, Diagonal or Error; None where it says nothing of the whole frame.
        level: 0..10, or None.
        boxes: (x0, y0, x1, y1) in pixels of the frame, ends exclusive.
        box_classes: one for each box: any name, or None; as they are called now.
        who, at: name, and time as now_utc writes it.
        note: or None.
        origin: a person or a proposal.
        settles: earlier labels of the frame are no longer part of a dispute.
        empty: there is nothing to draw a box around; without it no boxes mean that nobody drew any, unless the class is OK.
        retracted: who took it back, and when; it says nothing any more. None: it holds.
        earlier: what its boxes were called before they were renamed; None: they were not.
        id: in the log; None before it is stored.
    """

    class_name: str | None = None
    level: float | None = None
    boxes: tuple[Box, ...] = ()
    box_classes: tuple[str | None, ...] = ()
    who: str
    at: str
    note: str | None = None
    origin: Origin = Origin.PERSON
    settles: bool = False
    empty: bool = False
    retracted: Retraction | None = None
    earlier: Earlier | None = None
    id: int | None = None

    @property
    def says_where(self) -> bool:
        """Whether an empty list of boxes means that there is nothing, and not that nobody drew one."""
        return bool(self.boxes) or self.empty or self.class_name == "OK"

    @property
    def content(self) -> tuple[object, ...]:
        """All that it says: equal labels are one label, however often they are imported, and whether or not it was taken back."""
        return (self.class_name, self.level, self.boxes, self.box_classes, self.who, in_order(self.at), self.note or None,
                self.origin, self.settles, self.empty)  # fmt: skip

    @property
    def contents(self) -> list[tuple[object, ...]]:
        """Its content now, and by each of the names that its classes had before, newest first."""
        steps = self.earlier.steps[-2::-1] if self.earlier else []
        return [self.content, *(replace(self, box_classes=names).content for names in steps)]


@dataclass(frozen=True, slots=True)
class Standing:
    """What holds of a frame.

    Attributes:
        label: the newest label of a person, or None; what it leaves open is as the newest label says that does not.
        proposal: the newest proposal, or None.
        disputed: whether the newest labels of two people differ, and no later one settled it.
    """

    label: Label | None
    proposal: Label | None
    disputed: bool


def label_of(row: Mapping[str, Any]) -> Label:
    """A label from its row in the log, or from the same fields in a file (all but `who` and `at` may lack).

    Raises:
        LabelError: a field is missing, or is not what it should be.
    """
    boxes, classes = row.get("boxes"), row.get("box_classes")
    boxes = json.loads(boxes) if isinstance(boxes, str) else boxes
    classes = json.loads(classes) if isinstance(classes, str) else classes
    try:
        read = tuple(_box(box) for box in boxes or ())
        taken_back = row.get("retracted")
        return Label(
            class_name=_text(row.get("class")), level=None if row.get("level") is None else float(row["level"]), boxes=read,
            box_classes=tuple(None if c is None else str(c) for c in classes or [None] * len(read)),
            who=str(row["who"]), at=str(row["at"]), note=_text(row.get("note")),
            origin=Origin(row.get("origin") or Origin.PERSON), settles=bool(row.get("settles")),
            empty=bool(row.get("empty")), id=row.get("id"), earlier=_earlier(row.get("earlier")),
            retracted=Retraction(str(taken_back["who"]), str(taken_back["at"])) if taken_back else None,
        )  # fmt: skip
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise LabelError(f"label {json.dumps(dict(row), default=str)[:200]}: {error!r}") from error


def _earlier(fields: Mapping[str, Any] | None) -> Earlier | None:
    if not fields:
        return None
    renamed = [Renaming(*(one[name] for name in Renaming._fields)) for one in fields["renamed"]]
    for one in renamed:
        if not all(isinstance(value, str) for value in one):
            raise TypeError(f"renamed {list(one)}, wanted text")
    return Earlier(tuple(map(_text, fields["box_classes"])), tuple(renamed))


def _text(value: object) -> str | None:
    if value is not None and not isinstance(value, str):
        raise TypeError(f"{value!r}, wanted text")
    return value


def _box(numbers: Sequence[float]) -> Box:
    x0, y0, x1, y1 = (round(v) for v in numbers)
    return x0, y0, x1, y1


def fields_of(label: Label) -> dict[str, Any]:
    """A label as files and HTTP write it; label_of reads it back."""
    return {
        "id": label.id, "class": label.class_name, "level": label.level, "boxes": [list(box) for box in label.boxes],
        "box_classes": list(label.box_classes), "who": label.who, "at": label.at, "note": label.note,
        "origin": label.origin.value, "settles": label.settles, "empty": label.empty,
        "retracted": label.retracted._asdict() if label.retracted else None,
        "earlier": {"box_classes": list(label.earlier.box_classes), "renamed": [one._asdict() for one in label.earlier.renamed]}
        if label.earlier else None,
    }  # fmt: skip


def checked(label: Label, size: tuple[int, int] | None) -> Label:
    """The label itself where it can be of a frame of this size; boxes a pixel too large are cut, times become UTC.

    Args:
        label: to check.
        size: width and height of the frame, or None where nobody knows them (a file that could not be read).

    Raises:
        LabelError: unknown class, level outside 0..10, a box without area or outside the frame, a name out of bounds,
            text that cannot be stored, or a time that is none.
    """
    if label.class_name not in (None, *CLASSES):
        raise LabelError(f"class {label.class_name!r}, wanted one of {', '.join(CLASSES)}; other names belong to boxes")
    if label.level is not None and not (math.isfinite(label.level) and 0 <= label.level <= 10):
        raise LabelError(f"level {label.level}, wanted 0..10")
    if len(label.box_classes) != len(label.boxes):
        raise LabelError(f"{len(label.boxes)} boxes and {len(label.box_classes)} classes of boxes")
    taken_back, earlier = label.retracted, _checked_earlier(label)
    for name in (label.who, *label.box_classes, *([taken_back.who] if taken_back else [])):
        if name is not None:
            check_name(name)
    try:
        note = checked_text(label.note) if label.note else None
    except ValueError as error:
        raise LabelError(f"note {label.note!r}: {error}") from error
    if label.empty and label.boxes:
        raise LabelError(f"{len(label.boxes)} boxes, and that there is nothing to draw one around")
    if label.class_name is None and label.level is None and not (label.says_where or label.settles or note):
        raise LabelError("says nothing: wanted a class, a level, boxes, or that there is nothing to draw one around")
    if size is None and label.boxes:
        raise LabelError("boxes on a file that could not be read")
    return replace(
        label, note=note, at=in_utc(label.at), boxes=tuple(inside(box, size) for box in label.boxes) if size else (),
        box_classes=_unnamed_is_none(label.box_classes), earlier=earlier,
        retracted=taken_back and taken_back._replace(at=in_utc(taken_back.at)),
    )  # fmt: skip


def _checked_earlier(label: Label) -> Earlier | None:
    """What a label says of earlier names, where it leads to those that its boxes have; times become UTC."""
    if (earlier := label.earlier) is None:
        return None
    try:
        for text in (*(text for one in earlier.renamed for text in one), *filter(None, earlier.box_classes)):
            checked_text(text)  # a name as it was, whatever may be one today
    except ValueError as error:
        raise LabelError(f"a renaming: {error}") from error
    said = _unnamed_is_none(earlier.box_classes)
    names, changed = follow(said, earlier.renamed)
    if names != _unnamed_is_none(label.box_classes):
        raise LabelError(f"boxes called {_told(label.box_classes)}, which by their earlier names and renamings are "
                         f"{_told(names)}: where a class is changed by hand, its earlier names must go")  # fmt: skip
    return Earlier(said, tuple(one._replace(at=in_utc(one.at)) for one in changed)) if changed else None


def _unnamed_is_none(names: Sequence[str | None]) -> tuple[str | None, ...]:
    return tuple(None if name == UNNAMED else name for name in names)


def _told(names: Sequence[str | None]) -> str:
    return ", ".join(name or UNNAMED for name in names) or "nothing"


def check_name(name: str) -> None:
    """Raises LabelError where it can be nobody's name, nor that of a class."""
    try:
        text = checked_text(name)
    except ValueError as error:
        raise LabelError(f"name {name!r}: {error}") from error
    if not (0 < len(text) <= LONGEST_NAME and text.strip() == text and text.isprintable()):
        wanted = f"1 to {LONGEST_NAME} characters that can be seen, without blanks around them"
        raise LabelError(f"name {name!r}, wanted {wanted}")


def in_utc(at: str) -> str:
    """A time as the log writes it: milliseconds, UTC; of one without a zone it is thought to be that.

    Raises:
        LabelError: it is no time.
    """
    try:
        return utc_text(datetime.fromisoformat(at))
    except (ValueError, OverflowError):
        raise LabelError(f"time {at!r}, wanted as ISO 8601 writes it: 2026-01-31T13:05:00Z") from None


def in_order(at: str) -> str:
    """A time of the log as in_utc, so that text is in order of time; one that an earlier version did not check as it is."""
    try:
        return in_utc(at)
    except LabelError:
        return at


def inside(box: tuple[Number, ...], size: tuple[int, int]) -> tuple[Number, Number, Number, Number]:
    """A box cut to its frame where it is a pixel too large.

    Args:
        box: (x0, y0, x1, y1) in pixels of the frame, ends exclusive.
        size: width and height of the frame.

    Raises:
        LabelError: it reaches more than a pixel out of the frame, or has no area.
    """
    width, height = size
    x0, y0, x1, y1 = max(box[0], 0), max(box[1], 0), min(box[2], width), min(box[3], height)
    if max(abs(now - then) for now, then in zip((x0, y0, x1, y1), box, strict=True)) > OVERHANG:
        raise LabelError(f"box {list(box)} lies outside the frame of {width}x{height} pixels")
    if not (x0 < x1 and y0 < y1):
        raise LabelError(f"box {list(box)} has no area, wanted x0 < x1 and y0 < y1")
    return x0, y0, x1, y1


def iou(a: Sequence[float], b: Sequence[float]) -> float:
    """Intersection over union of two boxes, in [0, 1]."""
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    shared = max(0.0, width) * max(0.0, height)
    both = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared
    return shared / both if both else 0.0


def disagree(a: Label, b: Label) -> bool:
    """Whether two labels of a frame cannot both be right: other class, levels more than one apart, or other boxes."""
    if None not in (a.class_name, b.class_name) and a.class_name != b.class_name:
        return True
    if a.level is not None and b.level is not None and abs(a.level - b.level) > LEVEL_DISPUTE:
        return True
    return a.says_where and b.says_where and not _same_boxes(a, b)


def _same_boxes(a: Label, b: Label) -> bool:
    left = list(zip(b.boxes, b.box_classes, strict=True))
    for box, name in zip(a.boxes, a.box_classes, strict=True):
        found = [other for other in left if other[1] == name and iou(box, other[0]) >= SAME_BOX_IOU]
        if not found:
            return False
        left.remove(max(found, key=lambda other: iou(box, other[0])))
    return not left


def standing(labels: Sequence[Label]) -> Standing:
    """What holds of a frame whose labels are given, oldest first.

    The newest label of a person holds; one that was taken back says nothing. In a dispute stands what each person said last of
    class, level and where, each against each other; a label that settles it ends it.
    """
    held = [label for label in labels if label.retracted is None]
    people = [label for label in held if label.origin is Origin.PERSON]
    proposals = [label for label in held if label.origin is Origin.PROPOSAL]
    settled = max((i for i, label in enumerate(people) if label.settles), default=0)
    said: dict[str, list[Label]] = defaultdict(list)
    for label in people[settled:]:
        said[label.who].append(label)
    opinions = [one for labels_of_one in said.values() if (one := _together(labels_of_one)) is not None]
    disputed = any(disagree(a, b) for a, b in combinations(opinions, 2))
    return Standing(_together(people), proposals[-1] if proposals else None, disputed)


def _together(labels: Sequence[Label]) -> Label | None:
    """The last of labels, with class, level and boxes each from the last that says something of it."""
    if not labels:
        return None
    classes = [label.class_name for label in labels if label.class_name is not None]
    levels = [label.level for label in labels if label.level is not None]
    where = [label for label in labels if label.says_where] or [labels[-1]]
    return replace(
        labels[-1], class_name=classes[-1] if classes else None, level=levels[-1] if levels else None,
        boxes=where[-1].boxes, box_classes=where[-1].box_classes, earlier=where[-1].earlier, empty=where[-1].empty,
    )  # fmt: skip


def by_frame(rows: Iterable[Mapping[str, Any]], renames: Renames | None = None) -> dict[int, list[Label]]:
    """Labels of the log by the number of their frame, oldest first, with the names that classes have now."""
    renames, found = renames or Renames(), defaultdict[int, list[Label]](list)
    for row in rows:
        label = label_of(row)
        names, changed = follow(label.box_classes, renames.of(row["id"]))
        earlier = Earlier(label.box_classes, changed) if changed else None
        found[row["frame_id"]].append(replace(label, box_classes=names, earlier=earlier))
    return {
        frame: sorted(labels, key=lambda label: (in_order(label.at), label.id or 0)) for frame, labels in found.items()
    }


def renaming(old: str, new: str, labels: Mapping[int, Sequence[Label]]) -> tuple[int, int]:
    """How many boxes have the old name, and how many the new one already.

    Raises:
        LabelError: no box has the old name, or the new one cannot be a name.
    """
    check_name(new)
    if new in (old, UNNAMED):
        raise LabelError(f"name {new!r}, wanted another than {old!r} and {UNNAMED!r}")
    names = [name for given in labels.values() for label in given for name in label.box_classes]
    if old not in names:
        known = sorted({name for name in names if name})
        raise LabelError(f"no box is called {old!r}; there are {', '.join(known) or 'none with a class'}")
    return names.count(old), names.count(new)
