"""Levels against the opinion of many raters: the dark-blemish paper's check of its data set (Figure 6)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from engines.training.evaluate import box

FAILED_LEVEL = 10


@dataclass(frozen=True, slots=True)
class Opinion:
    """One rater's score of one frame, 0..10, beside the frame's level."""

    frame: str
    level: int
    rater: str
    score: float


def agreement(opinions: Sequence[Opinion]) -> dict[str, Any]:
    """Mean opinion scores by level, and how well they follow the levels.

    The mean opinion score of a frame is the mean over its raters. `pcc_mean` (`pcc_median`) is the Pearson correlation of
    the levels with the mean (median) of the mean opinion scores at each level, `pcc_frames` that of all frames. Level 10
    (capture failed) is obvious and left out, as in the paper.

    Raises:
        ValueError: a frame with two levels, a rater who scored a frame twice, or fewer than two levels.
    """
    levels: dict[str, int] = {}
    seen: set[tuple[str, str]] = set()
    scores: dict[str, list[float]] = {}
    for o in opinions:
        if levels.setdefault(o.frame, o.level) != o.level:
            raise ValueError(f"frame {o.frame}: level {o.level}, and {levels[o.frame]} elsewhere")
        if (o.frame, o.rater) in seen:
            raise ValueError(f"frame {o.frame}: rated twice by {o.rater}")
        seen.add((o.frame, o.rater))
        if o.level != FAILED_LEVEL:
            scores.setdefault(o.frame, []).append(o.score)
    mos = {frame: float(np.mean(given)) for frame, given in scores.items()}
    found = sorted({levels[frame] for frame in mos})
    if len(found) < 2:
        raise ValueError(f"levels {found}: wanted frames of at least two levels below {FAILED_LEVEL}")
    by_level = {level: np.array([m for frame, m in mos.items() if levels[frame] == level]) for level in found}
    spread = [float(np.std(given, ddof=1)) for given in scores.values() if len(given) > 1]
    return {
        "frames": len(mos), "raters": len({o.rater for o in opinions}),
        "left_out": len(levels) - len(mos),
        "pcc_mean": _pearson(found, [m.mean() for m in by_level.values()]),
        "pcc_median": _pearson(found, [float(np.median(m)) for m in by_level.values()]),
        "pcc_frames": _pearson([levels[frame] for frame in mos], list(mos.values())),
        "rater_sd": float(np.mean(spread)) if spread else float("nan"),
        "within_1": float(np.mean([abs(m - levels[frame]) <= 1 for frame, m in mos.items()])),
        "mos_by_level": {str(level): box(m) for level, m in by_level.items()},
    }  # fmt: skip


def _pearson(levels: Sequence[float], scores: Sequence[float]) -> float:
    return float(np.corrcoef(levels, scores)[0, 1]) if np.std(scores) > 0 else float("nan")
