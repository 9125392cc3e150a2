"""What a simulated set shows, frame by frame: drawn by class shares, or by the tables of the dark-blemish paper."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from engines.classes import CLASSES
from engines.simulation.sensor import Sensor
from engines.simulation.visibility import CAPTURE_FAILED_LEVEL, HIGHEST_LEVEL, RATER_JITTER

TRAINING_MIX = {"OK": 0.50, "Spot": 0.26, "Diagonal": 0.14, "Error": 0.10}
# The classes of a set in which defects are as frequent as accuracy and F1 of the paper's Table 3 imply.
SENSOR_TEST_MIX = {"OK": 0.64, "Spot": 0.29, "Diagonal": 0.04, "Error": 0.03}
CLEAN_SHARE = 0.4  # of OK frames; the others carry a blemish too faint to see
RATED_FLOOR, RATED_CEILING = 2.5, 3.5  # levels between are ambiguous: in regression sets only
DIAGONAL_SHARE_OF_RATED = 0.15

TABLE_1 = {
    "train": {"OK": 24_343, "Spot": 3_456, "Diagonal": 161, "Error": 241},
    "validation": {"OK": 6_929, "Spot": 986, "Diagonal": 45, "Error": 69},
    "test": {"OK": 3_501, "Spot": 485, "Diagonal": 24, "Error": 36},
}
TABLE_2 = {  # frames of level 0, 1, .. 10
    "train": (835, 994, 569, 284, 294, 335, 264, 406, 760, 289, 194),
    "validation": (100, 113, 75, 29, 43, 40, 50, 45, 78, 48, 23),
    "test": (93, 109, 81, 40, 41, 48, 37, 36, 102, 30, 29),
}
TABLE_3 = {"A": 174, "B": 253, "C": 48, "D": 704, "E": 122, "F": 646}
FEWEST_TO_FIT = 100  # frames a sensor that Table 3's set adds to fit the conventional spec on


@dataclass(frozen=True, slots=True)
class Plan:
    """What one frame shall show.

    Attributes:
        class_name: OK, Spot, Diagonal or Error.
        level: true visibility, 0..9; 10 for Error.
        rating: the whole-number level a rater gives, 0..10; None: drawn when the frame is made.
    """

    class_name: str
    level: float
    rating: int | None = None


@dataclass(frozen=True, slots=True)
class FramePlan:
    """One frame of a set: sensor, plan and split (train, validation, test, or "" where the set is not split)."""

    sensor: str
    plan: Plan
    split: str = ""


def draw_level(class_name: str, sensor: Sensor, rng: np.random.Generator) -> float:
    """A level that frames of a class have on a sensor: four OK frames in ten clean, defects from faint to strong."""
    if class_name == "OK":
        return 0.0 if rng.random() < CLEAN_SHARE else float(rng.uniform(0, sensor.normal_level))
    if class_name == "Error":
        return float(CAPTURE_FAILED_LEVEL)
    return float(rng.uniform(*sensor.defect_levels))


def draw_plan(sensor: Sensor, rng: np.random.Generator, mix: Mapping[str, float]) -> Plan:
    """Draw a class by `mix` and a level by the sensor's ranges."""
    shares = np.array([mix[c] for c in CLASSES])
    class_name = str(rng.choice(CLASSES, p=shares / shares.sum()))
    return Plan(class_name, draw_level(class_name, sensor, rng))


def mixed_set(sensors: Sequence[Sensor], count: int, seed: int) -> list[FramePlan]:
    """Frames of sensors in turn, classes drawn by TRAINING_MIX; frame i does not depend on `count`."""
    return [
        FramePlan(sensor.name, draw_plan(sensor, np.random.default_rng((seed, i)), TRAINING_MIX))
        for i, sensor in ((i, sensors[i % len(sensors)]) for i in range(count))
    ]


def apportion(shares: Sequence[float], count: int) -> list[int]:
    """Whole numbers that add up to `count`, in proportion to shares (largest remainders)."""
    exact = np.asarray(shares, float) * count / np.sum(shares)
    whole = np.floor(exact).astype(int)
    whole[np.argsort(whole - exact, kind="stable")[: count - whole.sum()]] += 1
    return [int(n) for n in whole]


def classification_set(sensors: Sequence[Sensor], count: int | None, seed: int) -> list[FramePlan]:
    """The paper's Table 1: 40,276 frames, or `count` in the same proportions, in random order."""
    rng = np.random.default_rng((seed, 1))
    cells = [(split, name) for split, row in TABLE_1.items() for name in row]
    table = [n for row in TABLE_1.values() for n in row.values()]
    counts = table if count is None else apportion(table, count)
    order = [cell for cell, n in zip(cells, counts, strict=True) for _ in range(n)]
    frames = []
    for i, k in enumerate(rng.permutation(len(order))):
        split, name = order[k]
        sensor = sensors[i % len(sensors)]
        frames.append(FramePlan(sensor.name, Plan(name, draw_level(name, sensor, rng)), split))
    return frames


def regression_set(sensors: Sequence[Sensor], count: int | None, seed: int) -> list[FramePlan]:
    """The paper's Table 2: 6,514 frames by rated level, or `count` in the same proportions, in random order."""
    rng = np.random.default_rng((seed, 2))
    cells = [(split, rating) for split, row in TABLE_2.items() for rating in range(len(row))]
    table = [n for row in TABLE_2.values() for n in row]
    counts = table if count is None else apportion(table, count)
    order = [cell for cell, n in zip(cells, counts, strict=True) for _ in range(n)]
    return [
        FramePlan(sensors[i % len(sensors)].name, rated_plan(order[k][1], rng), order[k][0])
        for i, k in enumerate(rng.permutation(len(order)))
    ]


def rated_plan(rating: int, rng: np.random.Generator) -> Plan:
    """A frame that a rater gave `rating`: its true level is what rounding and jitter leave open, all levels alike."""
    if rating == CAPTURE_FAILED_LEVEL:
        return Plan("Error", float(CAPTURE_FAILED_LEVEL), rating)
    level = rating + rng.uniform(-0.5, 0.5) - rng.normal(0, RATER_JITTER)
    if rating == 0 and rng.random() < CLEAN_SHARE:
        level = 0.0
    level = float(np.clip(level, 0, HIGHEST_LEVEL))
    shape = "Diagonal" if rng.random() < DIAGONAL_SHARE_OF_RATED else "Spot"
    return Plan("OK" if level < (RATED_FLOOR + RATED_CEILING) / 2 else shape, level, rating)


def sensor_set(sensors: Sequence[Sensor], count: int | None, seed: int) -> list[FramePlan]:
    """The six-sensor test of the paper's Table 3: 1,947 test frames, or `count` in proportion; with training frames.

    The training frames, half as many but at least 100 a sensor, are what the conventional method's spec is fitted on.
    """
    rng = np.random.default_rng((seed, 3))
    sizes = [TABLE_3[sensor.name] for sensor in sensors]
    frames = []
    for sensor, n in zip(sensors, sizes if count is None else apportion(sizes, count), strict=True):
        for split, size in (("test", n), ("train", max(FEWEST_TO_FIT, n // 2))):
            for class_name, k in zip(CLASSES, apportion([SENSOR_TEST_MIX[c] for c in CLASSES], size), strict=True):
                frames += [
                    FramePlan(sensor.name, Plan(class_name, draw_level(class_name, sensor, rng)), split)
                    for _ in range(k)
                ]
    return [frames[k] for k in rng.permutation(len(frames))]


PAPER_SETS = {"classification": classification_set, "regression": regression_set, "sensors": sensor_set}
