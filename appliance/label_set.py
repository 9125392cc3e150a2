"""What people labeled on a station -> the image set that training reads."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from appliance.labels import Label, standing
from appliance.station import Station
from appliance.stretched import image_of
from appliance.verdict import Row
from appliance.verdict_log import VerdictLog
from engines.classes import CLASSES
from engines.training.data import AMBIGUOUS, ImageSet
from kernels import IMAGE_SIDE, StretchParams

VALIDATION_EVERY = 8  # frames, by their bytes: one in so many is kept for validation, for ever


@dataclass(frozen=True, slots=True)
class LabelSet:
    """Labeled frames as images, divided for training.

    Attributes:
        training, validation: images with what people say of them; no class is AMBIGUOUS, no level NaN.
        disputed: frames left out since people differ on them.
        lost: frames left out since neither their picture nor their file is there any more.
    """

    training: ImageSet
    validation: ImageSet
    disputed: int
    lost: int


def teaches(role: str, label: Label) -> bool:
    """Whether a label says what a network wants to know: the class, the level, or where (of a frame that was captured)."""
    if role == "classifier":
        return label.class_name is not None
    if role == "regressor":
        return label.level is not None
    return label.says_where and label.class_name != "Error"


def label_set(place: Station, log: VerdictLog, role: str, stretch: StretchParams) -> LabelSet:
    """All frames whose labels by people teach a network and are not disputed. Proposals teach nothing.

    Args:
        place: the station.
        log: of the station.
        role: classifier, regressor or unseen.
        stretch: of the bundle that is gone on from; used where only the frame's file is left.
    """
    parts: dict[bool, list[tuple[Row, Label, NDArray[np.uint8]]]] = {True: [], False: []}
    disputed = lost = 0
    for frame, label, image in _labeled(place, log, stretch):
        if label is None:
            disputed += 1
        elif image is None:
            lost += 1
        elif teaches(role, label):
            kept = int(hashlib.sha256(frame["sha256"].encode()).hexdigest()[:8], 16) % VALIDATION_EVERY == 0
            parts[kept].append((frame, label, image))
    return LabelSet(_image_set(parts[False]), _image_set(parts[True]), disputed, lost)


def _labeled(
    place: Station, log: VerdictLog, stretch: StretchParams
) -> Iterator[tuple[Row, Label | None, NDArray[np.uint8] | None]]:
    """Frames that people labeled, with what holds (None where it is disputed) and the image (None where it is lost)."""
    for frame_id, given in sorted(log.labels().items()):
        holds = standing(given)
        [frame] = log.frames("id = ?", [frame_id])
        if holds.label is None or frame["width"] is None:  # proposals alone, or a file that could not be read
            continue
        if holds.disputed:
            yield frame, None, None
            continue
        yield frame, holds.label, image_of(place, frame, stretch)


def _image_set(rows: list[tuple[Row, Label, NDArray[np.uint8]]]) -> ImageSet:
    boxes, scales = [], []
    for number, (frame, label, _) in enumerate(rows):
        sx, sy = IMAGE_SIDE / frame["width"], IMAGE_SIDE / frame["height"]
        scales.append((sx, sy))
        boxes += [(number, x0 * sx, y0 * sy, x1 * sx, y1 * sy) for x0, y0, x1, y1 in label.boxes]
    classes = [AMBIGUOUS if label.class_name is None else CLASSES.index(label.class_name) for _, label, _ in rows]
    return ImageSet(
        images=np.array([image for _, _, image in rows], np.uint8).reshape(-1, IMAGE_SIDE, IMAGE_SIDE),
        class_index=np.array(classes, np.int64),
        rating=np.array([np.nan if label.level is None else label.level for _, label, _ in rows], np.float32),
        boxes=np.array(boxes, np.float32).reshape(-1, 5),
        scale=np.array(scales, np.float32).reshape(-1, 2),
        sensor=np.array([frame["product"] for frame, _, _ in rows], str),
        kind=np.array(["" for _ in rows], str),
    )
