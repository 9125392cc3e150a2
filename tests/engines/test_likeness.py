"""A sensor fitted to frames simulates frames alike: on a known sensor, and on real ones."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from appliance.simulated import read_stack
from engines.simulation import SENSORS, Plan, simulate
from engines.simulation.likeness import before_rounding, clean_frames, compare, fit_sensor

LIKE = ("temporal_dn", "dsnu_dn", "row_temporal_dn", "column_fixed_dn")


def assert_alike(report: dict[str, Any], rel: float, spectra_db: float) -> None:
    for key in LIKE:
        assert report["simulated"][key] == pytest.approx(report["real"][key], rel=rel, abs=0.01), key
    assert report["simulated"]["mean_dn"] == pytest.approx(report["real"]["mean_dn"], abs=0.05)
    assert report["row_spectrum_db"] < spectra_db
    assert report["column_spectrum_db"] < spectra_db


def test_a_fitted_sensor_gives_frames_like_those_it_was_fitted_to() -> None:
    known = replace(SENSORS["E"].resized(400, 320), shading=0.0, glow=0.0, colour=False, temperature_spread_c=0.0,
                    row_noise=0.15, column_noise=0.1, hot_density=1e-3, hot_cluster=0.0)  # fmt: skip
    frames = np.stack([simulate(known, Plan("OK", 0.0), seed=8, exposure=n).samples for n in range(8)])
    fitted = fit_sensor(frames, bits=12, name="like")
    report = compare(frames, clean_frames(fitted, 8))
    # The lowest bands hold one or two sines each; the power of a single one has an SD of 5.6 dB, that of half the bands' RMS 4.
    assert_alike(report, 0.03, 4.0)
    assert report["simulated"]["hot"] == pytest.approx(report["real"]["hot"], rel=0.4)  # Poisson around 120 pixels
    assert fitted.hot_sigma[1] == pytest.approx(report["real"]["hottest_sigma"])


@pytest.mark.real_data
@pytest.mark.parametrize(("name", "bits"), [("emva001_ccd12", 12), ("emva002_cmos8", 8)])
def test_real_sensors_are_met(name: str, bits: int, real_data: Path) -> None:
    folder = real_data / "dark_frames" / name
    frames = read_stack(sorted(folder.glob("d_s_000*.png")))[0]
    fitted = fit_sensor(frames, bits=bits, name="like")
    report = compare(frames, clean_frames(fitted, len(frames)))
    assert_alike(report, 0.03, 1.0)
    # Neither has a pixel beyond 5 sigma, and the tail of the mean frame ends alike.
    assert report["real"]["hot"] == report["simulated"]["hot"] == 0
    assert report["simulated"]["hottest_sigma"] == pytest.approx(report["real"]["hottest_sigma"], abs=0.6)


@pytest.mark.parametrize("sigma", [0.3, 0.6, 3.0])
def test_rounding_is_taken_off_the_noise(sigma: float) -> None:
    codes = np.rint(np.random.default_rng(0).normal(2.9, sigma, 1_000_000))
    assert before_rounding(float(codes.std()), 2.9) == pytest.approx(sigma, rel=0.01)


def test_one_frame_has_fixed_lines_only() -> None:
    frame = clean_frames(replace(SENSORS["B"].resized(320, 240), shading=0.0), 1)
    fitted = fit_sensor(frame, bits=10, name="like")
    assert fitted.lines is not None
    assert not any(fitted.lines.row_temporal)
    assert fitted.dsnu_e == 0
