"""Capture failures (class Error): what a broken read-out does to an exposure."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Signal = NDArray[np.float32]
Box = tuple[float, float, float, float]


def _torn_rows(x: Signal, rng: np.random.Generator, sigma: float, _top: float) -> list[Box]:
    h, w = x.shape
    boxes = []
    for _ in range(rng.integers(1, 6)):
        height = max(2, int(h * rng.uniform(0.006, 0.08)))
        r = int(rng.integers(0, h - height))
        level = np.float32(rng.uniform(1.5, 8) * sigma * rng.choice([-1, 1]))
        x[r : r + height] = np.roll(x[r : r + height], int(rng.integers(w // 16, w - w // 16)), axis=1) + level
        boxes.append((0.0, r / h, 1.0, (r + height) / h))
    return boxes


def _shifted_half(x: Signal, rng: np.random.Generator, sigma: float, _top: float) -> list[Box]:
    h, w = x.shape
    x[:, w // 2 :] = np.roll(x[:, w // 2 :], int(rng.integers(h // 8, h // 2)), axis=0)
    x[:, w // 2 :] += np.float32(rng.uniform(0.4, 4) * sigma * rng.choice([-1, 1]))
    return [(0.5, 0.0, 1.0, 1.0)]


def _offset_half(x: Signal, rng: np.random.Generator, sigma: float, _top: float) -> list[Box]:
    h, _ = x.shape
    split = int(h * rng.uniform(0.2, 0.8))
    x[:split] += np.float32(rng.uniform(0.4, 6) * sigma * rng.choice([-1, 1]))
    return [(0.0, 0.0, 1.0, split / h)]


def _saturated_rows(x: Signal, rng: np.random.Generator, _sigma: float, top: float) -> list[Box]:
    h, _ = x.shape
    height = max(2, int(h * rng.uniform(1 / 32, 1 / 3)))
    r = int(rng.integers(0, h - height))
    x[r : r + height] = top if rng.random() < 0.6 else 0
    return [(0.0, r / h, 1.0, (r + height) / h)]


def _row_bands(x: Signal, rng: np.random.Generator, sigma: float, _top: float) -> list[Box]:
    h, _ = x.shape
    period = h * rng.uniform(1 / 32, 1 / 4)
    phase = 2 * np.pi * np.arange(h) / period + rng.uniform(0, 2 * np.pi)
    x += (rng.uniform(0.5, 5) * sigma * np.sign(np.sin(phase)))[:, None].astype(np.float32)
    return [(0.0, 0.0, 1.0, 1.0)]


def _lost_columns(x: Signal, rng: np.random.Generator, sigma: float, top: float) -> list[Box]:
    _, w = x.shape
    boxes = []
    for _ in range(rng.integers(1, 5)):
        width = max(2, int(w * rng.uniform(0.008, 0.05)))
        c = int(rng.integers(0, w - width))
        x[:, c : c + width] = rng.choice([0.0, top, float(x.mean()) + 6 * sigma])
        boxes.append((c / w, 0.0, (c + width) / w, 1.0))
    return boxes


def _stuck_bit(x: Signal, rng: np.random.Generator, sigma: float, top: float) -> list[Box]:
    """One bit of the converter always 0 or always 1, of a weight from half to four times the noise."""
    bit = int(rng.integers(max(1, round(np.log2(max(sigma, 1))) - 1), round(np.log2(max(sigma, 1))) + 3))
    codes = np.clip(np.rint(x), 0, top).astype(np.uint16)
    x[:] = codes | np.uint16(1 << bit) if rng.random() < 0.5 else codes & ~np.uint16(1 << bit)
    return [(0.0, 0.0, 1.0, 1.0)]


def _repeated_tile(x: Signal, rng: np.random.Generator, _sigma: float, _top: float) -> list[Box]:
    """A buffer read twice or more: rows, columns or both come again."""
    h, w = x.shape
    th, tw = (int(size // rng.integers(2, 9)) for size in (h, w))
    along = rng.integers(0, 3)
    if along != 1:
        x[:] = np.resize(x[:th].copy(), x.shape)
    if along != 0:
        x[:] = np.resize(x[:, :tw].T.copy(), (w, h)).T
    return [(0.0, 0.0, 1.0, 1.0)]


def _blank(x: Signal, rng: np.random.Generator, _sigma: float, top: float) -> list[Box]:
    """Black or saturated all over."""
    x[:] = rng.choice([0.0, top])
    return [(0.0, 0.0, 1.0, 1.0)]


# The last three are found in the raw samples (eq. 7): their stretched images may look clean, or do not exist.
FAILURES = {
    "torn": _torn_rows,
    "shifted": _shifted_half,
    "offset": _offset_half,
    "saturated": _saturated_rows,
    "bands": _row_bands,
    "columns": _lost_columns,
    "stuck": _stuck_bit,
    "tiles": _repeated_tile,
    "blank": _blank,
}


def fail(x: Signal, rng: np.random.Generator, *, sigma_dn: float, top_dn: float) -> tuple[str, list[Box]]:
    """Break an exposure in place.

    Args:
        x: (h, w) float32, DN; changed.
        rng: draws the kind and its strength.
        sigma_dn: noise of one pixel, DN.
        top_dn: highest code, DN.

    Returns:
        The kind, and the boxes hit as shares of the frame (x0, y0, x1, y1).
    """
    kind = str(rng.choice(list(FAILURES)))
    return kind, FAILURES[kind](x, rng, sigma_dn, top_dn)
