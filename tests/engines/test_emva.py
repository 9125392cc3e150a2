"""Estimates from simulated frames give back the parameters that were put in, in the manner of EMVA 1288."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from engines.simulation import SENSORS, Plan, Sensor, simulate
from engines.simulation.emva import dark_current, doubling_temperature, estimate, power

CLEAN = Plan("OK", 0.0)


def bench(name: str, **changes: object) -> Sensor:
    """A sensor on the bench: 16 bits so that rounding does not count, temperature held, no shading or glow."""
    sensor = SENSORS[name].resized(480, 360)
    held = {"bits": 16, "temperature_spread_c": 0.0, "shading": 0.0, "glow": 0.0, "colour": False, "gain_dn_per_e": 4.0,
            "pedestal_dn": 2000.0}  # fmt: skip
    return replace(sensor, **{**held, **changes})  # type: ignore[arg-type]


def stack(sensor: Sensor, frames: int, seed: int = 1) -> NDArray[np.uint16]:
    return np.stack([simulate(sensor, CLEAN, seed=seed, exposure=n).samples for n in range(frames)])


def test_noise_and_non_uniformity_come_back() -> None:
    sensor = bench("C", row_noise=0.0, column_noise=0.0, hot_density=0.0)
    found = estimate(stack(sensor, 12))
    electrons = np.sqrt(sensor.read_noise_e**2 + sensor.dark_signal_e(40.0))
    assert found.temporal_dn / 4.0 == pytest.approx(electrons, rel=0.005)
    assert found.dsnu_dn / 4.0 == pytest.approx(sensor.dsnu_e, rel=0.02)
    assert found.mean_dn == pytest.approx(2000.0, abs=0.2)


def test_dark_current_and_read_noise_come_back_from_exposure_times() -> None:
    times = [0.25, 0.5, 1.0, 2.0, 4.0]
    variances = [
        estimate(stack(bench("D", exposure_s=t, row_noise=0.0, column_noise=0.0), 4)).temporal_dn ** 2 for t in times
    ]
    current, read_noise = dark_current(times, variances, gain_dn_per_e=4.0)
    assert current == pytest.approx(SENSORS["D"].dark_current_e_s, rel=0.02)
    assert read_noise == pytest.approx(SENSORS["D"].read_noise_e, rel=0.05)


def test_the_doubling_temperature_comes_back() -> None:
    sensor = SENSORS["D"]
    temperatures = [30.0, 40.0, 50.0, 60.0]
    currents = []
    for celsius in temperatures:
        warm = bench("D", dark_current_e_s=sensor.dark_signal_e(celsius), row_noise=0.0, column_noise=0.0)
        variances = [estimate(stack(replace(warm, exposure_s=t), 4)).temporal_dn ** 2 for t in (0.5, 4.0)]
        currents.append(dark_current([0.5, 4.0], variances, gain_dn_per_e=4.0)[0])
    assert doubling_temperature(temperatures, currents) == pytest.approx(sensor.doubling_c, rel=0.03)


def test_rows_change_with_the_frame_and_columns_stay() -> None:
    sensor = bench("E", row_noise=0.2, column_noise=0.1, hot_density=0.0)
    found = estimate(stack(sensor, 12))
    sigma = sensor.sigma_dn()
    assert found.rows.temporal_sd == pytest.approx(0.2 * sigma * np.sqrt(512 / 480), rel=0.05)
    assert found.columns.fixed_sd == pytest.approx(0.1 * sigma * np.sqrt(512 / 360), rel=0.08)
    assert found.rows.fixed_sd < 0.1 * found.rows.temporal_sd
    assert found.columns.temporal_sd < 0.15 * found.columns.fixed_sd


def test_hot_pixels_are_counted() -> None:
    sensor = bench("A", hot_density=5e-4)
    found = estimate(stack(sensor, 8))
    # Poisson around 86 pixels of 5 sigma and more, one in 15 of which noise or rows bring under 5.
    assert found.hot == pytest.approx(5e-4, rel=0.35)
    assert 20 < found.hottest_sigma < 260


def test_powers_add_up_to_the_variance() -> None:
    profiles = np.random.default_rng(0).normal(size=(3, 100))
    assert power(profiles).sum() == pytest.approx(profiles.var(axis=1).mean())
    wave = np.sin(2 * np.pi * 7 * np.arange(100) / 100)[None]
    assert power(wave)[6] == pytest.approx(0.5)


def test_one_exposure_time_gives_no_dark_current() -> None:
    with pytest.raises(ValueError, match="wanted at least two"):
        dark_current([1.0, 1.0], [4.0, 5.0], gain_dn_per_e=1.0)
    with pytest.raises(ValueError, match="at least 16x16"):
        estimate(np.zeros((3, 8, 20)))
