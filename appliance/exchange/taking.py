"""What a file says of frames becomes labels of the log: found, checked whole, and stored whole or not at all."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

from appliance.exchange import Drawn, Incoming
from appliance.frame import checked_text
from appliance.labels import UNNAMED, Label, LabelError, Origin, checked, in_order, in_utc, standing
from appliance.reading import UNREAD
from appliance.verdict import Row, now_utc
from appliance.verdict_log import VerdictLog

PROBLEMS_TOLD = 5


@dataclass(frozen=True, slots=True)
class Imported:
    """What an import did: labels added, labels that were there already, of these taken back, and frames that it spoke of."""

    added: int
    known: int
    taken_back: int
    frames: int


def import_labels(
    log: VerdictLog, incoming: Iterable[Incoming], *, who: str, source: str, at: str | None = None,
    users: Mapping[str, str] | None = None, said_now: bool = False,
) -> Imported:  # fmt: skip
    """Append what a file says, all of it or nothing; what the log has already is not stored twice.

    Args:
        log: open for writing.
        incoming: frame by frame.
        who: drew what the file names nobody for.
        source: name of the file, for messages.
        at: time of what the file gives none for: when it was written; None: now.
        users: names of people whom the file knows by a number.
        said_now: as add_labels.

    Raises:
        LabelError: the file says nothing, or something of it cannot be true; nothing is stored.
    """
    speaker = _Speaker(who, at or now_utc(), users or {})
    read: list[_Read] = []
    of_frame: dict[int, _Read] = {}
    new: list[tuple[int, Label]] = []
    problems: list[str] = []
    frames = 0
    for one in incoming:
        frames += 1
        try:
            found = _Read.of(log, one, of_frame)
            read.append(found)
            of_frame.setdefault(found.frame["id"], found)
        except LabelError as error:
            problems.append(f"{one.path}: {error}")
    now = _agreed(names for found in read for names in found.names)
    for found in read:
        try:
            known = log.labels(found.frame["id"]).get(found.frame["id"], [])
            new += [(found.frame["id"], label) for label in _labels_of(found, speaker, known, now)]
        except LabelError as error:
            problems.append(f"{found.one.path}: {error}")
    if not frames:
        raise LabelError(f"{source}: no frame in it")
    if problems:
        told = "; ".join(problems[:PROBLEMS_TOLD])
        more = f"; and {len(problems) - PROBLEMS_TOLD} more" if len(problems) > PROBLEMS_TOLD else ""
        raise LabelError(f"{source}: nothing was imported: {told}{more}")
    stored = log.add_labels(new, said_now=said_now)
    added = sum(one.new for one in stored)
    return Imported(added, len(stored) - added, sum(one.taken_back and not one.new for one in stored), frames)


@dataclass(frozen=True, slots=True)
class _Read:
    """What a file says of a frame that the log has.

    Attributes:
        one: what it says.
        frame: of the log.
        whole: its complete labels, checked.
        names: for each of them, what its classes of boxes are called now, where the log has the label and they were renamed.
    """

    one: Incoming
    frame: Row
    whole: Sequence[Label] = ()
    names: Sequence[Mapping[str, str]] = ()

    @classmethod
    def of(cls, log: VerdictLog, one: Incoming, before: Mapping[int, _Read]) -> _Read:
        """Find the frame.

        Args:
            log: that has it.
            one: what the file says.
            before: what it said earlier, by the number of the frame.

        Raises:
            LabelError: there is no such frame, it is of another size, or the file's form speaks of a frame once and has this one
                twice; or a label of it cannot be true.
        """
        frame = _frame_of(log, one)
        found = cls(one, frame)
        if one.size not in (None, found.size) and found.size and any(drawn.boxes for drawn in one.drawn):
            there, here = ("x".join(map(str, size)) for size in (one.size, found.size))
            raise LabelError(f"boxes in pixels of an image of {there}, the frame has {here}")
        other = before.get(frame["id"])
        if other is not None and any(not drawn.whole for drawn in (*one.drawn, *other.one.drawn)):
            raise LabelError(f"the same frame as {other.one.path}, wanted each once")
        whole = [checked(label, found.size) for label in one.labels]
        return replace(found, whole=whole, names=log.names_now(frame["id"], whole))

    @property
    def size(self) -> tuple[int, int] | None:
        """Of the frame, pixels; None: nobody knows."""
        return (self.frame["width"], self.frame["height"]) if self.frame["width"] else None


def _frame_of(log: VerdictLog, one: Incoming) -> Row:
    """The frame of the log that a file means: by its bytes where it has them, else as frame_named."""
    if one.sha256 is None:
        return frame_named(log, one.path)
    rows = log.frames("sha256 = ?", [_text(one.sha256)])
    here = [row for row in rows if row["path"] == one.path]
    if here or not rows or one.sha256 == UNREAD:  # no bytes were read of those: they are not the same file
        if not here:
            raise LabelError("no such frame in the log")
        return here[0]
    return _only(rows, "have these bytes")


def frame_named(log: VerdictLog, path: str) -> Row:
    """The frame of the log at a path in the inbox, the newest bytes of it; or by its name where only one has it.

    Raises:
        LabelError: there is none, or more than one of this name.
    """
    if rows := log.frames("path = ?", [_text(path)]):
        return rows[0]
    rows = log.frames("name = ?", [PurePosixPath(path).name])
    if not rows:
        raise LabelError("no such frame in the log")
    return _only(rows, "have this name")


def _text(of_frame: str) -> str:
    try:
        return checked_text(of_frame)
    except ValueError as error:
        raise LabelError(f"no name of a frame: {error}") from error


def _only(rows: Sequence[Row], what: str) -> Row:
    """The newest of frames, which are all at one path."""
    if len({row["path"] for row in rows}) > 1:
        two = list(dict.fromkeys(row["path"] for row in rows))[:2]
        raise LabelError(f"{len(rows)} frames {what}, the newest are {two[0]} and {two[1]}")
    return rows[0]


@dataclass(frozen=True, slots=True)
class _Speaker:
    """Who says, and when, what a file gives nobody and no time for.

    Attributes:
        who, at: name and time.
        users: names by number.
    """

    who: str
    at: str
    users: Mapping[str, str]

    def name(self, drawn: Drawn) -> str:
        """Who drew it."""
        return self.users.get(drawn.number or "") or drawn.who or self.who


def _labels_of(found: _Read, speaker: _Speaker, known: Sequence[Label], names: Mapping[str, str]) -> Iterator[Label]:
    """Complete labels, and of the drawn ones those that are new; for one that a person says already, that one.

    Args:
        found: what the file says of a frame.
        speaker: for what the file does not say.
        known: what the log has of the frame, oldest first, without what was taken back.
        names: what classes that the file knows by an earlier name are called now, where all of it agrees; the frame's own labels
            know better, and best that which one was drawn from.
    """
    yield from found.whole
    names, size = {**names, **_agreed(found.names)}, found.size
    whole = [_renamed(label, {**names, **own}) for label, own in zip(found.whole, found.names, strict=True)]
    for drawn in found.one.drawn:
        made_of = _made_of(drawn, whole)
        of = [own for label, own in zip(found.whole, found.names, strict=True) if drawn.whole and label.id == drawn.of]
        label = _renamed(_drawn_label(drawn, size, speaker, made_of), {**names, **(of[0] if of and made_of else {})})
        if made_of is not None and drawn.whole:
            _check_nothing_is_lost(label, made_of)
        if made_of is not None and _says_the_same(drawn, label, made_of):
            continue
        label = checked(label, size)
        # A file that gives no time says the same thing however often it is read; but not after another thing.
        before = [k for k in known if k.who == label.who and k.origin is Origin.PERSON and in_order(k.at) <= label.at]
        if drawn.at is None and before and replace(before[-1], at=label.at).content == label.content:
            label = before[-1]
        known = [*known, label]
        yield label


def _agreed(names: Iterable[Mapping[str, str]]) -> dict[str, str]:
    """Of what classes are called now, by several labels, what these agree on."""
    found: dict[str, set[str]] = defaultdict(set)
    for one in names:
        for there, here in one.items():
            found[there].add(here)
    return {there: min(here) for there, here in found.items() if len(here) == 1}


def _renamed(label: Label, names: Mapping[str, str]) -> Label:
    return replace(label, box_classes=tuple(name and names.get(name, name) for name in label.box_classes))


def _made_of(drawn: Drawn, whole: Sequence[Label]) -> Label | None:
    """The label that somebody changed in another program; None where it was drawn from nothing."""
    if not drawn.whole:
        return standing(whole).label
    return next((label for label in whole if label.id == drawn.of), None) if drawn.of is not None else None


def _check_nothing_is_lost(label: Label, made_of: Label) -> None:
    """A label leaves open what it does not say, and what was said before holds: it cannot take that away."""
    nothing = "that there is nothing to draw a box around"
    for what, is_open in (
        (f"the class {made_of.class_name}", made_of.class_name is not None and label.class_name is None),
        (f"the level {made_of.level}", made_of.level is not None and label.level is None),
        (nothing, made_of.empty and not label.says_where),
    ):
        if is_open:
            raise LabelError(f"{what}, of label {made_of.id}, was removed, and no label says that: say something else instead, or "
                             f"take the label back (umbra labels retract {made_of.id})")  # fmt: skip


def _drawn_label(drawn: Drawn, size: tuple[int, int] | None, speaker: _Speaker, made_of: Label | None) -> Label:
    """A drawn label in pixels; not older than what it was made of, whosever clock is late."""
    if drawn.relative and size is None and drawn.boxes:
        raise LabelError("boxes on a file that could not be read")
    if not all(math.isfinite(v) for box in drawn.boxes for v in box):
        raise LabelError("a box whose corner is no number")
    sx, sy = size if drawn.relative and size else (1, 1)
    at = in_utc(drawn.at or speaker.at)
    return Label(
        class_name=drawn.class_name, level=drawn.level,
        empty=drawn.empty or bool(drawn.whole and made_of and made_of.boxes and not drawn.boxes),
        boxes=tuple((round(x0 * sx), round(y0 * sy), round(x1 * sx), round(y1 * sy)) for x0, y0, x1, y1 in drawn.boxes),
        box_classes=tuple(None if name == UNNAMED else name for name in drawn.box_classes),
        who=speaker.name(drawn), at=max(at, in_order(made_of.at)) if made_of else at, note=drawn.note, settles=drawn.settles,
    )  # fmt: skip


def _says_the_same(drawn: Drawn, label: Label, known: Label) -> bool:
    """Whether a drawn label is the one that it was made of."""
    same_frame = not drawn.whole or (label.class_name, label.level) == (known.class_name, known.level)
    if drawn.whole and drawn.empty and not known.empty:
        return False
    ours, theirs = (sorted(zip(side.boxes, map(str, side.box_classes), strict=True)) for side in (label, known))
    return same_frame and ours == theirs
