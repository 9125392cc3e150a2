"""Proposals: what the active bundle would label the frames that nobody has labeled, said as such."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from appliance.labels import Box, Label, LabelError, Origin, check_name, standing
from appliance.station import Station
from appliance.stretched import image_of
from appliance.verdict import Row, now_utc
from appliance.verdict_log import VerdictLog
from engines import Bundle, OpenVinoEngines, fault_of, find_objects, inspect
from kernels import IMAGE_SIDE


def candidates(log: VerdictLog, bundle: str, *, product: str | None = None, lot: str | None = None) -> list[Row]:
    """Frames that were measured, that no person has labeled, and for which this bundle has made no proposal; oldest first.

    Args:
        log: of the station.
        bundle: identity.
        product, lot: only these; None: all.
    """
    labels = log.labels()
    done = {
        frame_id
        for frame_id, given in labels.items()
        if (holds := standing(given)).label is not None or (holds.proposal is not None and holds.proposal.who == bundle)
    }
    where = "width IS NOT NULL AND id IN (SELECT frame_id FROM verdicts WHERE score IS NOT NULL)"
    where += " AND (? IS NULL OR product = ?) AND (? IS NULL OR lot = ?)"
    frames = log.frames(where, [product, product, lot, lot])
    return [row for row in reversed(frames) if row["id"] not in done]


def proposals(
    place: Station, bundle: Bundle, frames: Sequence[Row], *, least: float
) -> Iterator[tuple[Row, Label | None]]:
    """A bundle's label of each frame; None where the frame and its picture are gone, or the bundle is not sure.

    Class: the most probable, where its P is at least `least`. Level: as measured. Boxes: of a defect, by find_objects.

    Args:
        place: the station, whose engine cache is used.
        bundle: that speaks.
        frames: rows of the log's frames.
        least: P, in (0, 1).
    """
    engines = OpenVinoEngines(bundle, precision=place.engine.on_cpu, cache=place.engines, threads=place.engine.threads)
    for frame in frames:
        image = image_of(place, frame, bundle.stretch)
        yield frame, None if image is None else _label(engines, bundle, image, frame, least)


def _label(
    engines: OpenVinoEngines, bundle: Bundle, image: NDArray[np.uint8], frame: Row, least: float
) -> Label | None:
    outputs = engines.infer(np.ascontiguousarray(image / np.float32(255), np.float32))
    if fault_of(outputs.class_logits, outputs.level, maps_speak=bool(outputs.maps.any())) is not None:
        return None
    found = inspect(outputs.class_logits, outputs.level)
    if max(found.p) < least:
        return None
    boxes: tuple[Box, ...] = ()
    if found.class_name in ("Spot", "Diagonal"):
        scale = IMAGE_SIDE / frame["width"], IMAGE_SIDE / frame["height"]
        boxes = tuple(_in_frame(region.box, frame) for region in find_objects(outputs.maps, scale))
    return Label(
        class_name=found.class_name, level=round(found.level, 2), boxes=boxes, box_classes=(None,) * len(boxes),
        who=bundle.identity, at=now_utc(), note=f"P {max(found.p):.3f}", origin=Origin.PROPOSAL,
    )  # fmt: skip


def _in_frame(box: tuple[int, int, int, int], frame: Row) -> Box:
    sx, sy = frame["width"] / IMAGE_SIDE, frame["height"] / IMAGE_SIDE
    return round(box[0] * sx), round(box[1] * sy), round(box[2] * sx), round(box[3] * sy)


def accepted(log: VerdictLog, frames: Sequence[Row], *, who: str) -> list[tuple[int, Label]]:
    """The proposals of frames as a person's own labels, from now.

    Args:
        log: of the station.
        frames: rows of the log's frames.
        who: makes them his own.

    Raises:
        LabelError: nobody can be called so, a frame has no proposal, or a person has labeled it already.
    """
    check_name(who)
    labels, found = log.labels(), []
    for frame in frames:
        holds = standing(labels.get(frame["id"], []))
        if holds.label is not None:
            raise LabelError(f"{frame['path']}: labeled by {holds.label.who} already")
        if holds.proposal is None:
            raise LabelError(f"{frame['path']}: no proposal to accept")
        note = f"accepted from {holds.proposal.who}"
        found.append(
            (
                frame["id"],
                replace(holds.proposal, who=who, at=now_utc(), note=note, origin=Origin.PERSON, id=None, earlier=None),
            )
        )
    return found
