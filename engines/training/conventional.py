"""The conventional score (eq. 10): low-pass, take the pattern out, largest minus smallest value in DN; a spec per sensor."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

SIDE = 128
PATTERN_SD, BACKGROUND_SD = 2.0, 16.0  # cells of the 128 grid
HIGH, LOW = 99.8, 0.2  # percentiles instead of the very extremes


def conventional_score(samples: NDArray[np.uint16]) -> float:
    """Score of (h, w) samples, DN: 3x3 median, mean over a 128 grid, Gaussian 2 minus Gaussian 16, P99.8 - P0.2."""
    smooth = cv2.medianBlur(samples, 3).astype(np.float32)
    cells = cv2.resize(smooth, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    pattern = cv2.GaussianBlur(cells, (0, 0), PATTERN_SD)
    pattern -= cv2.GaussianBlur(pattern, (0, 0), BACKGROUND_SD)
    high, low = np.percentile(pattern, [HIGH, LOW])
    return float(high - low)


def fit_spec(scores: NDArray[np.floating], defective: NDArray[np.bool_]) -> float:
    """The limit that gives the best accuracy on these frames: halfway between two different scores, or beyond all."""
    order = np.argsort(scores, kind="stable")
    s, y = scores[order], defective[order]
    passed_defects = np.concatenate([[0], np.cumsum(y)])
    correct = np.arange(len(s) + 1) - passed_defects + (y.sum() - passed_defects)
    between_equals = np.concatenate([[False], s[1:] == s[:-1], [False]]) if len(s) else np.array([False])
    best = int(np.where(between_equals, -1, correct).argmax())
    if best == 0:
        return float(s[0] - 1) if len(s) else 0.0
    return float((s[best - 1] + s[best]) / 2) if best < len(s) else float(s[-1] + 1)


@dataclass(frozen=True, slots=True)
class PerSensorSpec:
    """The conventional method's limits, DN, by sensor."""

    limits: Mapping[str, float]

    @classmethod
    def fit(cls, scores: NDArray[np.floating], defective: NDArray[np.bool_], sensor: NDArray[np.str_]) -> PerSensorSpec:
        """The best limit of each sensor on its training frames."""
        return cls({str(n): fit_spec(scores[sensor == n], defective[sensor == n]) for n in np.unique(sensor)})

    def calls(self, scores: NDArray[np.floating], sensor: NDArray[np.str_]) -> NDArray[np.bool_]:
        """(n,) whether each score is above its sensor's limit."""
        return scores > np.array([self.limits[str(name)] for name in sensor])


def cross_fitted(
    scores: NDArray[np.floating], defective: NDArray[np.bool_], sensor: NDArray[np.str_], clear: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """Which frames a spec per sensor calls defective, each judged by a spec fitted on the other half of its sensor.

    Args:
        scores: (n,) DN.
        defective: (n,) the truth.
        sensor: (n,) names.
        clear: (n,) which frames a spec may be fitted on.

    Returns:
        (n,); False where there was nothing to fit on.
    """
    called = np.zeros(len(scores), bool)
    for name in np.unique(sensor):
        members = np.flatnonzero(sensor == name)
        halves = members[::2], members[1::2]
        for judged, fitted in (halves, halves[::-1]):
            known = fitted[clear[fitted]]
            if len(known):
                called[judged] = scores[judged] > fit_spec(scores[known], defective[known])
    return called
