"""Blemish patterns, Spot and Diagonal, on the 128 grid, and their boxes."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from engines.simulation.visibility import GRID, cnr_of, contrast_to_noise

Pattern = NDArray[np.float32]
BOX_SHARE = 0.25  # a box holds what is above this share of the pattern's peak

_YY, _XX = np.mgrid[0:GRID, 0:GRID].astype(np.float32) / GRID
OFF_AXIS_DEG = 8.0
BAND_WIDTH = (0.01, 0.08)  # Gaussian SD, as a share of the frame
SPOT_KINDS = {"irregular": 0.45, "multi": 0.2, "disc": 0.2, "ring": 0.15}


def _blob(cx: float, cy: float, radius: float, *, ratio: float, angle: float, power: float = 2.0) -> Pattern:
    c, s = np.cos(angle), np.sin(angle)
    u = ((_XX - cx) * c + (_YY - cy) * s) / radius
    v = (-(_XX - cx) * s + (_YY - cy) * c) / (radius * ratio)
    return np.asarray(np.exp(-0.5 * (u * u + v * v) ** (power / 2)), np.float32)


def _irregular(rng: np.random.Generator, radius: float, cx: float, cy: float) -> Pattern:
    pattern = np.zeros((GRID, GRID), np.float32)
    for _ in range(rng.integers(3, 7)):
        dx, dy = rng.normal(size=2) * radius * 0.7
        pattern += rng.uniform(0.5, 1) * _blob(
            cx + dx, cy + dy, radius * rng.uniform(0.4, 1), ratio=rng.uniform(0.6, 1.6), angle=rng.uniform(0, np.pi)
        )
    return pattern


def _multi(rng: np.random.Generator, radius: float) -> Pattern:
    pattern = np.zeros((GRID, GRID), np.float32)
    for _ in range(rng.integers(2, 6)):
        cx, cy = rng.uniform(0.05, 0.95, 2)
        pattern += rng.uniform(0.5, 1) * _blob(
            cx, cy, radius * rng.uniform(0.5, 1), ratio=rng.uniform(0.7, 1.4), angle=rng.uniform(0, np.pi)
        )
    return pattern


def _ring(rng: np.random.Generator, radius: float, cx: float, cy: float) -> Pattern:
    distance = np.hypot(_XX - cx, (_YY - cy) * rng.uniform(0.8, 1.25))
    return np.asarray(np.exp(-0.5 * ((distance - 1.5 * radius) / (radius * rng.uniform(0.3, 0.5))) ** 2), np.float32)


def spot(rng: np.random.Generator, radius: tuple[float, float]) -> tuple[Pattern, str]:
    """A spot of either sign, peak about 1: (128, 128) pattern and its kind (irregular, multi, disc, ring).

    Args:
        rng: draws everything.
        radius: smallest and largest radius, as a share of the frame; drawn log-uniformly.
    """
    kind = str(rng.choice(list(SPOT_KINDS), p=list(SPOT_KINDS.values())))
    cx, cy = rng.uniform(0.04, 0.96, 2)
    r = float(np.exp(rng.uniform(*np.log(radius))))
    if kind == "irregular":
        pattern = _irregular(rng, r, cx, cy)
    elif kind == "multi":
        pattern = _multi(rng, r)
    elif kind == "ring":
        pattern = _ring(rng, r, cx, cy)
    else:
        pattern = _blob(cx, cy, r, ratio=rng.uniform(0.6, 1.6), angle=rng.uniform(0, np.pi), power=rng.choice([2, 4]))
    return pattern * np.float32(rng.choice([-1, 1])), kind


def diagonal(rng: np.random.Generator) -> tuple[Pattern, str]:
    """One to three oblique bands of either sign: (128, 128) pattern and its kind (streak where narrow, else band).

    Any angle but those within 8 degrees of a row or a column, where a band cannot be told from the lines of a read-out.
    """
    angle = np.deg2rad(rng.uniform(OFF_AXIS_DEG, 90 - OFF_AXIS_DEG) + rng.choice([0, 90]))
    cx, cy = rng.uniform(0.2, 0.8, 2)
    width = float(np.exp(rng.uniform(*np.log(BAND_WIDTH))))
    half_length = rng.uniform(0.25, 1.0)
    along = (_XX - cx) * np.cos(angle) + (_YY - cy) * np.sin(angle)
    across = -(_XX - cx) * np.sin(angle) + (_YY - cy) * np.cos(angle)
    pattern = np.zeros((GRID, GRID), np.float32)
    spacing = width * rng.uniform(3, 5)
    for i in range(rng.choice([1, 1, 2, 3])):
        ends = 1 / (1 + np.exp((np.abs(along) - half_length) / 0.05))
        pattern += rng.uniform(0.6, 1) * np.exp(-0.5 * ((across - i * spacing) / width) ** 2) * ends
    return pattern * np.float32(rng.choice([-1, 1])), "streak" if width < 0.027 else "band"


def at_level(pattern: Pattern, level: float, shape: str) -> Pattern:
    """The pattern scaled so that its visibility is `level` (eq. 11-12), in noise units of a cell."""
    return pattern * np.float32(cnr_of(level, shape) / contrast_to_noise(pattern))


def boxes_of(pattern: Pattern) -> list[tuple[float, float, float, float]]:
    """Boxes (x0, y0, x1, y1) of a pattern's connected parts, as shares of the frame; ends exclusive."""
    mask = (np.abs(pattern) > BOX_SHARE * np.abs(pattern).max()).astype(np.uint8)
    count, _, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    parts = stats[1:count]
    return [
        (x / GRID, y / GRID, (x + w) / GRID, (y + h) / GRID)
        for x, y, w, h, area in parts[np.argsort(-parts[:, cv2.CC_STAT_AREA], kind="stable")].tolist()
        if area > 1
    ]
