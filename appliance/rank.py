"""Which frames to label next: one order for the command line, HTTP and the label loop."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from appliance.columns import Columns
from appliance.images import kept_planes
from appliance.labels import Label, standing
from appliance.measured import Part, Pool, measured
from appliance.order import MOST_DIVERSE, Metric, Wanted
from appliance.station import Station
from appliance.verdict import per_pixel
from appliance.verdict_log import VerdictLog
from engines.ranking import Candidate, Description, balanced_alpha, describe, diverse, m_alpha_middle


def rank(
    place: Station, log: VerdictLog, wanted: Wanted, *, progress: Callable[[int, int], None] = lambda *_: None
) -> list[dict[str, Any]]:
    """A page of frames to label next, most unseen first; equal ones by M_alpha, then by their number.

    All frames that the active bundle measured compete, or, while it has measured none, those of the newest verdict on the
    line: what another bundle found unseen says nothing beside it.

    Args:
        place: the station.
        log: of the station.
        wanted: which.
        progress: as for columns.
    """
    with measured(place, log, progress=progress) as pool:
        return [] if pool is None else _page(pool, log, wanted)


def _page(pool: Pool, log: VerdictLog, wanted: Wanted) -> list[dict[str, Any]]:
    people = log.frames_people_labeled() if not wanted.labeled else []
    part_of, row_of, frame_id, m_alpha, value = (np.concatenate(column) for column in zip(
        *(_competing(number, part, log, wanted, people) for number, part in enumerate(pool.parts)), strict=True
    ))  # fmt: skip
    order = np.lexsort((frame_id, -m_alpha, -value))
    chosen = [int(i) for i in order[wanted.offset : wanted.offset + wanted.count]]
    if wanted.diverse:
        candidates = (
            Candidate(
                int(i),
                float(value[i]),  # a frame without any keeps its place: it has nothing to stand for others with
                _described(pool.parts[part_of[i]], int(row_of[i]), pool.newest["t"]) if value[i] > 0 else None,
            )
            for i in order
        )
        end = min(wanted.offset + wanted.count, MOST_DIVERSE)
        chosen = diverse(candidates, end)[wanted.offset :] if wanted.offset < end else []
    entries = (_entry(pool.parts[part_of[i]], int(row_of[i]), log, wanted.metric, float(value[i])) for i in chosen)
    return [entry for entry in entries if entry is not None]


def _competing(
    number: int, part: Part, log: VerdictLog, wanted: Wanted, people: Collection[int]
) -> tuple[NDArray[Any], ...]:
    """Of the frames of a part that compete: number of the part, row, number of the frame, M_alpha, and what they are ordered by."""
    held = part.held
    here = held.of(wanted.product, wanted.lot) & part.counts
    if people:
        here &= ~np.isin(held.frame_id, list(people))
    rows = np.flatnonzero(here)
    value = _value(held, wanted.metric, log)[rows]
    return np.full(len(rows), number), rows, held.frame_id[rows], held.m_alpha[rows], value


def _value(held: Columns, metric: Metric, log: VerdictLog) -> NDArray[np.float64]:
    if metric is Metric.BALANCED:
        return m_alpha_middle(held.histogram, balanced_alpha(class_counts(log.labels())))
    return np.asarray(
        {Metric.M_ALPHA: held.m_alpha, Metric.M_THRESH: held.m_thresh, Metric.ROIS: held.rois}[metric], float
    )


def class_counts(labels: Mapping[int, list[Label]]) -> Counter[str]:
    """How often each class was labeled so far: boxes by their own class, else their frame's; a frame without boxes once."""
    found: Counter[str] = Counter()
    for given in labels.values():
        holds = standing(given).label
        if holds is None or holds.class_name == "OK":
            continue
        names = [name or holds.class_name for name in holds.box_classes] or [holds.class_name]
        found.update(name for name in names if name)
    return found


def _described(part: Part, at: int, t: float) -> Description | None:
    """What is unseen in a frame; None where nothing is above t, or its map is not kept."""
    kept = kept_planes(part.images, int(part.held.frame_id[at]), int(part.held.seq[at]))
    return None if kept is None or kept[1] is None else describe(kept[0], kept[1], t)


def _entry(part: Part, at: int, log: VerdictLog, metric: Metric, value: float) -> dict[str, Any] | None:
    """A frame of the ranking; None where retention has forgotten it, or its verdict since the columns were made."""
    row = part.log.verdict(int(part.held.seq[at]))
    if row is None or (
        part.log is not log and not log.frames("id = ? AND sha256 = ?", [row["frame_id"], row["sha256"]])
    ):
        return None
    rois = [{"box": roi["box"], "score": roi["score"]} for roi in json.loads(row["rois"])]
    return {
        "frame_id": row["frame_id"], "frame": row["name"], "product": row["product"], "lot": row["lot"],
        "m_alpha": row["m_alpha"], "m_thresh": row["m_thresh"], "rois": rois, "seq": row["seq"],
        "metric": metric.value, "value": value, "per_pixel": per_pixel(row),
    }  # fmt: skip
