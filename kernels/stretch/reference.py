"""The definition of eq. 7-8 in plain numpy."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kernels.errors import NotADarkFrameError
from kernels.stretch import CLIPPED_SHARE, IMAGE_SIDE, Noise, StretchParams, Tone

SAMPLES = 1 << 18
QUANTILES = 0.1587, 0.8413
SIGMA_FLOOR = 1 / np.sqrt(12)
STUCK_BETWEEN = 0.01, 0.99
REPEAT_KEY, REPEAT_RUN, REPEAT_CHANGE = 64, 16, 16


def sampled_rows(samples: NDArray[np.uint16]) -> NDArray[np.uint16]:
    """Pairs of rows, evenly spread, that together hold about 2^18 samples; whole frames below that size."""
    h, w = samples.shape
    row_pairs = h // 2
    pairs = min(-(-SAMPLES // (2 * w)), row_pairs)
    first = 2 * ((2 * np.arange(pairs) + 1) * row_pairs // (2 * pairs))
    rows: NDArray[np.uint16] = samples[np.stack([first, first + 1], axis=1).reshape(-1)]
    return rows


def quantiles(values: NDArray[np.integer], shares: tuple[float, ...]) -> list[float]:
    """Quantiles of integers, each spread evenly over +-1/2."""
    codes, counts = np.unique(values, return_counts=True)
    cumulative = np.cumsum(counts)
    wanted = np.asarray(shares) * cumulative[-1]
    at = np.searchsorted(cumulative, wanted, side="left")
    below = cumulative[at] - counts[at]
    return list(codes[at] - 0.5 + (wanted - below) / counts[at])


def noise(samples: NDArray[np.uint16]) -> tuple[NDArray[np.float64], float]:
    """Median of each CFA plane, (2, 2) DN, and sigma, DN (eq. 7)."""
    x = sampled_rows(samples).astype(np.int64)
    medians = np.array([[quantiles(x[r::2, c::2], (0.5,))[0] for c in (0, 1)] for r in (0, 1)])
    low, high = quantiles(x[:, 2:] - x[:, :-2], QUANTILES)
    return medians, max(SIGMA_FLOOR, (high - low) / (2 * np.sqrt(2)))


def area_weights(size: int) -> NDArray[np.float64]:
    """(224, size) overlap of each output row with each input row, in input rows."""
    edges = np.arange(IMAGE_SIDE + 1) * size / IMAGE_SIDE
    rows = np.arange(size)
    overlap = np.minimum(edges[1:, None], rows + 1) - np.maximum(edges[:-1, None], rows)
    return np.asarray(np.clip(overlap, 0, None))


def stuck_bit(samples: NDArray[np.uint16]) -> tuple[int, int] | None:
    """The lowest stuck bit and its value, or None.

    A bit is stuck that is the same in all codes between the 1 % and the 99 % quantile of a CFA plane, although codes that
    have it otherwise lie between these and although a lower bit varies; and that varies in no plane.
    """
    x = sampled_rows(samples)
    stuck: dict[int, int] = {}
    varying = set()
    for r, c in ((0, 0), (0, 1), (1, 0), (1, 1)):
        plane = x[r::2, c::2]
        low, high = (int(np.floor(q + 0.5)) for q in quantiles(plane, STUCK_BETWEEN))
        codes = np.unique(plane)
        codes = codes[(codes >= low) & (codes <= high)]
        bits = [codes >> b & 1 for b in range(16)]
        varies = [len(np.unique(bit)) > 1 for bit in bits]
        varying |= {b for b in range(16) if varies[b]}
        for b in range(1, 16):
            if not varies[b] and any(varies[:b]) and low >> b != high >> b:
                stuck[b] = max(stuck.get(b, 0), int(bits[b][0]))
    left = sorted(stuck.keys() - varying)
    return (left[0], stuck[left[0]]) if left else None


def repeated(lines: NDArray[np.uint16], keys: NDArray[np.uint16]) -> tuple[int, int] | None:
    """The first of 16 neighbouring lines that all come again `lag` lines later, and the lag, or None.

    Lines in which less than one sample in 16 differs from the one before it are flat and do not count.

    Args:
        lines: (n, samples).
        keys: (n, samples) by which the commonest lag is found: each line's next recurrence, the smallest of several lags.
    """
    _, group = np.unique(keys, axis=0, return_inverse=True)
    order = np.argsort(group.reshape(-1), kind="stable")
    lags = np.diff(order)[np.diff(group.reshape(-1)[order]) == 0]
    if not len(lags):
        return None
    lag = int(np.bincount(lags).argmax())
    noisy = (lines[:, 1:] != lines[:, :-1]).sum(1) * REPEAT_CHANGE >= lines.shape[1]
    recurs = (lines[:-lag] == lines[lag:]).all(1) & noisy[:-lag]
    for first in range(len(recurs) - REPEAT_RUN + 1):
        if recurs[first : first + REPEAT_RUN].all():
            return first, lag
    return None


def repeated_tile(samples: NDArray[np.uint16]) -> bool:
    """Whether rows, or columns of the rows sampled, come again elsewhere."""
    columns = sampled_rows(samples).T
    w = samples.shape[1]
    first = max(0, w // 2 - REPEAT_KEY // 2)
    keys = samples[:, first : first + REPEAT_KEY]
    return repeated(columns, columns) is not None or repeated(samples, keys) is not None


def tone(z: NDArray[np.float64], params: StretchParams) -> NDArray[np.float64]:
    """Z in noise units -> image in [0, 1]."""
    if params.tone is Tone.ASINH:
        curve = np.arcsinh(z / params.tone_parameter) / np.arcsinh(params.z_range / params.tone_parameter)
        return np.asarray(np.clip(0.5 + curve / 2, 0, 1))
    u = np.asarray(np.clip(0.5 + z / (2 * params.z_range), 0, 1))
    if params.tone is Tone.LINEAR:
        return u
    m = params.tone_parameter
    return np.asarray((m - 1) * u / ((2 * m - 1) * u - m))


def stretch(samples: NDArray[np.uint16], params: StretchParams) -> tuple[NDArray[np.float64], Noise]:
    """(h, w) samples, DN -> the (224, 224) image in [0, 1] and the noise.

    Raises:
        NotADarkFrameError: as Stretcher.stretch.
    """
    x = sampled_rows(samples)
    lowest, highest = int(x.min()), int(x.max())
    if lowest == highest or max((x == lowest).mean(), (x == highest).mean()) > CLIPPED_SHARE:
        raise NotADarkFrameError(f"constant or clipped: {lowest}..{highest} DN")
    if stuck := stuck_bit(samples):
        raise NotADarkFrameError(f"bit {stuck[0]} stuck at {stuck[1]}")
    if repeated_tile(samples):
        raise NotADarkFrameError("repeated tile")
    medians, sigma = noise(samples)
    h, w = samples.shape
    plane_median = medians[np.arange(h)[:, None] % 2, np.arange(w) % 2]
    centre = np.floor(plane_median + 0.5)
    half = np.ceil(np.float32(params.k).astype(np.float64) * sigma)
    clipped = np.clip(samples, centre - half, centre + half) - plane_median
    n = h * w / IMAGE_SIDE**2
    b = area_weights(h) @ clipped @ area_weights(w).T / n
    z = (b - np.median(b)) * np.sqrt(n) / sigma
    return tone(z, params), Noise(float(medians.mean()), sigma, lowest, highest)
