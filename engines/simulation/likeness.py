"""A sensor fitted to real dark frames, and how alike its simulated frames are."""

from __future__ import annotations

import itertools
from dataclasses import replace
from math import erf, sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engines.simulation import Plan, simulate
from engines.simulation.emva import HOT_SIGMAS, DarkEstimate, Lines, estimate
from engines.simulation.sensor import LineSpectra, Sensor

Samples = NDArray[np.uint16]
SAME_DIE_SEED = 20_011  # of the die whose frames are compared
CORRECTIONS = 3


def fit_sensor(stack: Samples, *, bits: int, name: str) -> Sensor:
    """The sensor whose dark frames have the noise, the line spectra and the hot pixels of these.

    A gain cannot be known in the dark: it is set to 1 DN per electron, so that electrons mean DN, and all temporal noise
    is read noise. Lines keep their amplitude at each frequency and get phases of their own. What rounding does to noise
    below one DN is taken off first (`before_rounding`), then by comparing the sensor's own frames with the real ones.

    Args:
        stack: (frames, h, w) of one exposure time and temperature; two or more tell temporal from fixed noise.
        bits: depth.
        name: of the product.

    Raises:
        ValueError: frames smaller than 16x16.
    """
    real = estimate(stack)
    _, h, w = stack.shape
    sensor = Sensor(
        name=name, width=w, height=h, bits=bits, colour=False, pedestal_dn=real.mean_dn, gain_dn_per_e=1.0,
        read_noise_e=before_rounding(real.temporal_dn, real.mean_dn), dark_current_e_s=0.0, temperature_spread_c=0.0,
        dsnu_e=real.dsnu_dn, hot_density=real.hot, hot_sigma=(HOT_SIGMAS, max(HOT_SIGMAS + 1, real.hottest_sigma)),
        hot_cluster=0.0, shading=0.0,
        lines=LineSpectra(*(tuple(s.tolist()) for s in (real.rows.temporal, real.rows.fixed,
                                                        real.columns.temporal, real.columns.fixed))),
    )  # fmt: skip
    for _ in range(CORRECTIONS):
        sensor = _corrected(sensor, real, estimate(clean_frames(sensor, len(stack))))
    return sensor


def _corrected(sensor: Sensor, real: DarkEstimate, found: DarkEstimate) -> Sensor:
    """The sensor with each amplitude times the ratio of what was wanted to what its frames gave."""

    def ratio(wanted: float, got: float) -> float:
        return float(np.clip(wanted / got, 0.5, 2)) if got > 0 else 1.0

    if sensor.lines is None:
        raise ValueError(f"sensor {sensor.name}: has no line spectra to correct")
    lines = LineSpectra(*(
        tuple(a * ratio(wanted, got) for a in amplitudes)
        for amplitudes, wanted, got in (
            (sensor.lines.row_temporal, real.rows.temporal_sd, found.rows.temporal_sd),
            (sensor.lines.row_fixed, real.rows.fixed_sd, found.rows.fixed_sd),
            (sensor.lines.column_temporal, real.columns.temporal_sd, found.columns.temporal_sd),
            (sensor.lines.column_fixed, real.columns.fixed_sd, found.columns.fixed_sd),
        )
    ))  # fmt: skip
    return replace(
        sensor, lines=lines, pedestal_dn=sensor.pedestal_dn + real.mean_dn - found.mean_dn,
        read_noise_e=sensor.read_noise_e * ratio(real.temporal_dn, found.temporal_dn),
        dsnu_e=sensor.dsnu_e * ratio(real.dsnu_dn, found.dsnu_dn),
    )  # fmt: skip


def before_rounding(sigma_dn: float, mean_dn: float) -> float:
    """SD of the normal noise that has `sigma_dn` once rounded to whole DN around `mean_dn`, both DN; found by bisection."""
    low, high = 0.0, sigma_dn + 0.5
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if _rounded_sd(middle, mean_dn) < sigma_dn else (low, middle)
    return high


def _rounded_sd(sigma: float, mean: float) -> float:
    reach = int(np.ceil(6 * sigma)) + 1
    codes = np.arange(np.floor(mean) - reach, np.floor(mean) + reach + 2)
    below = np.array(
        [0.5 * (1 + erf((c - 0.5 - mean) / (sqrt(2) * max(sigma, 1e-9)))) for c in [*codes, codes[-1] + 1]]
    )
    p = np.diff(below)
    centre = (p * codes).sum()
    return float(np.sqrt(max(0.0, (p * (codes - centre) ** 2).sum())))


def clean_frames(sensor: Sensor, count: int) -> Samples:
    """(count, h, w) exposures of one clean die."""
    return np.stack([simulate(sensor, Plan("OK", 0.0), seed=SAME_DIE_SEED, exposure=n).samples for n in range(count)])


def compare(real: Samples, simulated: Samples) -> dict[str, Any]:
    """Numbers of both stacks side by side, and the RMS difference of their line spectra in dB.

    Spectra are compared in thirds of an octave: a single sine of a few frames is noise.
    """
    sides = {"real": estimate(real), "simulated": estimate(simulated)}
    numbers = {
        name: {
            "mean_dn": e.mean_dn, "temporal_dn": e.temporal_dn, "dsnu_dn": e.dsnu_dn, "hot": e.hot,
            "hottest_sigma": e.hottest_sigma, "row_temporal_dn": e.rows.temporal_sd, "row_fixed_dn": e.rows.fixed_sd,
            "column_temporal_dn": e.columns.temporal_sd, "column_fixed_dn": e.columns.fixed_sd,
        } for name, e in sides.items()
    }  # fmt: skip
    first, second = sides.values()
    return {
        **numbers, "frames": len(real), "row_spectrum_db": _spectral_distance(first, second, "rows", real.shape[2]),
        "column_spectrum_db": _spectral_distance(first, second, "columns", real.shape[1]),
    }  # fmt: skip


def _spectral_distance(real: DarkEstimate, simulated: DarkEstimate, axis: str, averaged: int) -> float:
    levels = [band_power(getattr(e, axis), e, averaged) for e in (real, simulated)]
    return float(np.sqrt(np.mean((10 * np.log10(levels[0] / levels[1])) ** 2)))


def _edges(size: int) -> NDArray[np.int_]:
    """Starts of the thirds of an octave among 1..size cycles, counted from 0, and the end."""
    starts = np.round(2 ** np.arange(0, np.log2(size) + 1 / 3, 1 / 3)).astype(int) - 1
    return np.unique([*starts[starts < size], size])


def band_centres(size: int) -> NDArray[np.float64]:
    """Cycles a frame in the middle of each band of `band_power`."""
    edges = _edges(size)
    return np.asarray(np.sqrt((edges[:-1] + 1.0) * edges[1:]))


def band_power(lines: Lines, found: DarkEstimate, averaged: int) -> NDArray[np.float64]:
    """Mean power, DN^2, of a single frame's profile by thirds of an octave: lines, and what its pixels leave in it."""
    size = len(lines.fixed)
    white = (found.temporal_dn**2 + found.dsnu_dn**2) / averaged / size
    total = lines.temporal**2 + lines.fixed**2 + white
    edges = _edges(size)
    return np.array([total[a:b].mean() for a, b in itertools.pairwise(edges)])
