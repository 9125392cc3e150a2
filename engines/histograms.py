"""Histograms of S -> M_thresh for any t and M_alpha for any alpha, long after the frame is gone (docs/math.md, eq. 9)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kernels import HISTOGRAM_BINS

Histograms = NDArray[np.uint16]
CHUNK = 1024  # histograms made float at a time: half a megabyte, which a core keeps beside it


@dataclass(frozen=True, slots=True)
class Bounds:
    """A metric of each frame, as far as its histogram tells it.

    Attributes:
        lower, upper: (n,) float64; the metric is at least and at most this.
        exact: whether both are the same by construction.
    """

    lower: NDArray[np.float64]
    upper: NDArray[np.float64]
    exact: bool


def weighted_sums(histograms: Histograms, weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n, 256) counts and (256, k) weights -> (n, k) float64 sums of count x weight."""
    sums = np.empty((len(histograms), weights.shape[1]))
    buffer = np.empty((min(CHUNK, len(histograms)), HISTOGRAM_BINS))
    for start in range(0, len(histograms), CHUNK):
        part = histograms[start : start + CHUNK]
        floats = buffer[: len(part)]
        floats[...] = part
        np.matmul(floats, weights, out=sums[start : start + len(part)])
    return sums


def m_thresh(histograms: Histograms, t: float) -> Bounds:
    """M_thresh = #{S > t} of each frame: exact where t is a bin's edge (a multiple of 1/256), else between two edges.

    Args:
        histograms: (n, 256) uint16; bin i counts i/256 < S <= (i + 1)/256, bin 0 also S = 0.
        t: in [0, 1).

    Raises:
        ValueError: t is out of range.
    """
    if not 0 <= t < 1:
        raise ValueError(f"t {t}: wanted a number in [0, 1)")
    bins, exact = np.arange(HISTOGRAM_BINS), t * HISTOGRAM_BINS == int(t * HISTOGRAM_BINS)
    first = int(t * HISTOGRAM_BINS)
    if first == 0 and exact:  # bin 0 holds S = 0, too, which is not above t
        exact, above, surely = False, bins >= 0, bins >= 1
    else:
        above, surely = bins >= first, bins >= (first if exact else first + 1)
    sums = weighted_sums(histograms, np.column_stack([surely, above]).astype(np.float64))
    return Bounds(sums[:, 0], sums[:, 1], exact)


def m_alpha(histograms: Histograms, alpha: float) -> Bounds:
    """M_alpha = sum S^alpha of each frame: at least what the bins' lower edges give, at most what the upper ones do.

    Args:
        histograms: (n, 256) uint16, as for m_thresh.
        alpha: exponent, > 0.

    Raises:
        ValueError: alpha is out of range.
    """
    if not (np.isfinite(alpha) and alpha > 0):
        raise ValueError(f"alpha {alpha}: wanted a number above 0")
    edges = (np.arange(HISTOGRAM_BINS + 1) / HISTOGRAM_BINS) ** alpha
    sums = weighted_sums(histograms, np.column_stack([edges[:-1], edges[1:]]))
    return Bounds(sums[:, 0], sums[:, 1], exact=False)
