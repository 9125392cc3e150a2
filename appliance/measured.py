"""The frames that one bundle measured: in the log of the line, and judged again beside it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from appliance.columns import Columns, columns
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
        others: how many frames of the line's log only other bundles measured.
    """

    newest: Row
    parts: tuple[Part, ...]
    others: int


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
    with ExitStack() as opened:
        beside = opened.enter_context(closing(found)) if (found := again_log(place)) else None
        newest = _newest(log, beside)
        if newest is None:
            yield None
            return
        held = columns(place.columns, log, newest["bundle"], progress=progress)
        parts = [Part(log, place.images, held, np.ones(len(held), bool))]
        if beside is not None:
            again = columns(place.again.columns, beside, newest["bundle"], progress=progress)
            parts.append(Part(beside, place.again.images, again, ~np.isin(again.frame_id, held.frame_id)))
        others = log.measured_by_others(newest["bundle"])
        yield Pool(newest, tuple(parts), max(0, others - sum(int(part.counts.sum()) for part in parts[1:])))


def again_log(place: Station) -> VerdictLog | None:
    """What was judged again, to be read; None where nothing was."""
    return VerdictLog(place.again.database, readonly=True) if place.again.database.exists() else None


@dataclass(frozen=True, slots=True)
class Look:
    """What was found in one frame.

    Attributes:
        row: the verdict.
        images: images.db of its pictures.
    """

    row: Row
    images: Path


@contextmanager
def looks(place: Station, log: VerdictLog) -> Iterator[Callable[[int], Look | None]]:
    """What whoever labels a frame is to see: what the active bundle found, where it judged the frame again; else the line.

    Args:
        place: the station.
        log: of the station.

    Yields:
        A function of the number of a frame; None where it has no verdict.
    """
    with ExitStack() as opened:
        beside = opened.enter_context(closing(found)) if (found := again_log(place)) else None
        activation = log.activation()

        def look(frame_id: int) -> Look | None:
            rows = log.verdicts("f.id = ?", [frame_id], limit=1, newest=True)
            if not rows:
                return None
            if beside is not None and activation is not None and rows[0]["bundle"] != activation["identity"]:
                where = "f.id = ? AND f.sha256 = ? AND v.bundle = ?"
                if again := beside.verdicts(where, [frame_id, rows[0]["sha256"], activation["identity"]], limit=1):
                    return Look(again[0], place.again.images)
            return Look(rows[0], place.images)

        yield look


def _newest(log: VerdictLog, beside: VerdictLog | None) -> Row | None:
    activation = log.activation()
    if activation is not None:
        for source in (log, beside):
            if source is not None and (found := source.newest_measured(bundle=activation["identity"])) is not None:
                return found
    return log.newest_measured(origin="inbox") or log.newest_measured()
