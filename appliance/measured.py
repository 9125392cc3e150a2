"""The frames that one bundle measured: in the log of the line, and judged again beside it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from appliance.again import opened_again, unreadable
from appliance.columns import Columns, columns
from appliance.errors import ApplianceError
from appliance.images import Pictures, kept_pictures
from appliance.station import Station
from appliance.verdict import Row
from appliance.verdict_log import VerdictLog


@dataclass(frozen=True, slots=True)
class Part:
    """Some of them, with what is kept of them.

    Attributes:
        log: the verdicts are in.
        images: images.db of their pictures.
        held: columns of all that the log has of the bundle.
        counts: (n,) bool, which of these rows count: a frame that the line's log has counts there.
    """

    log: VerdictLog
    images: Path
    held: Columns
    counts: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Pool:
    """All of them.

    Attributes:
        newest: a verdict of the bundle, with its t and alpha.
        parts: of the line first.
    """

    newest: Row
    parts: tuple[Part, ...]


@contextmanager
def measured(
    place: Station, log: VerdictLog, *, progress: Callable[[int, int], None] = lambda *_: None
) -> Iterator[Pool | None]:
    """The frames that the active bundle measured; where it has measured none, those of the newest verdict on the line.

    Args:
        place: the station.
        log: of the station.
        progress: as for columns.

    Yields:
        None where nothing was measured.
    """
    with opened_again(place) as beside:
        newest = _newest(log, beside)
        if newest is None:
            yield None
            return
        held = columns(place.columns, log, newest["bundle"], progress=progress)
        parts = [Part(log, place.images, held, np.ones(len(held), bool))]
        if beside is not None:
            with _passed_over():
                again = columns(place.again.columns, beside, newest["bundle"], progress=progress)
                counts = ~np.isin(again.frame_id, held.frame_id)
                parts.append(Part(beside, place.again.images, again, counts))
        yield Pool(newest, tuple(parts))


def measured_by_others(place: Station, log: VerdictLog) -> int:
    """How many frames of the line only other bundles measured than the one of `measured`."""
    with opened_again(place) as beside:
        newest = _newest(log, beside)
        if newest is None:
            return 0
        bundle = newest["bundle"]
        others = np.setdiff1d(log.measured_by(bundle, or_not=True), log.measured_by(bundle), assume_unique=True)
        if beside is not None and len(others):
            with _passed_over():
                others = np.setdiff1d(others, beside.measured_by(bundle), assume_unique=True)
        return len(others)


@dataclass(frozen=True, slots=True)
class Look:
    """What was found in one frame.

    Attributes:
        row: the verdict.
        pictures: the stretched image, and the map if it is of this verdict; None where none are kept.
    """

    row: Row
    pictures: Pictures | None

    @property
    def has_map(self) -> bool:
        """Whether the map that its regions were found in is kept."""
        return self.pictures is not None and self.pictures[1] is not None


@contextmanager
def looks(place: Station, log: VerdictLog) -> Iterator[Callable[[int], Look | None]]:
    """What whoever labels a frame is to see: what the bundle of `measured` found in it, on the line or again; else the line.

    A verdict whose map is kept goes before one whose map is lost.

    Args:
        place: the station.
        log: of the station.

    Yields:
        A function of the number of a frame; None where it has no verdict.
    """
    with opened_again(place) as beside:
        newest = _newest(log, beside)
        bundle = None if newest is None else newest["bundle"]

        def look(frame_id: int) -> Look | None:
            rows = log.verdicts("f.id = ?", [frame_id], newest=True)
            if not rows:
                return None
            found = [_look(place, row) for row in rows if row["bundle"] == bundle]
            if not found and beside is not None:
                with _passed_over():
                    where = "f.id = ? AND f.sha256 = ? AND v.bundle = ?"
                    again = beside.verdicts(where, [frame_id, rows[0]["sha256"], bundle], limit=1)
                    found = [_look(place.again, row) for row in again]
            found.append(_look(place, rows[0]))
            best = next((one for one in found if one.has_map), found[0])
            image = next((one.pictures[0] for one in found if one.pictures), None)
            return best if best.pictures or image is None else replace(best, pictures=(image, None))

        yield look


def stretched_image(place: Station, row: Row) -> bytes | None:
    """PNG of a frame's stretched image, from when it was judged, or judged again; None where none is kept.

    Args:
        place: the station.
        row: of a verdict on it.
    """
    if (kept := kept_pictures(place.images, row["frame_id"], None)) is not None:
        return kept[0]
    with opened_again(place) as beside, _passed_over():
        if beside is not None and beside.frames("id = ? AND sha256 = ?", [row["frame_id"], row["sha256"]]):
            kept = kept_pictures(place.again.images, row["frame_id"], None)
    return None if kept is None else kept[0]


def _look(place: Station, row: Row) -> Look:
    return Look(row, kept_pictures(place.images, row["frame_id"], row["seq"]))


def _newest(log: VerdictLog, beside: VerdictLog | None) -> Row | None:
    """A verdict of the bundle whose measurements count."""
    activation = log.activation()
    if activation is not None:
        if (found := log.newest_measured(bundle=activation["identity"])) is not None:
            return found
        if beside is not None:
            with _passed_over():
                if (found := beside.newest_measured(bundle=activation["identity"])) is not None:
                    return found
    return log.newest_measured(origin="inbox") or log.newest_measured()


@contextmanager
def _passed_over() -> Iterator[None]:
    """What of again/ cannot be read is told, and done without."""
    try:
        yield
    except ApplianceError as error:
        unreadable(error)
