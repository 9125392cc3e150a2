"""The three real sets with boxes (circuit boards, steel strip, magnetic tiles) as images of 224 pixels; evaluation only."""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from appliance.training_sets import read_picture
from engines.training.data import Pictures
from kernels import IMAGE_SIDE

# Pixels a side of what becomes one image, or None where a file does: so a defect of a whole board is 14 pixels wide and
# not 7, and grooves of every tile are equally wide, whatever its shape.
WINDOWS: dict[str, int | None] = {"deeppcb": 320, "neu_det": None, "magnetic_tile": IMAGE_SIDE}
TURNS = {"deeppcb": Pictures.TURNED, "neu_det": Pictures.TURNED, "magnetic_tile": Pictures.UPRIGHT}  # tiles are ground
DEVIATION = 16.0  # of 255: eight deviations either way fit
# Of a box that a window cuts, the share of it, or of the window, that must be inside: windows with less are left out, for
# nobody could say whether they show the defect.
PART_OF_BOX, PART_OF_WINDOW = 0.4, 0.2
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
        name: file, and window of it.
        group: pictures that look alike, or are windows of one file; never divided between parts. All circuit boards are of
            seven designs, which parts share.
        image: (224, 224) uint8, 127.5 at its file's mean, 16 a standard deviation of it: exposures differ.
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


def pictures(name: str, data: Path) -> list[Picture]:
    """All pictures of a set, in the order of their files."""
    folder = data / name
    boxes = _boxes(folder)
    return [
        picture
        for file, group in _files(folder)
        for picture in _pictures(name, file, group, read_picture(folder / "images" / file), boxes.get(file, []))
    ]


def _files(folder: Path) -> list[tuple[str, str]]:
    """Names of the files, with their groups."""
    listed = folder / ("images.csv" if folder.name == "deeppcb" else "labels.csv")
    with listed.open(newline="") as file:
        rows = list(csv.DictReader(file))
    if folder.name == "deeppcb":
        return [(row["file"], row["file"]) for row in rows]
    return [(row["file"], row.get("near_duplicate_group") or row["file"]) for row in rows]


def _boxes(folder: Path) -> dict[str, list[tuple[Box, str]]]:
    found: dict[str, list[tuple[Box, str]]] = defaultdict(list)
    with (folder / "boxes.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            x0, y0, x1, y1 = (float(row[corner]) for corner in CORNERS[folder.name])
            found[row["file"]].append(((x0, y0, x1, y1), row["class"]))
    return found


def _pictures(
    name: str, file: str, group: str, grey: NDArray[np.uint16], boxes: list[tuple[Box, str]]
) -> Iterator[Picture]:
    """The windows of a file with what is left of its boxes."""
    values = (grey.astype(np.float32) - grey.mean()) / max(1.0, float(grey.std()))
    window = WINDOWS[name]
    if window is None:
        yield _picture(file, group, values, boxes)
        return
    lacking = [max(0, window - side) for side in values.shape]
    before = [side // 2 for side in lacking]
    values = np.pad(values, [(a, side - a) for a, side in zip(before, lacking, strict=True)])
    boxes = [((x0 + before[1], y0 + before[0], x1 + before[1], y1 + before[0]), c) for (x0, y0, x1, y1), c in boxes]
    for y in _starts(values.shape[0], window):
        for x in _starts(values.shape[1], window):
            parts = [(box, _cut(box, x, y, window), c) for box, c in boxes]
            touched = [(whole, part, c) for whole, part, c in parts if _area(part) > 0]
            enough = [
                _area(part) >= min(PART_OF_BOX * _area(whole), PART_OF_WINDOW * window**2) for whole, part, _ in touched
            ]
            if all(enough):
                kept = [(part, c) for _, part, c in touched]
                yield _picture(f"{file}:{x},{y}", group, values[y : y + window, x : x + window], kept)


def _starts(side: int, window: int) -> list[int]:
    """Where windows begin: as many as the side needs, evenly, the last at its end."""
    return [round(v) for v in np.linspace(0, side - window, -(-side // window))]


def _cut(box: Box, x: int, y: int, window: int) -> Box:
    x0, x1 = (float(np.clip(v - x, 0, window)) for v in (box[0], box[2]))
    y0, y1 = (float(np.clip(v - y, 0, window)) for v in (box[1], box[3]))
    return x0, y0, x1, y1


def _area(box: Box) -> float:
    return max(0.0, box[2] - box[0]) * max(0.0, box[3] - box[1])


def _picture(name: str, group: str, values: NDArray[np.float32], boxes: list[tuple[Box, str]]) -> Picture:
    height, width = values.shape
    scale = IMAGE_SIDE / width, IMAGE_SIDE / height
    corners = np.array([box for box, _ in boxes], np.float32).reshape(-1, 4) * np.array([*scale, *scale], np.float32)
    how = cv2.INTER_AREA if max(values.shape) > IMAGE_SIDE else cv2.INTER_LINEAR
    resized = cv2.resize(values, (IMAGE_SIDE, IMAGE_SIDE), interpolation=how)
    image = np.clip(np.rint(127.5 + resized * DEVIATION), 0, 255).astype(np.uint8)
    return Picture(name, group, image, corners, tuple(c for _, c in boxes), scale)
