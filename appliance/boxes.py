"""Boxes of a folder of frames: boxes.csv, or one COCO file -> boxes by file."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from appliance.errors import ApplianceError
from appliance.labels import LabelError, label_of, standing

BOXES_FILE = "boxes.csv"
# Names that corners have in the files of others; ends are exclusive, or a pixel more or less.
CORNERS = (
    ("x0", "y0", "x1", "y1"),
    ("x1", "y1", "x2", "y2"),
    ("xmin", "ymin", "xmax", "ymax"),
    ("x1", "y1", "x2_exclusive", "y2_exclusive"),
)
Box = tuple[float, float, float, float]
Boxes = dict[str, tuple[Box, ...]]


class BoxesError(ApplianceError):
    """Boxes cannot be read, or are none."""


def find_boxes(folder: Path) -> Path | None:
    """The folder's boxes.csv, else its one COCO file; None where there is neither.

    Raises:
        BoxesError: more than one COCO file.
    """
    if (folder / BOXES_FILE).is_file():
        return folder / BOXES_FILE
    found = [path for path in sorted(folder.glob("*.json")) if _is_coco(path)]
    if len(found) > 1:
        raise BoxesError(f"{folder}: {found[0].name} and {found[1].name} are both COCO, wanted one")
    return found[0] if found else None


def _is_coco(path: Path) -> bool:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(document, dict) and {"images", "annotations"} <= document.keys()


def read_boxes(path: Path) -> Boxes:
    """Boxes in pixels by file; a file with none is one on which there is nothing.

    A station's own COCO file says of each image whether anybody looked for boxes; those where nobody did are left out.

    Raises:
        BoxesError: no such columns, or a box that is none.
    """
    try:
        return _of_csv(path) if path.suffix == ".csv" else _of_coco(path)
    except (OSError, UnicodeDecodeError, csv.Error, LabelError) as error:
        raise BoxesError(f"{path}: {error}") from error


def _of_csv(path: Path) -> Boxes:
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        columns = reader.fieldnames or ()
        corners = next((names for names in CORNERS if {"file", *names} <= set(columns)), None)
        if corners is None:
            raise BoxesError(f"{path}: columns {', '.join(columns) or 'none'}, wanted file, {', '.join(CORNERS[0])}")
        found: dict[str, list[Box]] = {}
        for number, row in enumerate(reader, start=2):
            boxes = found.setdefault(row["file"], [])
            if any(row[corner] for corner in corners):  # a row without corners names a file on which there is nothing
                boxes.append(_box([row[corner] for corner in corners], f"{path.name} line {number}"))
    return {name: tuple(boxes) for name, boxes in found.items()}


def _of_coco(path: Path) -> Boxes:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        names: Mapping[Any, str] = {image["id"]: str(image["file_name"]) for image in document["images"]}
        found: dict[str, list[Box]] = {names[image["id"]]: [] for image in document["images"] if _says_where(image)}
        for annotation in document["annotations"]:
            x, y, w, h = annotation["bbox"]
            if (name := names.get(annotation["image_id"])) is None:
                raise BoxesError(
                    f"{path}: annotation {annotation.get('id')} is of image {annotation['image_id']}, which is not among the images"
                )
            found.setdefault(name, [])
            found[name].append(_box((x, y, x + w, y + h), f"{path.name}: annotation {annotation.get('id')} of {name}"))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BoxesError(f"{path}: no COCO file: {error!r}") from error
    return {name: tuple(boxes) for name, boxes in found.items()}


def _says_where(image: Mapping[str, Any]) -> bool:
    """Whether an image without annotations has nothing on it: of a station's export its labels say."""
    if not (ours := image.get("umbra")):
        return True
    holds = standing([label_of(fields) for fields in ours["labels"]]).label
    return holds is not None and holds.says_where


def _box(corners: Any, here: str) -> Box:
    try:
        x0, y0, x1, y1 = map(float, corners)
    except (TypeError, ValueError) as error:
        raise BoxesError(f"{here}: box {list(corners)}: {error}") from error
    if not (x0 < x1 and y0 < y1 and all(map(math.isfinite, (x0, y0, x1, y1)))):
        raise BoxesError(f"{here}: box {[x0, y0, x1, y1]} has no area, wanted x0 < x1 and y0 < y1")
    return x0, y0, x1, y1
