"""The unseen map -> regions of interest: S > t, closed, joined into connected components."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

BOX_MARGIN = (
    10.0  # pixels of the frame that labeled boxes are enlarged by before the UNet learns them (image-ranking paper)
)
LEAST_MARGIN = 1.0  # pixels of the image that are left of it where a frame is large
OBJECT = 0.8  # of sigmoid(b - a), a and b the logits of background and object: at even odds boxes are twice too large
SMALLEST_OBJECT = 4  # pixels a side that are left of a box when its margin is taken off
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


def margins(scale: Sequence[float]) -> tuple[float, float]:
    """Pixels of the image, along x and y, that labeled boxes are enlarged by: 10 of the frame, at least 1 of the image.

    Args:
        scale: pixels of the image for one of the frame, along x and y.
    """
    return max(LEAST_MARGIN, BOX_MARGIN * scale[0]), max(LEAST_MARGIN, BOX_MARGIN * scale[1])


def find_objects(logits: NDArray[np.float32], scale: Sequence[float]) -> list[Region]:
    """What a UNet finds an object four times as likely as background: closed, joined, without the margin of training boxes.

    The comparison leaves out what both maps share: the weight they were taught with, and how familiar a place is.

    Args:
        logits: (2, h, w) float32 of background and object.
        scale: pixels of the image for one of the frame, along x and y.

    Returns:
        Regions, largest sum of sigmoid(b - a) first, a and b the logits; a side at the image's edge keeps its place.
    """
    p = 1 / (1 + np.exp(np.clip(logits[0] - logits[1], -40, 40)))
    (height, width), (wide, high) = p.shape, margins(scale)
    found = []
    for region in find_regions(np.rint(p * 255).astype(np.uint8), threshold=OBJECT):
        x0, x1 = _without_margin(region.box[0], region.box[2], round(wide), width)
        y0, y1 = _without_margin(region.box[1], region.box[3], round(high), height)
        found.append(replace(region, box=(x0, y0, x1, y1)))
    return found


def _without_margin(low: int, high: int, margin: int, end: int) -> tuple[int, int]:
    """One side of a box; of what is too small a few pixels in its middle are left."""
    inner = low + margin if low > 0 else low, high - margin if high < end else high
    if inner[1] - inner[0] >= SMALLEST_OBJECT:
        return inner
    middle = (low + high) // 2
    start = min(max(0, middle - SMALLEST_OBJECT // 2), end - SMALLEST_OBJECT)
    return start, start + SMALLEST_OBJECT
