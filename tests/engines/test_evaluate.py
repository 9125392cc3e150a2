"""The numbers of a report, worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from engines.training.conventional import conventional_score, cross_fitted, fit_spec
from engines.training.evaluate import Judged, evaluate
from tests.conftest import dark


def judged(
    class_name: str, called: str | None, *, level: float = 5.0, found: float | None = 5.0, sensor: str = "A"
) -> Judged:
    p_ng = None if called is None else 0.1 if called == "OK" else 0.9
    score = None if p_ng is None or found is None else p_ng * found / 10
    return Judged(sensor, class_name, level, round(level), called, p_ng, None if called is None else found, score, 1.0)


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


def test_spec_is_halfway_between_the_classes() -> None:
    assert fit_spec(np.array([1.0, 2.0, 5.0, 6.0]), np.array([False, False, True, True])) == 3.5
    assert fit_spec(np.array([1.0, 2.0]), np.array([False, False])) > 2
    assert fit_spec(np.array([1.0, 2.0]), np.array([True, True])) < 1


def test_no_frame_is_judged_by_a_spec_fitted_on_it() -> None:
    scores, defective = np.array([1.0, 1.0, 9.0, 9.0]), np.array([False, False, True, True])
    assert cross_fitted(scores, defective, np.array(["A"] * 4)).tolist() == defective.tolist()
    alone = cross_fitted(np.array([9.0]), np.array([True]), np.array(["A"]))
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
