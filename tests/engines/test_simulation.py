"""Simulated frames are what their truth says."""

from __future__ import annotations

import numpy as np
import pytest

from engines.simulation import CLASSES, SENSORS, TRAINING_MIX, Plan, draw_plan, plans, simulate
from engines.simulation.blemish import at_level, boxes_of, diagonal, spot
from engines.simulation.failure import FAILURES
from engines.simulation.sensor import Sensor
from engines.simulation.visibility import GRID, cnr_of, contrast_to_noise, level_of, rate
from kernels import NotADarkFrameError, RawFrame, Stretcher, StretchParams, Tone

SMALL = {name: sensor.resized(480, 400) for name, sensor in SENSORS.items()}


def noise_of(sensor: Sensor, plan: Plan, seed: int = 1) -> tuple[float, float]:
    out = np.empty((224, 224), np.float32)
    samples = simulate(sensor, plan, seed=seed).samples
    noise = Stretcher(StretchParams(tone=Tone.LINEAR)).stretch(RawFrame.from_samples(samples, bits=sensor.bits), out)
    return noise.sigma_dn, noise.median_dn


@pytest.mark.parametrize("name", SENSORS)
def test_a_sensor_has_its_size_depth_and_pedestal(name: str) -> None:
    sensor = SENSORS[name]
    frame = simulate(SMALL[name], Plan("OK", 0.0), seed=1)
    assert frame.samples.shape == (400, 480)
    assert frame.samples.max() < 1 << sensor.bits
    assert 1_000_000 <= sensor.width * sensor.height <= 12_400_000
    assert 8 <= sensor.bits <= 14
    _, median = noise_of(SMALL[name], Plan("OK", 0.0))
    assert median == pytest.approx(sensor.pedestal_dn, abs=sensor.sigma_dn())


def test_noise_follows_the_emva_1288_sum() -> None:
    sensor = SMALL["A"]
    variance = sensor.read_noise_e**2 + sensor.dark_current_e_s * sensor.exposure_s + sensor.dsnu_e**2
    assert sensor.sigma_dn() == pytest.approx(sensor.gain_dn_per_e * np.sqrt(variance))
    sigmas = [noise_of(sensor, Plan("OK", 0.0), seed)[0] for seed in range(12)]
    assert np.mean(sigmas) == pytest.approx(sensor.sigma_dn(), rel=0.03)


def test_dark_current_doubles_with_temperature() -> None:
    sensor = SENSORS["D"]
    assert sensor.dark_signal_e(40 + sensor.doubling_c) == pytest.approx(2 * sensor.dark_signal_e(40))


def test_a_frame_repeats_with_its_seed_and_changes_with_its_exposure() -> None:
    first = simulate(SMALL["C"], Plan("Spot", 6.0), seed=5)
    np.testing.assert_array_equal(first.samples, simulate(SMALL["C"], Plan("Spot", 6.0), seed=5).samples)
    second = simulate(SMALL["C"], Plan("Spot", 6.0), seed=5, exposure=1)
    assert first.truth == second.truth
    assert (first.samples != second.samples).mean() > 0.5


def test_the_fixed_pattern_is_what_two_exposures_share() -> None:
    sensor = SMALL["B"]
    pair = [simulate(sensor, Plan("OK", 0.0), seed=5, exposure=n, nuisance=0.0).samples for n in (0, 1)]
    steps = [np.diff(samples.astype(float), axis=1).reshape(-1) for samples in pair]
    quiet = np.abs(steps[0] + steps[1]) < 60
    shared = np.cov(steps[0][quiet], steps[1][quiet])[0, 1] / 2
    # Covariance of 192,000 pairs of SD 3.5 DN: its own SD is 0.04 DN^2.
    assert shared == pytest.approx((sensor.gain_dn_per_e * sensor.dsnu_e) ** 2, abs=0.16)


def test_averaging_lowers_the_temporal_noise_only() -> None:
    sensor = SMALL["A"]
    out = np.empty((224, 224), np.float32)
    mean = simulate(sensor, Plan("OK", 0.0), seed=3, frames=64)
    sigma = Stretcher(StretchParams()).stretch(RawFrame.from_samples(mean.samples, bits=8), out).sigma_dn
    floor = np.hypot(sensor.gain_dn_per_e * sensor.dsnu_e, 1 / np.sqrt(12))
    assert floor * 0.95 < sigma < 0.6 * sensor.sigma_dn()


@pytest.mark.parametrize(("shape", "level"), [("Spot", 4.0), ("Spot", 8.0), ("Diagonal", 5.0)])
def test_level_and_contrast_invert_each_other(shape: str, level: float) -> None:
    assert level_of(cnr_of(level, shape), shape) == pytest.approx(level)
    rng = np.random.default_rng(0)
    pattern = spot(rng, (0.03, 0.1))[0] if shape == "Spot" else diagonal(rng)[0]
    assert level_of(contrast_to_noise(at_level(pattern, level, shape)), shape) == pytest.approx(level, abs=1e-3)


def test_contrast_to_noise_is_what_a_matched_filter_sees() -> None:
    yy, xx = np.mgrid[0:GRID, 0:GRID]
    gaussian = np.exp(-((xx - 64) ** 2 + (yy - 64) ** 2) / (2 * 4.0**2)).astype(np.float32)
    # The filter of unit energy answers a signal of its own shape with the square root of the signal's energy.
    assert contrast_to_noise(gaussian) == pytest.approx(np.sqrt((gaussian**2).sum()), rel=0.01)


def test_levels_are_rated_with_a_jitter() -> None:
    rng = np.random.default_rng(0)
    ratings = np.array([rate(5.0, rng) for _ in range(2000)])
    assert set(ratings) <= {4, 5, 6}
    assert (ratings != 5).mean() == pytest.approx(0.096, abs=0.03)  # P(|jitter| > 1/2), jitter of SD 0.3


@pytest.mark.parametrize("class_name", CLASSES)
def test_truth_names_what_is_there(class_name: str) -> None:
    level = {"OK": 0.0, "Spot": 7.0, "Diagonal": 7.0, "Error": 10.0}[class_name]
    for seed in range(6):
        truth = simulate(SMALL["D"], Plan(class_name, level), seed=seed).truth
        assert truth.class_name == class_name
        assert (len(truth.boxes) == 0) == (class_name == "OK")
        assert (truth.rating == 10) == (class_name == "Error")
        for x0, y0, x1, y1 in truth.boxes:
            assert 0 <= x0 < x1 <= 480
            assert 0 <= y0 < y1 <= 400


def test_a_box_holds_the_blemish() -> None:
    pattern = np.zeros((GRID, GRID), np.float32)
    pattern[20:30, 40:60] = 1
    assert boxes_of(pattern) == [(40 / GRID, 20 / GRID, 60 / GRID, 30 / GRID)]


@pytest.mark.parametrize("mix", [TRAINING_MIX, plans.SENSOR_TEST_MIX])
def test_classes_are_drawn_by_the_mix(mix: dict[str, float]) -> None:
    rng = np.random.default_rng(1)
    drawn = [draw_plan(SENSORS["D"], rng, mix).class_name for _ in range(4000)]
    for name in CLASSES:
        assert drawn.count(name) / 4000 == pytest.approx(mix[name], abs=4 * np.sqrt(mix[name] / 4000))


def test_a_smaller_sensor_gives_images_alike() -> None:
    """The spread of stretched clean frames does not depend on the size that was simulated."""
    spreads = []
    for sensor in (SENSORS["C"], SENSORS["C"].resized(560, 448)):
        out = np.empty((224, 224), np.float32)
        stds = []
        for seed in range(4):
            samples = simulate(sensor, Plan("OK", 0.0), seed=seed, nuisance=0.0).samples
            Stretcher(StretchParams(tone=Tone.LINEAR, z_range=16)).stretch(RawFrame.from_samples(samples, bits=10), out)
            stds.append(out.std())
        spreads.append(np.mean(stds))
    assert spreads[0] == pytest.approx(spreads[1], rel=0.12)


def test_jitter_and_rounding_put_a_floor_under_the_level_error() -> None:
    """The numbers of docs/math.md, eq. 12: for the true level itself, and for the best whole number."""
    rng = np.random.default_rng(0)
    alike = rng.uniform(0, 9, 60_000)
    frames = plans.sensor_set(list(SENSORS.values()), None, 4004)
    six = np.array([f.plan.level for f in frames if f.split == "test" and f.plan.class_name != "Error"])
    assert (six == 0).mean() == pytest.approx(0.256, abs=0.01)
    for levels, exact, whole in ((alike, 0.336, 0.238), (np.repeat(six, 30), 0.256, 0.184)):
        ratings = np.array([rate(level, rng) for level in levels])
        assert np.abs(ratings - levels).mean() == pytest.approx(exact, abs=0.006)
        assert np.abs(ratings - np.rint(levels)).mean() == pytest.approx(whole, abs=0.006)


@pytest.mark.parametrize("kind", FAILURES)
def test_a_capture_failure_breaks_what_its_boxes_say_and_nothing_else(kind: str) -> None:
    for seed in range(8):
        rng = np.random.default_rng(seed)
        clean = rng.normal(64, 3, (480, 640)).astype(np.float32)
        broken = clean.copy()
        boxes = FAILURES[kind](broken, rng, 3.0, 1023.0)
        inside = np.zeros(clean.shape, bool)
        for x0, y0, x1, y1 in boxes:
            assert 0 <= x0 < x1 <= 1
            assert 0 <= y0 < y1 <= 1
            inside[round(y0 * 480) : round(y1 * 480), round(x0 * 640) : round(x1 * 640)] = True
        assert (broken[inside] != clean[inside]).mean() > 0.3
        np.testing.assert_array_equal(broken[~inside], clean[~inside])


@pytest.mark.parametrize(("kind", "why"), [("stuck", "stuck bit"), ("tiles", "repeated tile"), ("blank", "no noise")])
def test_what_the_stretch_would_hide_is_refused_in_the_raw_samples(kind: str, why: str) -> None:
    out = np.empty((224, 224), np.float32)
    for seed in range(12):
        rng = np.random.default_rng(seed)
        sigma = float(np.exp(rng.uniform(0, np.log(8))))
        x = rng.normal(64, sigma, (480, 640)).astype(np.float32)
        FAILURES[kind](x, rng, sigma, 1023.0)
        codes = np.clip(np.rint(x), 0, 1023).astype(np.uint16)
        with pytest.raises(NotADarkFrameError, match=why):
            Stretcher(StretchParams()).stretch(RawFrame.from_samples(codes, bits=10), out)
