"""Simulated dark frames with their truth: class, level, boxes (docs/simulation.md)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engines.classes import CLASSES
from engines.simulation import blemish, failure, visibility
from engines.simulation.plans import (
    PAPER_SETS,
    RATED_CEILING,
    RATED_FLOOR,
    SENSOR_TEST_MIX,
    TRAINING_MIX,
    FramePlan,
    Plan,
    draw_plan,
    mixed_set,
)
from engines.simulation.sensor import SENSORS, Sensor, expose, quantise

__all__ = [
    "CLASSES",
    "PAPER_SETS",
    "RATED_CEILING",
    "RATED_FLOOR",
    "SENSORS",
    "SENSOR_TEST_MIX",
    "SIMULATION_VERSION",
    "TRAINING_MIX",
    "FramePlan",
    "Plan",
    "Sensor",
    "SimulatedFrame",
    "Truth",
    "draw_plan",
    "mixed_set",
    "simulate",
]

SIMULATION_VERSION = 2  # another number: the same seed gives other frames
DIAGONAL_SHARE_OF_FAINT = 0.15


@dataclass(frozen=True, slots=True)
class Truth:
    """What was put into a frame.

    Attributes:
        class_name: OK, Spot, Diagonal or Error.
        kind: kind of the pattern or failure; "none" where clean.
        level: true visibility, 0..9, or 10 for Error.
        rating: the whole-number level that a rater gave, 0..10.
        boxes: (x0, y0, x1, y1) in pixels, ends exclusive; of visible patterns (level >= 2.5) and failures.
    """

    class_name: str
    kind: str
    level: float
    rating: int
    boxes: tuple[tuple[int, int, int, int], ...]


@dataclass(frozen=True, slots=True)
class SimulatedFrame:
    """(h, w) uint16 samples, DN, of a sensor, and their truth."""

    samples: NDArray[np.uint16]
    sensor: Sensor
    truth: Truth


def _draw_pattern(plan: Plan, sensor: Sensor, rng: np.random.Generator) -> tuple[blemish.Pattern, str]:
    """The plan's pattern at its level, in noise units of a cell, and its kind; zeros where clean or Error."""
    shape = plan.class_name
    if shape == "OK" and plan.level > 0:
        shape = "Diagonal" if rng.random() < DIAGONAL_SHARE_OF_FAINT else "Spot"
    if shape not in visibility.JND:
        return np.zeros((visibility.GRID, visibility.GRID), np.float32), "none"
    pattern, kind = blemish.spot(rng, sensor.spot_radius) if shape == "Spot" else blemish.diagonal(rng)
    return blemish.at_level(pattern, plan.level, shape), kind


def simulate(
    sensor: Sensor,
    plan: Plan,
    *,
    seed: int | tuple[int, ...],
    frames: int = 1,
    nuisance: float = 1.0,
    shading: float = 1.0,
    exposure: int = 0,
) -> SimulatedFrame:
    """Expose one die of a sensor once.

    Args:
        sensor: the model.
        plan: class and level.
        seed: of the die; the same seed and exposure give the same frame.
        frames: exposures averaged into this frame, >= 1.
        nuisance: factor on shading, glow, line noise and hot pixel density.
        shading: further factor on shading and glow.
        exposure: number of the exposure of the same die; fixed pattern and blemish stay, temporal noise changes.
    """
    words = seed if isinstance(seed, tuple) else (seed,)
    draw = np.random.default_rng((*words, 1))
    die = np.random.Generator(np.random.SFC64((*words, 2)))
    shot = np.random.Generator(np.random.SFC64((*words, 3, exposure)))
    pattern, kind = _draw_pattern(plan, sensor, draw)
    exposed = expose(sensor, pattern, die=die, exposure=shot, frames=frames, nuisance=nuisance, shading=shading)
    shares = blemish.boxes_of(pattern) if kind != "none" and plan.level >= RATED_FLOOR else []
    if plan.class_name == "Error":
        kind, shares = failure.fail(
            exposed.signal_dn, draw, sigma_dn=exposed.sigma_dn, top_dn=float((1 << sensor.bits) - 1)
        )
    if plan.rating is not None:
        rating = plan.rating
    else:
        rating = visibility.CAPTURE_FAILED_LEVEL if plan.class_name == "Error" else visibility.rate(plan.level, draw)
    truth = Truth(plan.class_name, kind, plan.level, rating, tuple(_to_pixels(s, sensor) for s in shares))
    return SimulatedFrame(quantise(exposed.signal_dn, sensor.bits), sensor, truth)


def _to_pixels(share: tuple[float, float, float, float], sensor: Sensor) -> tuple[int, int, int, int]:
    x0, y0, x1, y1 = share
    return (
        int(np.floor(x0 * sensor.width)), int(np.floor(y0 * sensor.height)),
        int(np.ceil(x1 * sensor.width)), int(np.ceil(y1 * sensor.height)),
    )  # fmt: skip
