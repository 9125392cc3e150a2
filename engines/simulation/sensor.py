"""EMVA 1288 style sensors: what one exposure in the dark gives, in DN, before any blemish (docs/simulation.md)."""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from engines.simulation.visibility import GRID

REFERENCE_TEMPERATURE_C = 40.0
_YY, _XX = np.mgrid[0:GRID, 0:GRID].astype(np.float32) / GRID


@dataclass(frozen=True, slots=True)
class LineSpectra:
    """Amplitudes of line offsets, DN RMS, at 1, 2, .. cycles a frame: new in each exposure, and fixed to the die."""

    row_temporal: tuple[float, ...]
    row_fixed: tuple[float, ...]
    column_temporal: tuple[float, ...]
    column_fixed: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sensor:
    """A sensor model: geometry, EMVA 1288 noise parameters and its usual nuisances.

    Attributes:
        name: product name.
        width, height: pixels.
        bits: depth of the converter; codes are 0..2^bits - 1.
        colour: whether the four CFA planes have offsets of their own.
        pedestal_dn: black level, DN.
        gain_dn_per_e: system gain K, DN per electron.
        read_noise_e: temporal dark noise at zero exposure, electrons.
        dark_current_e_s: mean dark current at 40 C, electrons per second.
        doubling_c: temperature step that doubles the dark current, kelvin.
        exposure_s: exposure time, seconds.
        temperature_spread_c: SD of the die temperature between frames, kelvin.
        dsnu_e: dark signal non-uniformity from pixel to pixel, electrons.
        row_noise, column_noise: SD of row and column offsets as a share of the pixel noise, for rows of 512 pixels.
        lines: line offsets fitted to a real sensor, instead of row_noise and column_noise.
        hot_density: hot pixels per pixel.
        hot_sigma: lowest and highest excess of a hot pixel in sigma; drawn log-uniformly.
        hot_cluster: share of dies with a hot 2x2 cluster.
        shading, glow: usual amplitude, in noise units of one cell of the 128 grid.
        spot_radius: smallest and largest radius of a spot, as a share of the frame.
        defect_levels: levels that a defective frame of this product has.
        normal_level: highest level of a frame called OK.
    """

    name: str
    width: int
    height: int
    bits: int
    colour: bool
    pedestal_dn: float
    gain_dn_per_e: float
    read_noise_e: float = 5.0
    dark_current_e_s: float = 33.0
    doubling_c: float = 6.3
    exposure_s: float = 1.0
    temperature_spread_c: float = 1.0
    dsnu_e: float = 2.4
    row_noise: float = 0.02
    column_noise: float = 0.02
    lines: LineSpectra | None = None
    hot_density: float = 1e-4
    hot_sigma: tuple[float, float] = (5.0, 200.0)
    hot_cluster: float = 0.15
    shading: float = 1.0
    glow: float = 0.0
    spot_radius: tuple[float, float] = (0.02, 0.12)
    defect_levels: tuple[float, float] = (3.5, 9.3)
    normal_level: float = 2.5

    @property
    def cell_pixels(self) -> float:
        """n: input pixels of one cell of the 128 grid."""
        return self.width * self.height / GRID**2

    def dark_signal_e(self, temperature_c: float) -> float:
        """Mean dark signal, electrons: dark current doubles every `doubling_c`."""
        return float(
            self.dark_current_e_s * self.exposure_s * 2 ** ((temperature_c - REFERENCE_TEMPERATURE_C) / self.doubling_c)
        )

    def sigma_dn(self, temperature_c: float = REFERENCE_TEMPERATURE_C, *, frames: int = 1) -> float:
        """Noise of one pixel of the mean of `frames` exposures, DN: K sqrt((read^2 + dark) / frames + dsnu^2)."""
        variance = (self.read_noise_e**2 + self.dark_signal_e(temperature_c)) / frames + self.dsnu_e**2
        return float(self.gain_dn_per_e * np.sqrt(variance))

    def resized(self, width: int, height: int) -> Sensor:
        """The same sensor with fewer (more) pixels, such that its stretched frames look the same.

        Noise averages over fewer pixels, so what is given in noise units of a cell stays as it is; a row of
        fewer pixels averages less, so row noise weighs less beside it (handled in `expose`).
        """
        return replace(self, width=width, height=height)


_LARGE_SPOTS = (0.02, 0.16)
SENSORS = {
    s.name: s
    for s in (
        Sensor(name="A", width=1280, height=800, bits=8, colour=False, pedestal_dn=24, gain_dn_per_e=0.25,
               hot_density=3e-5, shading=1.0, spot_radius=(0.03, 0.08), defect_levels=(5.0, 9.3), normal_level=1.5),
        Sensor(name="B", width=1600, height=1200, bits=10, colour=False, pedestal_dn=64, gain_dn_per_e=0.44,
               row_noise=0.03, hot_density=5e-5, shading=1.5, spot_radius=(0.03, 0.08), defect_levels=(4.5, 9.3),
               normal_level=1.5),
        Sensor(name="C", width=2048, height=1536, bits=10, colour=True, pedestal_dn=64, gain_dn_per_e=0.75,
               temperature_spread_c=5.4, row_noise=0.024, column_noise=0.016, shading=1.68, glow=0.88),
        Sensor(name="D", width=2592, height=1944, bits=12, colour=True, pedestal_dn=256, gain_dn_per_e=1.12,
               temperature_spread_c=9.0, row_noise=0.04, column_noise=0.024, hot_density=2e-4, shading=2.8, glow=2.2,
               spot_radius=_LARGE_SPOTS),
        Sensor(name="E", width=3264, height=2448, bits=12, colour=True, pedestal_dn=256, gain_dn_per_e=1.75,
               temperature_spread_c=9.0, row_noise=0.048, column_noise=0.04, hot_density=2e-4, shading=2.24, glow=1.76,
               spot_radius=_LARGE_SPOTS),
        Sensor(name="F", width=4056, height=3040, bits=14, colour=True, pedestal_dn=256, gain_dn_per_e=0.5,
               temperature_spread_c=3.6, row_noise=0.02, column_noise=0.02, shading=1.12, glow=0.66),
    )
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Exposure:
    """One exposure before quantisation.

    Attributes:
        signal_dn: (h, w) float32, DN.
        sigma_dn: noise of one pixel, DN.
    """

    signal_dn: NDArray[np.float32]
    sigma_dn: float


def upsample(cells: NDArray[np.float32], sensor: Sensor) -> NDArray[np.float32]:
    """(128, 128) cells -> (h, w), bilinear."""
    large: NDArray[np.float32] = cv2.resize(cells, (sensor.width, sensor.height), interpolation=cv2.INTER_LINEAR)
    return large


def expose(
    sensor: Sensor,
    pattern: NDArray[np.float32],
    *,
    die: np.random.Generator,
    exposure: np.random.Generator,
    frames: int = 1,
    nuisance: float = 1.0,
    shading: float = 1.0,
) -> Exposure:
    """Dark exposure of one die with a pattern on it, its black level corrected as read-outs do.

    DN = pedestal + K (glow + pattern + DSNU + shot and read noise) + rows + columns + hot pixels; the mean dark signal
    is taken off by the black-level clamp, its shot noise stays.
    Shot noise is Gaussian with the variance of the mean signal: dark signals here are above 20 electrons.

    Args:
        sensor: the model.
        pattern: (128, 128) float32, noise units of a cell: blemish, zeros where none.
        die: what stays with the die: DSNU, column offsets, hot pixels, plane offsets, shading, glow.
        exposure: what changes between exposures: temperature, shot, read and row noise.
        frames: exposures averaged, >= 1.
        nuisance: factor on shading, glow, row and column noise and hot pixel density, >= 0.
        shading: further factor on shading and glow, >= 0.
    """
    temperature_c = REFERENCE_TEMPERATURE_C + exposure.normal(0, sensor.temperature_spread_c)
    sigma_dn = sensor.sigma_dn(temperature_c, frames=frames)
    to_dn = sigma_dn / np.sqrt(sensor.cell_pixels)
    fixed = (_shading(sensor, die, nuisance * shading) + pattern) * to_dn
    signal_e = np.maximum(sensor.dark_signal_e(temperature_c) + fixed / sensor.gain_dn_per_e, 0)
    temporal_dn = sensor.gain_dn_per_e * np.sqrt((sensor.read_noise_e**2 + signal_e) / frames)

    shape = (sensor.height, sensor.width)
    x = exposure.standard_normal(shape, dtype=np.float32)
    x *= upsample(temporal_dn.astype(np.float32), sensor)
    x += die.standard_normal(shape, dtype=np.float32) * np.float32(sensor.gain_dn_per_e * sensor.dsnu_e)
    x += upsample(fixed.astype(np.float32), sensor)
    _add_lines(x, sensor, die, exposure, sigma_dn=sigma_dn, nuisance=nuisance)
    _add_hot_pixels(x, sensor, die, sigma_dn=sigma_dn, nuisance=nuisance)
    x += np.float32(sensor.pedestal_dn)
    if sensor.colour:
        for r, c in ((0, 0), (0, 1), (1, 0), (1, 1)):
            x[r::2, c::2] += np.float32(die.uniform(-0.5, 0.5) * sensor.sigma_dn())
    return Exposure(x, sigma_dn)


def quantise(signal_dn: NDArray[np.float32], bits: int) -> NDArray[np.uint16]:
    """Round to codes 0..2^bits - 1; overwrites its argument."""
    np.rint(signal_dn, out=signal_dn)
    np.clip(signal_dn, 0, (1 << bits) - 1, out=signal_dn)
    return signal_dn.astype(np.uint16)


def _shading(sensor: Sensor, die: np.random.Generator, nuisance: float) -> NDArray[np.float32]:
    """Smooth non-uniformity and amplifier glow at an edge or corner, in noise units of a cell."""
    amplitude = sensor.shading * nuisance
    cx, cy = die.uniform(0.35, 0.65, 2)
    bowl = amplitude * die.uniform(0, 1) * die.choice([-1, 1]) * 2
    tilt_x, tilt_y = die.normal(size=2) * amplitude * 0.25
    cells = bowl * ((_XX - cx) ** 2 + (_YY - cy) ** 2) + tilt_x * (_XX - 0.5) + tilt_y * (_YY - 0.5)
    if sensor.glow and die.random() < 0.7:
        side = die.integers(0, 8)
        distances = (
            _XX, 1 - _XX, _YY, 1 - _YY,
            np.hypot(_XX, _YY), np.hypot(1 - _XX, _YY), np.hypot(_XX, 1 - _YY), np.hypot(1 - _XX, 1 - _YY),
        )  # fmt: skip
        reach = die.uniform(0.02, 0.08)
        cells += sensor.glow * nuisance * die.gamma(2, 0.5) * np.exp(-distances[side] / reach)
    return np.asarray(cells, np.float32)


def _add_lines(
    x: NDArray[np.float32],
    sensor: Sensor,
    die: np.random.Generator,
    exposure: np.random.Generator,
    *,
    sigma_dn: float,
    nuisance: float,
) -> None:
    """Row offsets of this exposure and column offsets of this die; scaled so that they weigh as in rows of 512."""
    h, w = x.shape
    if sensor.lines is not None:
        fitted = sensor.lines
        x += nuisance * (_profile(fitted.row_fixed, h, die) + _profile(fitted.row_temporal, h, exposure))[:, None]
        x += nuisance * (_profile(fitted.column_fixed, w, die) + _profile(fitted.column_temporal, w, exposure))
        return
    rows = exposure.standard_normal((h, 1), dtype=np.float32)
    columns = die.standard_normal((1, w), dtype=np.float32)
    x += rows * np.float32(sensor.row_noise * nuisance * sigma_dn * np.sqrt(512 / w))
    x += columns * np.float32(sensor.column_noise * nuisance * sigma_dn * np.sqrt(512 / h))


def _profile(amplitude: tuple[float, ...], size: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """(size,) offsets, DN, with these RMS amplitudes at 1, 2, .. cycles and phases of their own."""
    phases = np.exp(2j * np.pi * rng.random(len(amplitude)))
    bins = np.concatenate([[0], np.asarray(amplitude) * phases * size / np.sqrt(2)])
    if size % 2 == 0:  # the sine of two pixels has no phase but a sign
        bins[-1] = amplitude[-1] * size * np.sign(phases[-1].real)
    return np.fft.irfft(bins, size).astype(np.float32)


def _add_hot_pixels(
    x: NDArray[np.float32], sensor: Sensor, die: np.random.Generator, *, sigma_dn: float, nuisance: float
) -> None:
    """A tail of single hot pixels, and now and then a 2x2 cluster."""
    h, w = x.shape
    count = die.poisson(sensor.hot_density * nuisance * h * w)
    excess = np.exp(die.uniform(np.log(sensor.hot_sigma[0]), np.log(sensor.hot_sigma[1]), count)).astype(np.float32)
    np.add.at(x, (die.integers(0, h, count), die.integers(0, w, count)), excess * np.float32(sigma_dn))
    if die.random() < sensor.hot_cluster:
        r, c = die.integers(2, h - 2), die.integers(2, w - 2)
        x[r - 1 : r + 1, c - 1 : c + 1] += np.float32(die.uniform(5, 60) * sigma_dn)
