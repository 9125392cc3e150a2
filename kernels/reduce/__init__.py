"""Two maps of logits -> the unseen map and its metrics (docs/math.md, eq. 4-6 and 9)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kernels import _native
from kernels.errors import NonFiniteMapError

HISTOGRAM_BINS = 256


@dataclass(frozen=True, slots=True)
class UnseenMetrics:
    """Eq. 5, 6 and 9 of one frame.

    Attributes:
        m_thresh: pixels with S > t.
        m_alpha: sum of S^alpha over all pixels.
        peak: largest S, in [0, 1].
        histogram: (256,) uint32; bin i counts i/256 < S <= (i + 1)/256, bin 0 also S = 0.
        map: (h, w) uint8, S times 255, rounded.
    """

    m_thresh: int
    m_alpha: float
    peak: float
    histogram: NDArray[np.uint32]
    map: NDArray[np.uint8]


class Reducer:
    """Reduces map pairs one after another with the same buffers; for one thread at a time."""

    def __init__(self, *, threshold: float, alpha: float) -> None:
        if not 0 < threshold < 1:
            raise ValueError(f"threshold {threshold}: wanted a number in (0, 1)")
        if not alpha > 0:
            raise ValueError(f"alpha {alpha}: wanted a number above 0")
        self.threshold, self.alpha = threshold, alpha
        self._native = _native.Reducer(threshold, alpha)

    def reduce(self, logits: NDArray[np.float32]) -> UnseenMetrics:
        """Reduce the logits of one frame.

        S = max(0, 1 - Pbg - Pfg), P = sigmoid(logit);  M_thresh = #{S > t};  M_alpha = sum S^alpha
        (docs/math.md, eq. 4-6, 9)

        Args:
            logits: (2, h, w) float32, C-contiguous: background, then labeled object.

        Raises:
            NonFiniteMapError: a logit is NaN or infinite.
        """
        _, h, w = logits.shape
        unseen_map = np.empty((h, w), np.uint8)
        histogram = np.empty(HISTOGRAM_BINS, np.uint32)
        m_thresh, m_alpha, peak, non_finite = self._native.run(logits, unseen_map, histogram)
        refuse_non_finite(non_finite, h * w)
        return UnseenMetrics(m_thresh, m_alpha, peak, histogram, unseen_map)


def refuse_non_finite(non_finite: int, pixels: int) -> None:
    """Refuse a map of which some pixels have a logit that is NaN or infinite.

    Raises:
        NonFiniteMapError: non_finite is not 0.
    """
    if non_finite:
        raise NonFiniteMapError(f"unseen map: {non_finite} of {pixels} pixels have a logit that is not finite")
