"""Folders of frames with their truth: written by `umbra simulate`, read by `train` and `evaluate`."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from appliance.decode import read_frame
from appliance.errors import ApplianceError
from appliance.formats import FORMATS, fits_format, write_frame
from appliance.frame import Frame
from appliance.settings import Settings
from engines.classes import CLASSES
from engines.simulation import (
    PAPER_MIX,
    RATED_CEILING,
    RATED_FLOOR,
    SENSORS,
    TRAINING_MIX,
    Plan,
    Sensor,
    draw_plan,
    simulate,
)

TRUTH_FILE = "truth.csv"
COLUMNS = ("file", "sensor", "lot", "class", "kind", "level", "true_level", "boxes", "width", "height", "bits", "seed")


class DataSetError(ApplianceError):
    """A folder's truth is missing, names files that are not there, or holds values out of range."""


@dataclass(frozen=True, slots=True)
class SimulationPlan:
    """What `umbra simulate` writes.

    Attributes:
        out: folder.
        sensors: names out of A..F, drawn evenly.
        seed: of the set.
        formats: used in turn.
        paper_mix: class shares of the paper's Table 1 instead of half OK.
    """

    out: Path
    sensors: tuple[str, ...]
    seed: int
    formats: tuple[str, ...]
    paper_mix: bool

    def __post_init__(self) -> None:
        if unknown := [s for s in self.sensors if s not in SENSORS]:
            raise DataSetError(f"sensor {', '.join(unknown)}: wanted some of {', '.join(SENSORS)}")
        if unknown := [f for f in self.formats if f not in FORMATS]:
            raise DataSetError(f"format {', '.join(unknown)}: wanted some of {', '.join(FORMATS)}")
        for sensor in self.sensors:
            if not any(fits_format(f, SENSORS[sensor].bits) for f in self.formats):
                raise DataSetError(
                    f"sensor {sensor} has {SENSORS[sensor].bits} bits: {', '.join(self.formats)} holds fewer"
                )


def _draw(seed: int, index: int, sensors: tuple[str, ...], *, paper_mix: bool) -> tuple[Sensor, Plan]:
    sensor = SENSORS[sensors[index % len(sensors)]]
    return sensor, draw_plan(sensor, np.random.default_rng((seed, index)), PAPER_MIX if paper_mix else TRAINING_MIX)


def planned_class(seed: int, index: int, sensors: tuple[str, ...]) -> str:
    """Class of a frame that write_simulated would write."""
    return _draw(seed, index, sensors, paper_mix=False)[1].class_name


def _write_one(task: tuple[SimulationPlan, int]) -> dict[str, object]:
    plan, index = task
    sensor, drawn = _draw(plan.seed, index, plan.sensors, paper_mix=plan.paper_mix)
    frame = simulate(sensor, drawn, seed=(plan.seed, index, 7))
    usable = [f for f in plan.formats if fits_format(f, sensor.bits)]
    lot = f"L{plan.seed % 1000:03d}"
    stem = f"{sensor.name}{index:05d}_W{1 + index // 200:02d}_X{index % 20}_Y{index // 20 % 10}"
    path = write_frame(plan.out / sensor.name / lot, stem, frame.samples, bits=sensor.bits,
                       format_name=usable[sum(divmod(index, len(plan.sensors))) % len(usable)])  # fmt: skip
    truth = frame.truth
    values = (
        path.relative_to(plan.out).as_posix(), sensor.name, lot, truth.class_name, truth.kind, truth.rating,
        round(truth.level, 4), json.dumps(truth.boxes), sensor.width, sensor.height, sensor.bits, plan.seed,
    )  # fmt: skip
    return dict(zip(COLUMNS, values, strict=True))


def write_simulated(plan: SimulationPlan, count: int, *, workers: int, progress: Callable[[], None]) -> Path:
    """Write frames and truth.csv; the same plan writes the same files.

    Returns:
        The path of truth.csv, whose `level` is a rater's whole number and `true_level` the simulated one.
    """
    plan.out.mkdir(parents=True, exist_ok=True)
    truth = plan.out / TRUTH_FILE
    if truth.exists():
        raise DataSetError(f"{truth}: there is a data set already; choose another folder")
    with (
        truth.open("w", newline="", encoding="utf-8") as file,
        ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool,
    ):
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        for row in pool.map(_write_one, [(plan, index) for index in range(count)]):
            writer.writerow(row)
            progress()
    return truth


@dataclass(frozen=True, slots=True)
class TruthRow:
    """One line of truth.csv (or labels.csv).

    Attributes:
        file: relative path.
        sensor: product, or "all" where the file has no such column.
        class_name: OK, Spot, Diagonal or Error.
        level: whole-number rating, 0..10, or None.
        true_level: as simulated; else the level.
        kind: of the pattern, or "".
        boxes: (x0, y0, x1, y1), pixels.
    """

    file: str
    sensor: str
    class_name: str
    level: float | None
    true_level: float | None
    kind: str
    boxes: tuple[tuple[float, float, float, float], ...]


def read_truth(folder: Path) -> list[TruthRow]:
    """All rows of a folder's truth.csv or labels.csv, checked.

    Raises:
        DataSetError: no such file, no rows, an unknown class, a level outside 0..10, or a file that is not there.
    """
    paths = [folder / name for name in (TRUTH_FILE, "labels.csv") if (folder / name).is_file()]
    if not paths:
        raise DataSetError(f"{folder}: neither {TRUTH_FILE} nor labels.csv there")
    with paths[0].open(newline="", encoding="utf-8") as file:
        rows = [_row(paths[0], number, row) for number, row in enumerate(csv.DictReader(file), start=2)]
    if not rows:
        raise DataSetError(f"{paths[0]}: no rows")
    if missing := [row.file for row in rows if not (folder / row.file).is_file()]:
        raise DataSetError(f"{paths[0]}: {len(missing)} of {len(rows)} files are not there, the first is {missing[0]}")
    return rows


def _row(path: Path, number: int, row: dict[str, str]) -> TruthRow:
    here = f"{path.name} line {number}"
    try:
        name, class_name = row["file"], row["class"]
    except KeyError as error:
        raise DataSetError(f"{here}: no column {error}, wanted at least file and class") from error
    if class_name not in CLASSES:
        raise DataSetError(f"{here}: class {class_name!r}, wanted one of {', '.join(CLASSES)}")
    try:
        level = float(row["level"]) if row.get("level") else None
        true_level = float(row["true_level"]) if row.get("true_level") else level
        boxes = tuple(tuple(box) for box in json.loads(row.get("boxes") or "[]"))
    except ValueError as error:
        raise DataSetError(f"{here}: {error}") from error
    if level is not None and not 0 <= level <= 10:
        raise DataSetError(f"{here}: level {level}, wanted 0..10")
    return TruthRow(name, row.get("sensor") or "all", class_name, level, true_level, row.get("kind") or "", boxes)


def is_ambiguous(row: TruthRow) -> bool:
    """Within half a level of the OK/NG border."""
    return row.class_name != "Error" and row.true_level is not None and RATED_FLOOR < row.true_level < RATED_CEILING


def frames_of(folder: Path, rows: Sequence[TruthRow]) -> Iterator[tuple[TruthRow, Frame]]:
    """Read the frames of a data set one after another."""
    settings = Settings()
    for row in rows:
        yield row, read_frame(folder / row.file, row.file, settings)
