"""Folders of frames with their truth: written by `umbra simulate`, read by `umbra train` and `umbra evaluate`."""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from appliance.boxes import BOXES_FILE, Box, Boxes, find_boxes, read_boxes
from appliance.class_map import CLASS_MAP_FILE, LEFT_OUT, ClassMap
from appliance.errors import ApplianceError
from appliance.frame import Frame
from appliance.reading import read_frame
from appliance.settings import Settings
from engines.simulation import RATED_CEILING, RATED_FLOOR
from engines.training.data import Pictures

TRUTH_FILE, LABELS_FILE = "truth.csv", "labels.csv"
SPLITS = ("train", "validation", "test")
VALIDATION_EVERY = 8


class DataSetError(ApplianceError):
    """A folder's truth is missing, names files that are not there, or holds values out of range."""


@dataclass(frozen=True, slots=True)
class TruthRow:
    """One line of truth.csv (or labels.csv).

    Attributes:
        file: relative path.
        sensor: product, or "all" where the file has no such column.
        class_name: OK, Spot, Diagonal or Error.
        level: whole-number rating, 0..10, or None.
        true_level: as simulated; else the level (None for pictures, whose levels have no ambiguous middle).
        kind: of the pattern, or "".
        boxes: (x0, y0, x1, y1), pixels.
        split: train, validation, test, or "".
        group: rows of one group stay together when the set is divided; the file where nothing is known.
    """

    file: str
    sensor: str
    class_name: str
    level: float | None
    true_level: float | None
    kind: str
    boxes: tuple[Box, ...]
    split: str
    group: str

    @property
    def ambiguous(self) -> bool:
        """Within half a level of the OK/NG border."""
        return self.class_name != "Error" and self.true_level is not None and (
            RATED_FLOOR < self.true_level < RATED_CEILING
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class DataSet:
    """A folder of frames with their truth.

    Attributes:
        folder: of the files.
        rows: their truth.
        pictures: what ordinary pictures may be turned to; None for raw frames.
    """

    folder: Path
    rows: tuple[TruthRow, ...]
    pictures: Pictures | None = None

    @classmethod
    def read(cls, folder: Path, class_map: Path | None = None) -> DataSet:
        """All rows of a folder's truth.csv or labels.csv, checked; boxes from there, else from boxes.csv or a COCO file.

        A folder with boxes alone has a row for each file they name: Spot where there are boxes, OK where there are none.

        Args:
            folder: of the set.
            class_map: how to read the columns and classes; default: the folder's classes.toml, or Umbra's own words.

        Raises:
            ClassMapError: the class map cannot be read.
            BoxesError: boxes cannot be read.
            DataSetError: no such file, no UTF-8, no rows, an unknown class or split, a level outside 0..10, or a missing frame.
        """
        boxes_path = find_boxes(folder)
        paths = [folder / name for name in (TRUTH_FILE, LABELS_FILE) if (folder / name).is_file()]
        if not paths and boxes_path is None:
            raise DataSetError(
                f"{folder}: neither {TRUTH_FILE} nor {LABELS_FILE} nor {BOXES_FILE} nor a COCO file there"
            )
        if class_map is None and (folder / CLASS_MAP_FILE).is_file():
            class_map = folder / CLASS_MAP_FILE
        words = ClassMap() if class_map is None else ClassMap.read(class_map)
        boxes = {} if boxes_path is None else read_boxes(boxes_path)
        if paths:
            lines = _lines(paths[0])
            read = [_row(paths[0], number, line, words, boxes) for number, line in enumerate(lines, start=2)]
            rows = tuple(row for row in read if row is not None)
            if strangers := sorted(boxes.keys() - {line["file"] for line in lines}):
                raise DataSetError(f"{boxes_path}: boxes of {strangers[0]}, which {paths[0].name} does not name")
        else:
            rows = tuple(_boxed_row(words.file.format(file=name), found) for name, found in boxes.items())
        source = paths[0] if paths else boxes_path
        if not rows:
            raise DataSetError(f"{source}: no rows")
        if missing := [row.file for row in rows if not (folder / row.file).is_file()]:
            raise DataSetError(
                f"{source}: {len(missing)} of {len(rows)} files are not there, the first is {missing[0]}"
            )
        return cls(folder, rows, words.pictures)

    @property
    def is_split(self) -> bool:
        """Whether any row says which split it belongs to."""
        return any(row.split for row in self.rows)

    def of_split(self, split: str) -> list[TruthRow]:
        """The rows of a split; all of them for "all", or where the set is not split.

        Raises:
            DataSetError: the set is split and has no such rows.
        """
        if split == "all" or not self.is_split:
            return list(self.rows)
        rows = [row for row in self.rows if row.split == split]
        if not rows:
            raise DataSetError(f"{self.folder}: no frame of split {split!r}")
        return rows

    def fold(self, number: int, folds: int) -> DataSet:
        """The set split for cross-validation: fold `number` of `folds` is test, an eighth of the rest validation.

        Groups are dealt out class by class in an order that depends on their names alone; none is divided.

        Raises:
            DataSetError: the numbers do not fit, or there are fewer groups than folds.
        """
        if not (folds >= 2 and 1 <= number <= folds):
            raise DataSetError(f"fold {number}/{folds}: wanted 1/N to N/N, N at least 2")
        groups = self._groups()
        if len(groups) < folds:
            raise DataSetError(
                f"{self.folder}: {len(groups)} groups of frames, wanted at least {folds} for as many folds"
            )
        test = set(groups[number - 1 :: folds])
        return self._divided([group for group in groups if group not in test], test)

    def divided(self) -> DataSet:
        """The set split for training: one group in eight is validation, class by class.

        Raises:
            DataSetError: there are too few groups.
        """
        groups = self._groups()
        if len(groups) < VALIDATION_EVERY:
            raise DataSetError(
                f"{self.folder}: {len(groups)} groups of frames, wanted at least {VALIDATION_EVERY} to keep one for validation"
            )
        return self._divided(groups, set())

    def _groups(self) -> list[str]:
        """All groups, class by class, in an order that depends on their names alone."""
        labels = {row.group: row.class_name for row in self.rows}
        return sorted(labels, key=lambda group: (labels[group], hashlib.sha256(group.encode()).digest()))

    def _divided(self, rest: list[str], test: set[str]) -> DataSet:
        validation = set(rest[VALIDATION_EVERY - 1 :: VALIDATION_EVERY])
        split = dict.fromkeys(test, "test") | {g: "validation" if g in validation else "train" for g in rest}
        return replace(self, rows=tuple(replace(row, split=split[row.group]) for row in self.rows))

    def frames(self, rows: Iterable[TruthRow]) -> Iterator[tuple[TruthRow, Frame]]:
        """Read the frames of rows one after another."""
        settings = Settings()
        for row in rows:
            yield row, read_frame(self.folder / row.file, row.file, settings)


def _lines(path: Path) -> list[dict[str, str]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            return list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataSetError(f"{path}: {error}") from error


def _boxed_row(file: str, boxes: tuple[Box, ...]) -> TruthRow:
    """What boxes alone say of a file."""
    return TruthRow(file, "all", "Spot" if boxes else "OK", None, None, "", boxes, "", file)


def _row(path: Path, number: int, row: dict[str, str], words: ClassMap, known: Boxes) -> TruthRow | None:
    """A line in Umbra's words; None where the class map leaves it out."""
    here = f"{path.name} line {number}"
    try:
        name, label = words.file.format(file=row["file"]), row[words.label]
    except KeyError as error:
        raise DataSetError(f"{here}: no column {error}, wanted at least file and {words.label}") from error
    if label not in words.classes:
        raise DataSetError(f"{here}: class {label!r}, wanted one of {', '.join(words.classes)}")
    if words.classes[label] == LEFT_OUT:
        return None

    def column(key: str | None) -> str:
        return (row.get(key) or "") if key else ""

    try:
        level = float(column(words.level)) * words.level_scale if column(words.level) else None
        true_level = float(row["true_level"]) if row.get("true_level") else None if words.pictures else level
        boxes = _boxes(row.get("boxes") or "[]") or known.get(row["file"], ())
    except ValueError as error:
        raise DataSetError(f"{here}: {error}") from error
    if level is not None and not 0 <= level <= 10:
        raise DataSetError(f"{here}: level {level}, wanted 0..10")
    split = row.get("split") or ""
    if split not in ("", *SPLITS):
        raise DataSetError(f"{here}: split {split!r}, wanted one of {', '.join(SPLITS)}")
    return TruthRow(
        name, column(words.sensor) or "all", words.classes[label], level, true_level, row.get("kind") or "", boxes,
        split, column(words.group) or name,
    )  # fmt: skip


def _boxes(text: str) -> tuple[Box, ...]:
    """The boxes of a JSON array of [x0, y0, x1, y1].

    Raises:
        ValueError: it is anything else, or a box without area.
    """
    read = json.loads(text)
    for box in read if isinstance(read, list) else [read]:
        numbers = isinstance(box, list) and len(box) == 4 and all(isinstance(v, (int, float)) for v in box)
        if not (numbers and box[0] < box[2] and box[1] < box[3]):
            raise ValueError(f"box {json.dumps(box)}, wanted [x0, y0, x1, y1] with x0 < x1 and y0 < y1")
    return tuple((float(x0), float(y0), float(x1), float(y1)) for x0, y0, x1, y1 in read)
