"""Which frames to label next: orders of frames by what is unseen in them (image-ranking paper, sections III and VI)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from engines.histograms import Histograms, weighted_sums
from engines.looks import cell_looks, cell_means
from kernels import HISTOGRAM_BINS

ALPHAS = (1.0, 4.0)  # of balanced labels and of labels of one class
SAME = 0.85  # cosine from which on two frames show the same
COMPARED = 50  # frames next in order, of which the one most unlike those before is taken
LEAST_SPREAD = 0.02  # of a response over them, that it is told in
DEVIATION = 255 / 16  # grey values of a stretched image that stand for one SD


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


@dataclass(frozen=True, slots=True)
class Description:
    """What is unseen in a frame.

    Attributes:
        shape: (784,) float32 of length 1: where it is and how strong, as area means of 8x8 pixels, blurred.
        looks: (17,) float32: what it looks like, the filters' responses weighed by S.
    """

    shape: NDArray[np.float32]
    looks: NDArray[np.float32]


def describe(image: NDArray[np.uint8], unseen_map: NDArray[np.uint8], threshold: float) -> Description | None:
    """Where something is unseen, and what it looks like there.

    Args:
        image: (224, 224) uint8, the stretched frame.
        unseen_map: (224, 224) uint8, S times 255.
        threshold: t, in (0, 1): shape is of what is above it.

    Returns:
        None where nothing is above t.
    """
    above = np.where(unseen_map > threshold * 255, unseen_map, 0).astype(np.float32)
    blurred = cv2.GaussianBlur(cell_means(above), (0, 0), 1.0).reshape(-1)
    length = float(np.linalg.norm(blurred))
    if not length:
        return None
    weight = cell_means(unseen_map.astype(np.float32))
    looks = np.tensordot(weight, cell_looks(image, DEVIATION), 2) / weight.sum()
    return Description(np.asarray(blurred / length, np.float32), np.asarray(looks, np.float32))


def diverse(descriptions: Iterable[tuple[int, Description | None]], count: int) -> list[int]:
    """The first `count` frames of an order without what one before them shows, and each as unlike those before it as it can be.

    A frame whose shape is that of one before (cosine of 0.85 or more) is left out. The first is the first of the order; then
    each time it is, of the next fifty, the one whose looks are farthest from those of the nearest frame chosen. Each response
    counts in standard deviations of the first fifty. A frame that nothing is known of keeps its place: it is taken when it
    is the next.

    Args:
        descriptions: (number of the frame, what describe gave of it), in order; read only as far
            as needed.
        count: frames wanted; the first of more are the same.
    """
    waiting = iter(descriptions)
    nearest = _Nearest()
    window: list[tuple[int, Description | None]] = []
    chosen: list[int] = []
    while len(chosen) < count:
        while len(window) < COMPARED and (following := next(waiting, None)) is not None:
            if not nearest.shows(following[1]):
                window.append(following)
        if not window:
            break
        nearest.scaled_by([of.looks for _, of in window if of is not None])
        taken = 0 if window[0][1] is None else int(np.argmax([nearest.distance(of) for _, of in window]))
        number, description = window.pop(taken)
        chosen.append(number)
        if description is not None:
            nearest.add(description)
            window = [entry for entry in window if not nearest.shows(entry[1])]
    return chosen


class _Nearest:
    """Descriptions of the frames chosen so far."""

    def __init__(self) -> None:
        self._shapes: list[NDArray[np.float32]] = []
        self._looks: list[NDArray[np.float32]] = []
        self._scale: NDArray[np.float32] | None = None

    def scaled_by(self, looks: Sequence[NDArray[np.float32]]) -> None:
        """Take the deviation of each response over the first that there are."""
        if self._scale is None and looks:
            self._scale = np.maximum(np.std(looks, 0), np.float32(LEAST_SPREAD))

    def add(self, description: Description) -> None:
        self._shapes.append(description.shape)
        self._looks.append(description.looks)

    def shows(self, description: Description | None) -> bool:
        """Whether one of them has nearly this shape."""
        return description is not None and any(float(description.shape @ other) >= SAME for other in self._shapes)

    def distance(self, description: Description | None) -> float:
        """Of its looks to those of the nearest of them; infinite before there is any, negative of what is not known."""
        if description is None:
            return -1.0
        if self._scale is None or not self._looks:
            return float("inf")
        return float(np.linalg.norm((np.stack(self._looks) - description.looks) / self._scale, axis=1).min())
