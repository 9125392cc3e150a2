"""Levels against many raters, worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from engines.training.agreement import Opinion, agreement


def opinions(scores: dict[str, tuple[int, list[float]]]) -> list[Opinion]:
    return [Opinion(f, level, f"r{i}", s) for f, (level, given) in scores.items() for i, s in enumerate(given)]


def test_mean_opinion_scores_by_level() -> None:
    report = agreement(opinions({"a": (2, [1, 3]), "b": (2, [3, 3]), "c": (6, [5, 7]), "d": (10, [10, 10])}))
    assert (report["frames"], report["raters"], report["left_out"]) == (3, 2, 1)
    assert report["mos_by_level"]["2"]["mean"] == pytest.approx(2.5)
    assert report["mos_by_level"]["6"]["median"] == pytest.approx(6.0)
    assert report["pcc_mean"] == pytest.approx(1.0)
    assert report["pcc_frames"] == pytest.approx(np.corrcoef([2, 2, 6], [2, 3, 6])[0, 1])
    assert report["within_1"] == 1.0


def test_thirty_raters_with_a_jitter_agree_with_the_levels() -> None:
    rng = np.random.default_rng(0)
    frames = {f"{level}-{n}": (level, list(np.clip(level + rng.normal(0, 1, 30), 0, 10)))
              for level in range(10) for n in range(20)}  # fmt: skip
    report = agreement(opinions(frames))
    assert report["pcc_mean"] > 0.99
    assert report["pcc_median"] > 0.99
    # Scores are cut off at 0, so that level 0 is rated too high; elsewhere the mean of 30 has an SD of 0.18.
    assert report["mos_by_level"]["5"]["median"] == pytest.approx(5, abs=0.2)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([Opinion("a", 2, "x", 1), Opinion("a", 3, "y", 1)], "frame a: level 3, and 2"),
        ([Opinion("a", 2, "x", 1), Opinion("a", 2, "x", 1)], "rated twice by x"),
        ([Opinion("a", 2, "x", 1), Opinion("b", 2, "x", 1)], "at least two levels"),
    ],
)
def test_contradictions_are_refused(given: list[Opinion], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        agreement(given)
