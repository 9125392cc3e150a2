"""Which frames to label next: one order for the command line, HTTP and the label loop."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from appliance.columns import Columns, columns
from appliance.images import kept_planes
from appliance.labels import Label, standing
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
    newest = log.newest_measured()
    if newest is None:
        return []
    held = columns(place.columns, log, newest["bundle"], progress=progress)
    here = held.of(wanted.product, wanted.lot)
    if not wanted.labeled:
        here &= ~np.isin(held.frame_id, log.frames_people_labeled())
    value = _value(held, wanted.metric, log)
    order = np.flatnonzero(here)
    order = order[np.lexsort((held.frame_id[order], -held.m_alpha[order], -value[order]))]
    chosen = [int(i) for i in order[wanted.offset : wanted.offset + wanted.count]]
    if wanted.diverse:
        candidates = (
            Candidate(int(i), float(value[i]), _described(place, int(held.frame_id[i]), newest["t"])) for i in order
        )
        end = min(wanted.offset + wanted.count, MOST_DIVERSE)
        chosen = diverse(candidates, end)[wanted.offset :] if wanted.offset < end else []
    entries = (_entry(log, int(held.seq[i]), wanted.metric, float(value[i])) for i in chosen)
    return [entry for entry in entries if entry is not None]


def beside_the_order(log: VerdictLog) -> int:
    """How many frames do not compete, since only other bundles measured them."""
    newest = log.newest_measured()
    return 0 if newest is None else log.measured_by_others(newest["bundle"])


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


def _described(place: Station, frame_id: int, t: float) -> Description | None:
    """What is unseen in a frame; None where nothing is above t, or no picture is kept."""
    kept = kept_planes(place.images, frame_id)
    return None if kept is None or kept[1] is None else describe(kept[0], kept[1], t)


def _entry(log: VerdictLog, seq: int, metric: Metric, value: float) -> dict[str, Any] | None:
    """A frame of the ranking; None where retention has forgotten its verdict since the columns were made."""
    row = log.verdict(seq)
    if row is None:
        return None
    rois = [{"box": roi["box"], "score": roi["score"]} for roi in json.loads(row["rois"])]
    return {
        "frame_id": row["frame_id"], "frame": row["name"], "product": row["product"], "lot": row["lot"],
        "m_alpha": row["m_alpha"], "m_thresh": row["m_thresh"], "rois": rois, "seq": seq, "metric": metric.value, "value": value,
        "per_pixel": per_pixel(row),
    }  # fmt: skip
