"""Distributions of a test set in a bundle, and the index that tells one population from another."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engines import Bundle, BundleError
from engines.bundle import add_reference, load
from engines.reference import METRICS, Distribution, Reference

ALARM, WINDOW = 0.25, 200  # of `umbra report`


def rows(seed: int, count: int, **other: Any) -> list[dict[str, Any]]:
    noise = np.random.default_rng(seed).normal(4, 0.3, (count, len(METRICS)))
    return [dict(zip(METRICS, map(float, line), strict=True)) | {"class": "OK"} | other for line in noise]


def test_bins_are_filled_alike_and_ties_make_fewer() -> None:
    one = Distribution.of(np.arange(1000))
    assert (len(one.edges), one.frames) == (9, 1000)
    assert one.shares == pytest.approx([0.1] * 10, abs=0.002)
    mostly = Distribution.of([0.0] * 95 + [5.0, 6.0, 7.0, 8.0, 9.0])
    assert (mostly.edges, mostly.shares) == ((5.0,), (0.95, 0.05)), "those that are not zero have a bin"
    same = Distribution.of([2.0] * 500)
    assert same.shares == (0.0, 1.0, 0.0)
    assert same.stability_index([2.0] * 200) < 0.01
    assert same.stability_index([2.0] * 100 + [2.1] * 100) > ALARM < same.stability_index([1.9] * 200)
    assert one.stability_index([]) == 0
    with pytest.raises(ValueError, match="no values"):
        Distribution.of([])


def test_the_index_is_the_sum_over_bins() -> None:
    one = Distribution(edges=(1.0,), shares=(0.5, 0.5), frames=100, range=(0.0, 1.0))
    a, e = np.array([30.5, 70.5]) / 101, np.array([50.5, 50.5]) / 101
    assert one.stability_index([0.0] * 30 + [1.0] * 70) == pytest.approx(((a - e) * np.log(a / e)).sum())


@pytest.mark.parametrize("frames", [500, 1200])
def test_one_population_raises_no_alarm_in_999_of_1000_cases(frames: int) -> None:
    draw = np.random.default_rng(7)
    indices = [
        Distribution.of(draw.gamma(2, size=frames)).stability_index(draw.gamma(2, size=WINDOW)) for _ in range(3000)
    ]
    assert np.mean(np.array(indices) > ALARM) <= 0.001
    assert np.mean(indices) == pytest.approx(9 * (1 / frames + 1 / WINDOW), rel=0.1), "as chi-squared has it"


@pytest.mark.parametrize(
    "change", [lambda x: x * 2, lambda x: x + 0.8, lambda x: x * 0.6], ids=["wider", "moved", "narrower"]
)
def test_another_population_does(change: Callable[[Any], Any]) -> None:
    draw = np.random.default_rng(8)
    reference = Distribution.of(draw.normal(0, 1, 1200))
    found = [reference.stability_index(change(draw.normal(0, 1, WINDOW))) for _ in range(100)]
    assert np.mean(np.array(found) > ALARM) > 0.95


def test_the_range_holds_99_of_100() -> None:
    draw = np.random.default_rng(9)
    one = Distribution.of(draw.normal(5, 1, 5000))
    assert one.range == pytest.approx((5 - 2.576, 5 + 2.576), abs=0.2)
    assert one.outside(draw.normal(5, 1, 20_000)) == pytest.approx(0.01, abs=0.004)
    assert one.outside([5.0, 5.0, 9.0, 1.0]) == 0.5
    alike = [one.outside(draw.normal(5, 1, WINDOW)) > 0.05 for _ in range(3000)]
    assert np.mean(alike) <= 0.001


def test_only_frames_called_ok_count() -> None:
    found = Reference.of("x", rows(1, 50) + rows(2, 50, **{"class": "Spot"}) + [dict.fromkeys((*METRICS, "class"))])
    assert {one.frames for one in found.metrics.values()} == {50}


def test_a_bundle_carries_its_test_set(starter: Bundle, tmp_path: Path) -> None:
    first = add_reference(starter, tmp_path / "one", Reference.of('seed "1"', rows(1, 300)))
    assert first.reference == Reference.of('seed "1"', rows(1, 300))
    assert (first.name, first.spec, first.stretch) == (starter.name, starter.spec, starter.stretch)
    assert first.digest != starter.digest
    assert len(first.golden()) == len(starter.golden())
    second = add_reference(first, tmp_path / "two", Reference.of("seed 2", rows(2, 300)))
    assert second.reference == Reference.of("seed 2", rows(2, 300)), "in the place of the first"
    assert (tmp_path / "two/bundle.toml").read_text().count("[reference]") == 1
    assert "[training]" in (tmp_path / "two/bundle.toml").read_text()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("frames = 1000", "frames = 'many'"),
        ("edges = [", "edges = [9e9, "),
        ("range = [", "range = [1, "),
        ("source = ", "sources = "),
        ("shares = [0.0", "shares = [0.9"),
    ],
)
def test_a_test_set_that_is_none_is_refused(starter: Bundle, tmp_path: Path, old: str, new: str) -> None:
    add_reference(starter, tmp_path / "one", Reference.of("x", rows(1, 1000)))
    toml = tmp_path / "one/bundle.toml"
    text = toml.read_text()
    assert old in text
    toml.write_text(text.replace(old, new))
    with pytest.raises(BundleError, match=r"bundle\.toml"):
        load(tmp_path / "one")


def test_the_shipped_bundle_has_one(starter: Bundle) -> None:
    assert starter.reference is not None
    assert min(one.frames for one in starter.reference.metrics.values()) > 1000
