"""The unseen map -> regions of interest: S > t, closed, joined into connected components."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

CLOSING = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (7, 7))
SMALLEST_PIXELS = 6


@dataclass(frozen=True, slots=True)
class Region:
    """A region of S > t.

    Attributes:
        box: (x0, y0, x1, y1) in pixels of the 224 image, ends exclusive.
        pixels: area.
        score: sum of S over the region.
        peak: largest S.
    """

    box: tuple[int, int, int, int]
    pixels: int
    score: float
    peak: float


def find_regions(unseen_map: NDArray[np.uint8], *, threshold: float) -> list[Region]:
    """Regions of a map, strongest first.

    Args:
        unseen_map: (h, w) uint8, S times 255.
        threshold: t, in (0, 1).

    Returns:
        Regions of at least 6 pixels after a morphological closing of 7x7. The map has 8 bits: S is known within 1/510.
    """
    above = (unseen_map > threshold * 255).astype(np.uint8)
    if not above.any():
        return []
    count, labels, stats, _ = cv2.connectedComponentsWithStats(cv2.morphologyEx(above, cv2.MORPH_CLOSE, CLOSING))
    sums = np.bincount(labels.reshape(-1), unseen_map.reshape(-1) / 255, minlength=count)
    regions = []
    for label in range(1, count):
        x, y, w, h, pixels = (int(v) for v in stats[label])
        if pixels >= SMALLEST_PIXELS:
            peak = unseen_map[y : y + h, x : x + w][labels[y : y + h, x : x + w] == label].max() / 255
            regions.append(Region((x, y, x + w, y + h), pixels, float(sums[label]), float(peak)))
    return sorted(regions, key=lambda r: -r.score)
