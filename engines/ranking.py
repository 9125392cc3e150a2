"""Which frames to label next: orders of frames by what is unseen in them (image-ranking paper, sections III and VI)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import cv2
import numpy as np
from numpy.typing import NDArray

from engines.histograms import Histograms, weighted_sums
from kernels import HISTOGRAM_BINS

ALPHAS = (1.0, 4.0)  # of balanced labels and of labels of one class
DESCRIBED_SIDE = 28
SAME = 0.85  # cosine from which on two frames show the same


def imbalance(counts: Mapping[str, int]) -> float:
    """1 - entropy of the classes of labels so far over that of equally many of each: 0 balanced, 1 one class or none.

    Args:
        counts: labels of each class that is known.
    """
    known = np.array([n for n in counts.values() if n > 0], float)
    if len(known) < 2:
        return 1.0
    share = known / known.sum()
    return float(1 + (share * np.log(share)).sum() / np.log(len(known)))


def balanced_alpha(counts: Mapping[str, int]) -> float:
    """The exponent of `balanced`: log-linear in the imbalance, from 1 to 4.

    Where one class rules the labels, few strong pixels count most: what is rare is small and unlike all else. Where the
    labels are balanced, many weak ones do: what is left to learn is how known things vary.
    """
    low, high = np.log(ALPHAS)
    return float(np.exp(low + (high - low) * imbalance(counts)))


def m_alpha_middle(histograms: Histograms, alpha: float) -> NDArray[np.float64]:
    """(n, 256) -> (n,) M_alpha with each pixel in the middle of its bin, and those of bin 0 at 0."""
    middles = (np.arange(HISTOGRAM_BINS) + 0.5) / HISTOGRAM_BINS
    middles[0] = 0
    return weighted_sums(histograms, (middles**alpha)[:, None])[:, 0]


def describe(unseen_map: NDArray[np.uint8], threshold: float) -> NDArray[np.float32] | None:
    """Where and in what shape something is unseen: what is above t, as area means of 8x8 pixels, blurred.

    Args:
        unseen_map: (224, 224) uint8, S times 255.
        threshold: t, in (0, 1).

    Returns:
        (784,) float32 of length 1; None where nothing is above t.
    """
    above = np.where(unseen_map > threshold * 255, unseen_map, 0).astype(np.float32)
    small = cv2.resize(above, (DESCRIBED_SIDE, DESCRIBED_SIDE), interpolation=cv2.INTER_AREA)
    blurred = cv2.GaussianBlur(small, (0, 0), 1.0).reshape(-1)
    length = float(np.linalg.norm(blurred))
    return np.asarray(blurred / length, np.float32) if length else None


def diverse(descriptions: Iterable[tuple[int, NDArray[np.float32] | None]], count: int) -> list[int]:
    """The first `count` frames of an order that do not show what one before them shows.

    Args:
        descriptions: (number of the frame, what describe gave of it), in order; read only as far
            as needed.
        count: frames wanted.
    """
    chosen: list[int] = []
    shown: list[NDArray[np.float32]] = []
    for number, description in descriptions:
        if len(chosen) == count:
            break
        if description is not None:
            if any(float(description @ other) >= SAME for other in shown):
                continue
            shown.append(description)
        chosen.append(number)
    return chosen
