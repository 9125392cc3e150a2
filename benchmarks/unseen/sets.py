"""The three real sets with boxes (circuit boards, steel strip, magnetic tiles) as images of 224 pixels; evaluation only."""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from appliance.training_sets import read_picture
from kernels import IMAGE_SIDE

TILE = 320  # pixels of a circuit board's tile: at 224 pixels a defect of a whole board would be 7 pixels wide
DEVIATION = 16.0  # of 255: eight deviations either way fit
SMALLEST_PART = 6  # pixels of a box that a tile cuts, below which it is left out
CORNERS = {
    "deeppcb": ("x1", "y1", "x2", "y2"),
    "neu_det": ("xmin", "ymin", "xmax", "ymax"),
    "magnetic_tile": ("x1", "y1", "x2_exclusive", "y2_exclusive"),
}
Box = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class Picture:
    """One image with its boxes.

    Attributes:
        name: file, and tile of it.
        group: pictures that look alike, or are of one board; never divided between parts.
        image: (224, 224) uint8, 127.5 at the set's mean, 16 a standard deviation of the set.
        boxes: (k, 4) float32 in pixels of the image.
        classes: one for each box.
        scale: (x, y) pixels of the image for one of the file.
    """

    name: str
    group: str
    image: NDArray[np.uint8]
    boxes: NDArray[np.float32]
    classes: tuple[str, ...]
    scale: tuple[float, float]


Read = tuple[NDArray[np.float32], Picture]  # grey values at 224 pixels, and all else


def pictures(name: str, data: Path) -> list[Picture]:
    """All pictures of a set, in the order of their files.

    One mean and deviation for the whole set: boards are black and white, and a deviation for each would follow how much of each.
    """
    read = list(_READERS[name](data / name))
    greys = np.stack([grey for grey, _ in read])
    mean, deviation = float(greys.mean()), float(greys.std())
    images = np.clip(np.rint(127.5 + (greys - mean) / deviation * DEVIATION), 0, 255).astype(np.uint8)
    return [replace(picture, image=image) for (_, picture), image in zip(read, images, strict=True)]


def _boxes(folder: Path) -> dict[str, list[tuple[Box, str]]]:
    found: dict[str, list[tuple[Box, str]]] = defaultdict(list)
    with (folder / "boxes.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            x0, y0, x1, y1 = (float(row[corner]) for corner in CORNERS[folder.name])
            found[row["file"]].append(((x0, y0, x1, y1), row["class"]))
    return found


def _picture(name: str, group: str, grey: NDArray[np.uint16], boxes: list[tuple[Box, str]]) -> Read:
    height, width = grey.shape
    scale = IMAGE_SIDE / width, IMAGE_SIDE / height
    corners = np.array([box for box, _ in boxes], np.float32).reshape(-1, 4) * np.array([*scale, *scale], np.float32)
    how = cv2.INTER_AREA if max(grey.shape) > IMAGE_SIDE else cv2.INTER_LINEAR
    resized = cv2.resize(grey.astype(np.float32), (IMAGE_SIDE, IMAGE_SIDE), interpolation=how)
    return resized, Picture(name, group, np.empty(0, np.uint8), corners, tuple(c for _, c in boxes), scale)


def _boards(folder: Path) -> Iterator[Read]:
    """Four tiles of each board; a box that is cut stays where enough of it is left."""
    boxes = _boxes(folder)
    with (folder / "images.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            grey = read_picture(folder / "images" / row["file"])
            for y in range(0, grey.shape[0] - TILE + 1, TILE):
                for x in range(0, grey.shape[1] - TILE + 1, TILE):
                    inside = [(_cut(box, x, y), c) for box, c in boxes.get(row["file"], ())]
                    kept = [(box, c) for box, c in inside if min(box[2] - box[0], box[3] - box[1]) >= SMALLEST_PART]
                    tile = grey[y : y + TILE, x : x + TILE]
                    yield _picture(f"{row['file']}:{x},{y}", row["file"], tile, kept)


def _cut(box: Box, x: int, y: int) -> Box:
    x0, x1 = (float(np.clip(v - x, 0, TILE)) for v in (box[0], box[2]))
    y0, y1 = (float(np.clip(v - y, 0, TILE)) for v in (box[1], box[3]))
    return x0, y0, x1, y1


def _whole(folder: Path) -> Iterator[Read]:
    boxes = _boxes(folder)
    with (folder / "labels.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            grey = read_picture(folder / "images" / row["file"])
            group = row.get("near_duplicate_group") or row["file"]
            yield _picture(row["file"], f"{row['class']} {group}", grey, boxes.get(row["file"], []))


_READERS: dict[str, Callable[[Path], Iterator[Read]]] = {"deeppcb": _boards, "neu_det": _whole, "magnetic_tile": _whole}
