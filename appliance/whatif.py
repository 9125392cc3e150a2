"""What another limit, t or alpha would have done to the frames in the log."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from appliance.columns import Columns
from appliance.labels import standing
from appliance.measured import measured
from appliance.station import Station
from appliance.verdict_log import VerdictLog
from engines.histograms import Bounds, m_alpha, m_thresh
from kernels import IMAGE_SIDE

PIXELS = IMAGE_SIDE**2
QUANTILES = (0.5, 0.9, 0.99, 1.0)


def what_if(
    place: Station, log: VerdictLog, *, spec: float | None = None, t: float | None = None, alpha: float | None = None,
    product: str | None = None, lot: str | None = None, progress: Callable[[int, int], None] = lambda *_: None,
) -> dict[str, Any]:  # fmt: skip
    """What another limit, and another t and alpha, would have done; of each what was asked for.

    Args:
        place: the station.
        log: of the station.
        spec: limit on the score, in (0, 1].
        t: in [0, 1).
        alpha: > 0.
        product, lot: only these; None: all.
        progress: called with the verdicts read, and those there are, where columns are brought up to date.
    """
    found: dict[str, Any] = {"product": product, "lot": lot}
    if spec is not None:
        found |= _limit_what_if(log, spec, product=product, lot=lot)
    if t is not None or alpha is not None:
        found["unseen"] = _unseen_what_if(place, log, t=t, alpha=alpha, product=product, lot=lot, progress=progress)
    return found


# Of a group the columns beside MAX(seq) are those of its newest row; all of them stand in the index verdicts_for_whatif.
_NEWEST = """
SELECT frame_id, MAX(seq), verdict, class = 'Error' AS failed, score FROM verdicts {where} GROUP BY frame_id
"""
_COUNTS = f"""
SELECT verdict, failed, score > ? AS above, COUNT(*) AS n FROM ({_NEWEST}) WHERE score IS NOT NULL GROUP BY 1, 2, 3
"""  # noqa: S608  (constants)
_THESE = "WHERE frame_id IN (SELECT id FROM frames WHERE {})"


def _limit_what_if(log: VerdictLog, spec: float, *, product: str | None, lot: str | None) -> dict[str, Any]:
    """Counts of PASS and FAIL under another limit, beside those that were given, and errors against labels.

    Frames that were not measured, and those of class Error, keep their verdict whatever the limit.
    """
    before, after = {"PASS": 0, "FAIL": 0, "RETEST": 0}, {"PASS": 0, "FAIL": 0, "RETEST": 0}
    asked = {"product": product, "lot": lot}
    only = {name: value for name, value in asked.items() if value is not None}
    where = _THESE.format(" AND ".join(f"{name} = ?" for name in only)) if only else ""
    values = tuple(only.values())
    for row in log.select(_COUNTS.format(where=where), (spec, *values)):
        before[row["verdict"]] += row["n"]
        after[_would(row)] += row["n"]
    labelled, overkill, escapes = 0, 0, 0
    for frame_id, given in log.labels().items():
        holds = standing(given).label
        if holds is None or holds.class_name is None:
            continue
        [row] = log.select(
            "SELECT v.verdict, v.class = 'Error' AS failed, v.score > ? AS above, v.score, f.product, f.lot FROM verdicts v "
            "JOIN frames f ON f.id = v.frame_id WHERE v.frame_id = ? ORDER BY v.seq DESC LIMIT 1", (spec, frame_id),
        )  # fmt: skip
        if row["score"] is None or any(row[name] != value for name, value in only.items()):
            continue
        labelled += 1
        overkill += holds.class_name == "OK" and _would(row) != "PASS"
        escapes += holds.class_name != "OK" and _would(row) == "PASS"
    return {"spec": spec, "given": before, "would": after,
            "labelled": labelled, "overkill": overkill, "escapes": escapes}  # fmt: skip


def _would(row: Mapping[str, Any]) -> str:
    return str(row["verdict"]) if row["failed"] else ("FAIL" if row["above"] else "PASS")


def _unseen_what_if(
    place: Station, log: VerdictLog, *, t: float | None, alpha: float | None, product: str | None, lot: str | None,
    progress: Callable[[int, int], None],
) -> dict[str, Any]:  # fmt: skip
    """M_thresh at another t and M_alpha at another alpha over all frames of one bundle, as rank, from their histograms alone.

    Each number is [at least, at most]; both are the same where t is a multiple of 1/256, or t and alpha are the bundle's own.
    """
    with measured(place, log, progress=progress) as pool:
        if pool is None:
            return {"bundle": None, "frames": 0}
        here = [(part.held, part.held.of(product, lot) & part.counts) for part in pool.parts]
        found: dict[str, Any] = {"bundle": pool.newest["bundle"], "frames": sum(int(rows.sum()) for _, rows in here)}

        def told(of: Callable[[Columns], Bounds]) -> dict[str, Any]:
            return _told([(of(held), rows) for held, rows in here])

        if t is not None:
            own = t == pool.newest["t"]
            found["m_thresh"] = {"t": t} | told(lambda c: _exactly(c.m_thresh) if own else m_thresh(c.histogram, t))
        if alpha is not None:
            same = alpha == pool.newest["alpha"]
            found["m_alpha"] = {"alpha": alpha} | told(
                lambda c: _exactly(c.m_alpha) if same else m_alpha(c.histogram, alpha)
            )
        return found


def _exactly(measured: NDArray[Any]) -> Bounds:
    values = measured.astype(np.float64)
    return Bounds(values, values, exact=True)


def _told(parts: Sequence[tuple[Bounds, NDArray[np.bool_]]]) -> dict[str, Any]:
    """Mean, mean per pixel, frames above zero and quantiles of the rows that count, each [at least, at most]."""
    exact = all(bounds.exact for bounds, _ in parts)
    both = [np.concatenate([getattr(bounds, side)[rows] for bounds, rows in parts]) for side in ("lower", "upper")]
    if not len(both[0]):
        return {"exact": exact}
    quantiles = [np.quantile(side, QUANTILES, method="higher") for side in both]
    return {
        "exact": exact,
        "mean": [float(side.mean()) for side in both],
        "mean_per_pixel": [float(side.mean() / PIXELS) for side in both],
        "frames_above_0": [int((side > 0).sum()) for side in both],
        "quantiles": {f"{q:g}": [float(side[k]) for side in quantiles] for k, q in enumerate(QUANTILES)},
    }
