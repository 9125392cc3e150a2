"""The numbers of a report, worked out by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from engines.training.conventional import PerSensorSpec, conventional_score, cross_fitted, fit_spec
from engines.training.data import Pictures
from engines.training.evaluate import Judged, difference, evaluate, f1_interval, mean_interval, wilson
from engines.training.networks import seen_from_all_sides
from tests.conftest import dark


def judged(
    class_name: str, called: str | None, *, level: float = 5.0, found: float | None = 5.0, sensor: str = "A"
) -> Judged:
    p_ng = None if called is None else 0.1 if called == "OK" else 0.9
    score = None if p_ng is None or found is None else p_ng * found / 10
    return Judged(
        sensor,
        class_name,
        level,
        round(level),
        called,
        p_ng,
        None if called is None else found,
        score,
        1.0,
        called is None,
    )


def test_accuracy_f1_recall_and_confusion() -> None:
    frames = [
        judged("OK", "OK", level=0, found=0), judged("OK", "Spot", level=0, found=4), judged("Spot", "Spot"), judged("Spot", "OK"),
        judged("Error", None, level=10), judged("Spot", "Spot", level=3.0),
    ]  # fmt: skip
    report = evaluate(frames, np.array([False, False, True, True, False, True]), spec=0.3)
    assert (report["n"], report["ambiguous"], report["refused"]) == (5, 1, 1)
    assert report["accuracy"] == pytest.approx(3 / 5)
    assert report["f1"] == pytest.approx(2 * 2 / (3 + 3))
    assert report["recall"] == pytest.approx(2 / 3)
    assert report["confusion"]["Spot"] == {"OK": 1, "Spot": 1, "Diagonal": 0, "Error": 0, "refused": 0}
    assert report["confusion"]["Error"]["refused"] == 1
    assert report["conventional"]["accuracy"] == pytest.approx(4 / 5)
    assert report["per_sensor"]["A"]["n"] == 5


def test_level_errors() -> None:
    frames = [
        judged("Spot", "Spot", level=5, found=5.5),
        judged("Spot", "Spot", level=8, found=4.0),
        judged("OK", "OK", level=1, found=1.0),
    ]
    report = evaluate(frames, np.zeros(3, bool), spec=0.3)
    assert report["mae"] == pytest.approx(1.5)
    assert report["beyond_3"] == pytest.approx(1 / 3)
    assert report["pcc"] == pytest.approx(np.corrcoef([5.5, 4, 1], [5, 8, 1])[0, 1])


def test_intervals_of_shares_are_wilsons() -> None:
    # Worked example of E. B. Wilson's interval: 15 of 20.
    assert wilson(15, 20) == pytest.approx([0.5313, 0.8881], abs=1e-4)
    assert wilson(0, 0) == [0.0, 1.0]
    assert wilson(10, 10)[1] == pytest.approx(1.0)


def test_the_interval_of_a_mean_narrows_with_its_root() -> None:
    """1, 2, 3 have mean 2 and SD 1: 2 -+ 1.96 / sqrt(3)."""
    assert mean_interval(np.array([1.0, 2.0, 3.0])) == pytest.approx([0.8684, 3.1316], abs=1e-4)
    assert np.isnan(mean_interval(np.array([1.0]))).all()


def test_the_interval_of_f1_covers_repeats_of_the_experiment() -> None:
    rng = np.random.default_rng(1)
    covered = 0
    for _ in range(200):
        truth = rng.random(400) < 0.35
        called = np.where(rng.random(400) < 0.05, ~truth, truth)
        low, high = f1_interval(truth, called)
        covered += low <= 0.9302 <= high  # 2 * .35 * .95 / (.35 + .35 * .95 + .65 * .05)
    assert covered >= 180  # 190 expected, SD 3


def test_a_report_has_intervals_distributions_and_levels() -> None:
    frames = [judged("OK", "OK", level=1, found=n / 10) for n in range(20)] + [judged("Spot", "Spot", level=6, found=6)]
    report = evaluate(frames, np.zeros(21, bool), spec=0.3)
    assert report["intervals"]["recall"] == pytest.approx(wilson(1, 1))
    assert report["false_alarms"] == 0
    assert report["level_by_rating"]["1"]["median"] == pytest.approx(0.95)
    assert report["scores"]["A"]["umbra"]["NG"]["median"] == pytest.approx(0.54)
    assert report["scores"]["A"]["conventional_dn"]["OK"]["n"] == 20


def test_flips_between_two_engines_are_counted() -> None:
    frames = [judged("Spot", "Spot", found=5), judged("OK", "OK", found=1), judged("Spot", None)]
    others = [judged("Spot", "OK", found=4), judged("OK", "OK", found=1.5), judged("Spot", None)]
    found = difference(frames, others, spec=0.3)
    assert (found["flips"], found["flip_share"]) == (1, pytest.approx(1 / 3))
    assert found["score_difference"] == pytest.approx((0.9 * 0.5 - 0.1 * 0.4 + 0.1 * 0.05) / 2)
    assert found["level_difference"] == pytest.approx(0.75)
    assert found["mae"] == pytest.approx((1 + 3.5) / 2)


def test_what_was_not_measured_is_not_counted() -> None:
    """A classifier alone gives no verdicts, a regressor alone no classes; neither makes frames refused."""
    whole = [judged("Spot", "Spot"), judged("OK", "OK", level=0, found=0), judged("Spot", None)]
    classified = evaluate([replace(f, level=None, score=None) for f in whole], None, spec=0.3)
    assert (classified["accuracy"], classified["f1"], classified["refused"]) == (1, 1, 1)
    assert np.isnan([classified["verdicts"]["accuracy"], classified["mae"], *classified["mae_interval"]]).all()
    rated = evaluate([replace(f, p_ng=None, called_class=None, score=None) for f in whole], None, spec=0.3)
    assert rated["mae"] == 0
    assert (rated["refused"], rated["confusion"]) == (1, {})
    assert np.isnan([rated["accuracy"], rated["class_accuracy"], rated["verdicts"]["f1"], rated["per_sensor"]["A"]["f1"],
                     *rated["intervals"]["f1"]]).all()  # fmt: skip


def test_levels_that_are_no_whole_numbers_keep_their_own_boxes() -> None:
    frames = [judged("Spot", "Spot", level=level, found=level) for level in (3.0, 3.0)]
    frames += [replace(frames[0], rating=10 / 3, level=4.0)]
    boxes = evaluate(frames, None, spec=0.3)["level_by_rating"]
    assert {key: box["mean"] for key, box in boxes.items()} == {"3": 3.0, "3.333": 4.0}


def test_a_conventional_spec_is_fitted_a_sensor_on_other_frames() -> None:
    spec = PerSensorSpec.fit(
        np.array([1.0, 3.0, 10.0, 30.0]), np.array([False, True] * 2), np.array(["A", "A", "B", "B"])
    )
    assert spec.limits == {"A": 2.0, "B": 20.0}
    assert spec.calls(np.array([5.0, 5.0]), np.array(["A", "B"])).tolist() == [True, False]


def test_spec_is_halfway_between_the_classes() -> None:
    assert fit_spec(np.array([1.0, 2.0, 5.0, 6.0]), np.array([False, False, True, True])) == 3.5
    assert fit_spec(np.array([1.0, 2.0]), np.array([False, False])) > 2
    assert fit_spec(np.array([1.0, 2.0]), np.array([True, True])) < 1
    tied = fit_spec(np.array([1.0, 2.0, 2.0, 2.0, 2.0, 2.0]), np.array([0, 0, 1, 1, 1, 1], bool))
    assert tied == 1.5  # no limit parts equal scores


def test_no_frame_is_judged_by_a_spec_fitted_on_it() -> None:
    scores, defective = np.array([1.0, 1.0, 9.0, 9.0]), np.array([False, False, True, True])
    clear = np.ones(4, bool)
    assert cross_fitted(scores, defective, np.array(["A"] * 4), clear).tolist() == defective.tolist()
    misled = cross_fitted(scores, ~defective, np.array(["A"] * 4), np.array([True, False, True, True]))
    assert misled.tolist() == [False, True, False, True]  # the ambiguous frame has no say in the other half's spec
    alone = cross_fitted(np.array([9.0]), np.array([True]), np.array(["A"]), np.array([True]))
    assert alone.tolist() == [False]  # nothing to fit on: nothing is called


def test_conventional_score_grows_with_a_spot_and_ignores_hot_pixels() -> None:
    samples = dark(512, 512)
    plain = conventional_score(samples)
    hot = samples.copy()
    hot[100, 100] = 60000
    assert conventional_score(hot) == pytest.approx(plain, abs=0.2)
    spot = samples.copy()
    spot[200:240, 200:240] += 8
    assert conventional_score(spot) > plain + 4


def test_pictures_are_judged_from_all_sides() -> None:
    """An output that depends on direction does not any more, and each of the eight views counts once."""
    images = np.random.default_rng(3).integers(0, 256, (5, 8, 8), dtype=np.uint8)

    def corner(batch: np.ndarray) -> np.ndarray:
        return batch[:, 0, 1].astype(np.float32)

    mean = seen_from_all_sides(corner, Pictures.TURNED)
    beside_corners = [(0, 1), (1, 0), (0, 6), (6, 0), (7, 1), (1, 7), (7, 6), (6, 7)]
    assert mean(images) == pytest.approx(np.mean([images[:, y, x] for y, x in beside_corners], axis=0))
    assert mean(np.rot90(images, 1, (1, 2))) == pytest.approx(mean(images))
    assert not np.allclose(corner(images), mean(images))
    upright = seen_from_all_sides(corner, Pictures.UPRIGHT)
    assert upright(images) == pytest.approx(np.mean([images[:, y, x] for y, x in beside_corners[::2]], axis=0))
