"""What a stack of dark frames says of its sensor, in the manner of EMVA 1288: noise, non-uniformity, lines, hot pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Stack = NDArray[np.floating] | NDArray[np.integer]
Spectrum = NDArray[np.float64]
SMALLEST_SIDE = 16  # pixels of a frame
HOT_SIGMAS = 5.0


@dataclass(frozen=True, slots=True)
class Lines:
    """Offsets of whole rows or columns: their amplitude spectrum, DN.

    Attributes:
        temporal: (size // 2,) root mean square of the profile's sine at 1, 2, .. cycles a frame, new in each frame.
        fixed: the same, of what all frames share.
    """

    temporal: Spectrum
    fixed: Spectrum

    @property
    def temporal_sd(self) -> float:
        """SD of the offsets that are new in each frame, DN."""
        return float(np.sqrt((self.temporal**2).sum()))

    @property
    def fixed_sd(self) -> float:
        """SD of the offsets that all frames share, DN."""
        return float(np.sqrt((self.fixed**2).sum()))


@dataclass(frozen=True, slots=True)
class DarkEstimate:
    """A sensor in the dark.

    Attributes:
        mean_dn: mean of all pixels.
        temporal_dn: noise of one pixel from frame to frame, without that of rows and columns.
        dsnu_dn: SD from pixel to pixel of what all frames share, without rows, columns and hot pixels.
        rows, columns: offsets of lines.
        hot: share of pixels more than 5 sigma above the median, sigma that of a single pixel of one frame.
        hottest_sigma: excess of the hottest pixel in sigma.
        frames: in the stack; of a single frame all noise counts as temporal and all lines as fixed.
    """

    mean_dn: float
    temporal_dn: float
    dsnu_dn: float
    rows: Lines
    columns: Lines
    hot: float
    hottest_sigma: float
    frames: int


def estimate(stack: Stack) -> DarkEstimate:
    """Estimate a sensor from frames of one exposure time and temperature.

    Temporal variance is that between frames, pixel by pixel; spatial variance that of the mean frame less what temporal
    noise leaves in it (EMVA 1288, release 4, 6.4 and 8.2). Rows and columns are taken off before either.

    Args:
        stack: (frames, h, w), DN.

    Raises:
        ValueError: fewer than one frame, or frames smaller than 16x16.
    """
    if stack.ndim != 3 or len(stack) < 1 or min(stack.shape[1:]) < SMALLEST_SIDE:
        raise ValueError(
            f"stack of shape {stack.shape}: wanted (frames, h, w), at least {SMALLEST_SIDE}x{SMALLEST_SIDE}"
        )
    n = len(stack)
    mean = stack.mean(0, dtype=np.float64)
    changes = stack - mean
    rows, columns = changes.mean(2, keepdims=True), changes.mean(1, keepdims=True)
    pixels = changes - rows - columns
    flat = mean - mean.mean(1, keepdims=True) - mean.mean(0, keepdims=True) + mean.mean()
    low, middle, high = np.quantile(flat, [0.1587, 0.5, 0.8413])
    spatial = float(flat[np.abs(flat - middle) <= HOT_SIGMAS * (high - low) / 2].var())
    temporal = float(pixels.var()) * n / (n - 1) if n > 1 else spatial
    dsnu = max(0.0, spatial - temporal / n) if n > 1 else 0.0
    sigma = np.sqrt(temporal + dsnu)
    excess = (mean - np.median(mean)) / sigma
    return DarkEstimate(
        mean_dn=float(mean.mean()), temporal_dn=float(np.sqrt(temporal)), dsnu_dn=float(np.sqrt(dsnu)),
        rows=_lines(stack.mean(2), temporal + dsnu * (n == 1), dsnu, stack.shape[2]),
        columns=_lines(stack.mean(1), temporal + dsnu * (n == 1), dsnu, stack.shape[1]),
        hot=float((excess > HOT_SIGMAS).mean()), hottest_sigma=float(excess.max()), frames=n,
    )  # fmt: skip


def power(profiles: NDArray[np.floating]) -> Spectrum:
    """(n, size) -> (size // 2,) mean square of the profiles' sines at 1, 2, .. cycles a frame; they add up to the variance."""
    size = profiles.shape[1]
    squares = np.abs(np.fft.rfft(profiles - profiles.mean(1, keepdims=True), axis=1)[:, 1:] / size) ** 2
    squares *= 2
    if size % 2 == 0:
        squares[:, -1] /= 2
    return np.asarray(squares.mean(0))


def _lines(profiles: NDArray[np.floating], temporal: float, dsnu: float, averaged: int) -> Lines:
    """Spectra of (frames, size) profiles, each the mean of `averaged` pixels, less what pixels leave in them."""
    n, size = profiles.shape
    mean = profiles.mean(0, keepdims=True)
    white = temporal / averaged / (size // 2)
    if n == 1:
        return Lines(np.zeros(size // 2), _amplitude(power(mean) - white))
    changing = power(profiles - mean) * n / (n - 1)
    lasting = power(mean) - changing / n - dsnu / averaged / (size // 2)
    return Lines(_amplitude(changing - white), _amplitude(lasting))


def _amplitude(squares: Spectrum) -> Spectrum:
    """Root of an estimate of power: none below 0, and in all as much as was estimated."""
    kept = np.maximum(0, squares)
    return np.asarray(np.sqrt(kept * max(0.0, squares.sum()) / max(kept.sum(), 1e-300)))


def dark_current(
    exposures_s: Sequence[float], variances_dn2: Sequence[float], *, gain_dn_per_e: float
) -> tuple[float, float]:
    """Dark current, electrons a second, and read noise, electrons, from temporal variances at several exposure times.

    variance = K^2 (read^2 + I t): the way of EMVA 1288 (7.1) for sensors that take the mean dark signal off.

    Raises:
        ValueError: fewer than two exposure times.
    """
    if len(set(exposures_s)) < 2:
        raise ValueError(f"exposure times {sorted(set(exposures_s))}: wanted at least two")
    slope, start = np.polyfit(exposures_s, np.asarray(variances_dn2) / gain_dn_per_e**2, 1)
    return float(slope), float(np.sqrt(max(0.0, start)))


def doubling_temperature(temperatures_c: Sequence[float], currents_e_s: Sequence[float]) -> float:
    """The step, kelvin, that doubles the dark current: 1 / slope of log2 of the current over temperature."""
    return float(1 / np.polyfit(temperatures_c, np.log2(currents_e_s), 1)[0])
