"""What cells of 8x8 pixels look like to simple filters: brightness, texture, spots, and edges in four directions.

The network beside the UNet asks the same of what training showed (`engines/models/familiarity.py`), in torch; here it is
asked of stored images, on stations without torch.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

CELL = 8  # pixels a side that one description stands for
SMOOTHED = (1.0, 2.0, 4.0)  # SD of the Gaussians whose mean, variance and Laplacian are described
EDGES = (0.8, 2.0)  # SD at which the strength of edges in four directions is
DIRECTIONS = tuple(np.pi / 4 * k for k in range(4))
AROUND = 2.5  # SD over which that strength is averaged
LOCAL = 12.0  # SD over which an image is brought to mean 0 and deviation 1
LEAST_DEVIATION = 0.1  # added to that deviation
FLOOR = 0.02  # added to variances and strengths before the logarithm
RESPONSES = 3 * len(SMOOTHED) + len(DIRECTIONS) * len(EDGES)

Plane = NDArray[np.float32]


def cell_looks(image: NDArray[np.uint8], deviation: float) -> Plane:
    """(h, w) uint8 -> (h / 8, w / 8, 17) float32: means of the filters' responses over each cell.

    Args:
        image: sides multiples of 8, mirrored at the edges.
        deviation: grey values that stand for one SD of the set.
    """
    x = (image.astype(np.float32) - np.float32(127.5)) / np.float32(deviation)
    mean = _blur(x, LOCAL)
    spread = np.sqrt(np.maximum(_blur(x * x, LOCAL) - mean * mean, 0)) + np.float32(LEAST_DEVIATION)
    x = (x - mean) / spread
    responses = []
    for sd in SMOOTHED:
        smooth = _blur(x, sd)
        variance = np.maximum(_blur(x * x, sd) - smooth * smooth, 0)
        (across, _), (_, down) = (_slopes(slope) for slope in _slopes(smooth))
        responses += [smooth, np.log(variance + FLOOR), _blur((across + down) * np.float32(sd**2), 1.0)]
    for sd in EDGES:
        gx, gy = (slope * np.float32(8 * sd) for slope in _slopes(_blur(x, sd)))
        xx, yy, xy = (_blur(product, AROUND) for product in (gx * gx, gy * gy, gx * gy))
        for angle in DIRECTIONS:
            c, s = np.cos(angle), np.sin(angle)
            responses.append(np.log(np.maximum(c * c * xx + s * s * yy + 2 * c * s * xy, 0) + FLOOR))
    return np.stack([cell_means(np.asarray(one, np.float32)) for one in responses], -1)


def cell_means(plane: Plane) -> Plane:
    """(h, w) -> (h / 8, w / 8)."""
    h, w = plane.shape
    return np.asarray(plane.reshape(h // CELL, CELL, w // CELL, CELL).mean((1, 3)), np.float32)


def _blur(plane: Plane, sd: float) -> Plane:
    reach = int(np.ceil(4 * sd))
    return np.asarray(cv2.GaussianBlur(plane, (2 * reach + 1,) * 2, sd, borderType=cv2.BORDER_REFLECT_101), np.float32)


def _slopes(plane: Plane) -> tuple[Plane, Plane]:
    """Central differences along x and y, mirrored at the edges."""
    padded = np.pad(plane, 1, mode="reflect")
    half = np.float32(0.5)
    return (padded[1:-1, 2:] - padded[1:-1, :-2]) * half, (padded[2:, 1:-1] - padded[:-2, 1:-1]) * half
