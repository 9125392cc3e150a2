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
COMPARED = 50  # frames next in order, of which the one that stands for most of them is taken
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
        looks: (34,) float32: what it looks like, the filters' responses weighed by S, and their means over the whole frame.
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
    cells = cell_looks(image, DEVIATION)
    looks = np.concatenate([np.tensordot(weight, cells, 2) / weight.sum(), cells.mean((0, 1))])
    return Description(np.asarray(blurred / length, np.float32), np.asarray(looks, np.float32))


@dataclass(frozen=True, slots=True)
class Candidate:
    """A frame that may be chosen.

    Attributes:
        number: of the frame.
        value: of the metric that orders the frames, >= 0.
        description: what describe gave of it.
    """

    number: int
    value: float
    description: Description | None


def diverse(candidates: Iterable[Candidate], count: int) -> list[int]:
    """The first `count` frames of an order that are to stand for the others, without what one before them shows.

    A frame whose shape is that of one before (cosine of 0.85 or more) is left out. Each time, of the next fifty, the frame
    is taken that adds most to sum_j value_j max_i s_ij (facility location), the sum over these fifty, the maximum over those
    taken; s_ij = exp(-d_ij^2 / 2 (m / 2)^2), d_ij the distance of looks, each response in standard deviations of the first
    fifty, m the median of d among them. A frame that nothing is known of keeps its place: it is taken when it is the next.

    Args:
        candidates: in order; read only as far as needed.
        count: frames wanted; the first of more are the same.

    Returns:
        Numbers of the frames.
    """
    waiting = iter(candidates)
    taken = _Taken()
    window: list[_Waiting] = []
    chosen: list[int] = []
    while len(chosen) < count:
        while len(window) < COMPARED and (following := next(waiting, None)) is not None:
            if not taken.shows(following.description):
                window.append(_Waiting(following, taken.nearness(following.description)))
        if not window:
            break
        best = window.pop(0 if window[0].of.description is None else taken.best_of(window)).of
        chosen.append(best.number)
        if best.description is not None:
            window = taken.add(best.description, window)
    return chosen


@dataclass(slots=True)
class _Waiting:
    """A candidate of the window.

    Attributes:
        of: which.
        stood_for: largest s to a frame taken, in [0, 1]; 0 before the first is taken.
    """

    of: Candidate
    stood_for: float


class _Taken:
    """Descriptions of the frames taken so far, and what they stand for."""

    def __init__(self) -> None:
        self._shapes = _Rows()
        self._looks = _Rows()
        self._unit: NDArray[np.float32] | None = (
            None  # (34,) of looks, in which s is exp(-d^2 / 2); from the first choice on
        )

    def add(self, description: Description, window: Sequence[_Waiting]) -> list[_Waiting]:
        """Takes it; what of the window it does not show, and knows that it stands for."""
        self._shapes.add(description.shape)
        self._looks.add(description.looks)
        left = []
        for one in window:
            if (other := one.of.description) is not None and self._unit is not None:
                if float(other.shape @ description.shape) >= SAME:
                    continue
                one.stood_for = max(one.stood_for, float(_alike(other.looks, description.looks, self._unit)))
            left.append(one)
        return left

    def shows(self, description: Description | None) -> bool:
        """Whether one of them has nearly this shape."""
        if description is None or self._unit is None:
            return False
        return bool((self._shapes.all @ description.shape >= SAME).any())

    def nearness(self, description: Description | None) -> float:
        """Largest s to one of them, 0 where there is none."""
        if description is None or self._unit is None:
            return 0.0
        return float(_alike(self._looks.all, description.looks, self._unit).max())

    def best_of(self, window: Sequence[_Waiting]) -> int:
        """Which of these adds most; the first of equal ones. Some are described."""
        known = [(i, one, one.of.description.looks) for i, one in enumerate(window) if one.of.description is not None]
        looks = np.stack([of for _, _, of in known])
        if self._unit is None:
            self._unit = _unit(looks)
        alike = _alike(looks[:, None], looks, self._unit)
        stood_for = np.array([one.stood_for for _, one, _ in known])[:, None]
        value = np.array([one.of.value for _, one, _ in known])
        return known[int(np.argmax(value @ np.maximum(alike - stood_for, 0)))][0]


class _Rows:
    """float32 vectors of one length, in an array that grows."""

    def __init__(self) -> None:
        self._held = np.empty((0, 0), np.float32)
        self._count = 0

    @property
    def all(self) -> NDArray[np.float32]:
        """(n, length)."""
        return self._held[: self._count]

    def add(self, row: NDArray[np.float32]) -> None:
        if self._count == len(self._held):
            more = np.empty((max(self._count, COMPARED), len(row)), np.float32)
            self._held = np.concatenate([self._held.reshape(-1, len(row)), more])
        self._held[self._count] = row
        self._count += 1


def _unit(looks: NDArray[np.float32]) -> NDArray[np.float32]:
    """(n, 34) -> (34,): deviation of each response, times half of the median distance in such deviations."""
    spread = np.maximum(np.std(looks, 0), np.float32(LEAST_SPREAD))
    apart = np.linalg.norm((looks[:, None] - looks) / spread, axis=2)[np.triu_indices(len(looks), 1)]
    return np.asarray(spread * max(float(np.median(apart)) / 2 if apart.size else 1.0, 1e-3), np.float32)


def _alike(a: NDArray[np.float32], b: NDArray[np.float32], unit: NDArray[np.float32]) -> NDArray[np.float64]:
    """(..., 34), broadcast -> (...) s in (0, 1]."""
    apart = (((a - b) / unit) ** 2).sum(-1, dtype=float)
    return np.asarray(np.exp(-apart / 2))
