"""Labels of a station to files of other programs, and what such files say: what every format of files shares."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, TextIO

from appliance.images import kept_pictures
from appliance.labels import Label, LabelError, Standing, standing
from appliance.measured import Look
from appliance.overlay import overlay_of
from appliance.verdict_log import VerdictLog


@dataclass(frozen=True, slots=True, kw_only=True)
class LabeledFrame:
    """A frame of the log with all that was said of it.

    Attributes:
        frame_id, path, sha256, product, lot: of the frame.
        width, height: pixels; None for a file that could not be read.
        labels: all, oldest first; those too that were taken back.
        rois: regions of its unseen map, as the verdict row holds them.
        bundle: that measured it.
        pictures: PNG of the stretched image and of its overlay (None where the map was not measured), or None.
    """

    frame_id: int
    path: str
    sha256: str
    product: str
    lot: str
    width: int | None
    height: int | None
    labels: tuple[Label, ...]
    rois: tuple[dict[str, Any], ...]
    bundle: str
    pictures: tuple[bytes, bytes | None] | None = None

    @property
    def size(self) -> tuple[int, int] | None:
        """Width and height."""
        return (self.width, self.height) if self.width and self.height else None

    @property
    def standing(self) -> Standing:
        """Which of the labels holds."""
        return standing(self.labels)


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    """What somebody drew on a frame in another program.

    Attributes:
        boxes: (x0, y0, x1, y1) each, in pixels of the frame or in its sides.
        box_classes: one for each box, or None.
        relative: whether boxes are in sides of the frame.
        class_name, level: of the whole frame, or None.
        whole: whether the file's form can say class and level at all.
        empty: that there is nothing to draw a box around.
        of: number, in the file, of the label that this was before it may have been changed; None where it is new, or where
            the form has no more than one for each frame.
        note, settles: as in a label.
        who: drew it, where the file knows.
        number: of him in the other program, where it gives no name.
        at: when, where the file knows.
    """

    boxes: tuple[tuple[float, float, float, float], ...] = ()
    box_classes: tuple[str | None, ...] = ()
    relative: bool = False
    class_name: str | None = None
    level: float | None = None
    whole: bool = False
    empty: bool = False
    of: int | None = None
    note: str | None = None
    settles: bool = False
    who: str | None = None
    number: str | None = None
    at: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Incoming:
    """What a file says of one frame.

    Attributes:
        path: of the frame, or its name alone.
        sha256: of its bytes, as an export of Umbra has it; None in other files.
        size: width and height that the file's boxes are pixels of; None: it does not say.
        labels: complete ones, as exported.
        drawn: in the file's own form; what equals the label that it was made of was not changed since and is not new.
    """

    path: str
    sha256: str | None = None
    size: tuple[int, int] | None = None
    labels: tuple[Label, ...] = ()
    drawn: tuple[Drawn, ...] = ()


class Format(Protocol):
    """A module that writes and reads one kind of file."""

    def write(self, frames: Iterable[LabeledFrame], path: Path) -> None:
        """Write frames with their labels."""

    def read(self, path: Path) -> Iterator[Incoming]:
        """What a file says, frame by frame; LabelError where it cannot be read."""


def format_named(name: str) -> Format:
    """The module of a file format: coco, label_studio or csv."""
    from appliance.exchange import coco, label_studio, table

    known: dict[str, Format] = {"coco": coco, "label_studio": label_studio, "csv": table}
    return known[name]


def labeled_frames(
    log: VerdictLog,
    frame_ids: Iterable[int],
    *,
    images: Path | None = None,
    look: Callable[[int], Look | None] | None = None,
) -> Iterator[LabeledFrame]:
    """Frames of the log, in the order given, with their labels and the regions of their newest verdict.

    Args:
        log: where they are.
        frame_ids: which.
        images: images.db, where pictures are wanted, too.
        look: finds verdict and pictures instead.
    """
    labels = log.labels(taken_back=True)
    for frame_id in frame_ids:
        rows = log.verdicts("f.id = ?", [frame_id], limit=1, newest=True)
        if not rows:  # forgotten by retention meanwhile
            continue
        row = rows[0]
        kept = kept_pictures(images, frame_id, row["seq"]) if images else None
        if look is not None and (seen := look(frame_id)) is not None:
            row, kept = seen.row, seen.pictures
        frame = LabeledFrame(
            frame_id=frame_id, path=row["path"], sha256=row["sha256"], product=row["product"], lot=row["lot"],
            width=row["width"], height=row["height"], labels=tuple(labels.get(frame_id, ())),
            rois=tuple(json.loads(row["rois"] or "[]")), bundle=row["bundle"],
        )  # fmt: skip
        yield frame if kept is None else replace(frame, pictures=(kept[0], overlay_of(kept, frame.rois, frame.size)))


@contextmanager
def whole_file(path: Path) -> Iterator[TextIO]:
    """A text file that appears when it is whole; one of the same name stays until then. Pipes and devices are written to."""
    path = path.resolve()
    if path.exists() and not path.is_file():
        with path.open("w", newline="", encoding="utf-8") as file:
            yield file
        return
    part = path.with_name(f".{path.name}.part")
    try:
        with part.open("w", newline="", encoding="utf-8") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def json_in(path: Path) -> Any:
    """What a JSON file holds.

    Raises:
        LabelError: it cannot be read, is empty, or is no JSON.
    """
    try:
        text = path.read_text(encoding="utf-8")
        if not text.strip():
            raise LabelError(f"{path}: the file is empty")
        return json.loads(text)
    except (OSError, ValueError, RecursionError) as error:
        raise LabelError(f"{path}: no JSON: {error}") from error


def text_or_none(value: object, what: str) -> str | None:
    """A field of a file that holds text, or nothing.

    Raises:
        TypeError: it holds something else.
    """
    if value is not None and not isinstance(value, str):
        raise TypeError(f"{what} {value!r}, wanted text")
    return value
