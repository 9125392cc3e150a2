"""How visible a pattern is: contrast-to-noise after scale-matched filtering, on a scale of levels (docs/math.md, eq. 11-12)."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

GRID = 128
SCALES = (1, 2, 4, 8)
# Contrast-to-noise ratio at level 3, the border between normal and defective.
JND = {"Spot": 9.0, "Diagonal": 7.0}
LEVELS_PER_OCTAVE = 1.5
BORDER_LEVEL = 3.0
HIGHEST_LEVEL = 9.0
CAPTURE_FAILED_LEVEL = 10
RATER_JITTER = 0.3


def contrast_to_noise(pattern: NDArray[np.float32]) -> float:
    """CNR = max over s of max |G_s * pattern|, G_s a Gaussian of unit L2 norm and SD s (eq. 11).

    Args:
        pattern: (128, 128) float32, in units of the noise of one cell of the 128 grid.

    Returns:
        The best signal-to-noise ratio that a filter of one of the four scales reaches in white noise.
    """
    responses = [
        np.abs(cv2.GaussianBlur(pattern, (0, 0), s, borderType=cv2.BORDER_CONSTANT)).max() * 2 * np.sqrt(np.pi) * s
        for s in SCALES
    ]
    return float(max(responses))


def level_of(cnr: float, shape: str) -> float:
    """Level = clip(3 + 1.5 log2(CNR / JND), 0, 9) (eq. 12); shape is Spot or Diagonal."""
    if cnr <= 0:
        return 0.0
    level = BORDER_LEVEL + LEVELS_PER_OCTAVE * np.log2(cnr / JND[shape])
    return float(np.clip(level, 0, HIGHEST_LEVEL))


def cnr_of(level: float, shape: str) -> float:
    """The CNR that has this level: the inverse of level_of."""
    return float(JND[shape] * 2 ** ((level - BORDER_LEVEL) / LEVELS_PER_OCTAVE))


def rate(level: float, rng: np.random.Generator) -> int:
    """One rater's whole-number level: the level with a jitter of SD 0.3, rounded, 0..9."""
    return int(np.clip(np.rint(np.clip(level, 0, HIGHEST_LEVEL) + rng.normal(0, RATER_JITTER)), 0, HIGHEST_LEVEL))
