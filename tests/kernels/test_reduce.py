"""Unseen metrics by example."""

import numpy as np
import pytest

from kernels import NonFiniteMapError, Reducer


def logits(bg: float, fg: float, shape: tuple[int, int] = (5, 7)) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return np.stack([np.full(shape, bg, np.float32), np.full(shape, fg, np.float32)])


def test_what_either_map_claims_is_not_unseen() -> None:
    for bg, fg in [(30, -30), (-30, 30), (30, 30)]:
        m = Reducer(threshold=0.3, alpha=2).reduce(logits(bg, fg))
        assert (m.m_thresh, m.m_alpha, m.peak) == (0, 0.0, 0.0)
        assert m.histogram[0] == 35


def test_what_neither_map_claims_is_unseen() -> None:
    m = Reducer(threshold=0.3, alpha=2).reduce(logits(-30, -30))
    assert m.m_thresh == 35
    assert m.m_alpha == pytest.approx(35)
    assert m.histogram[255] == 35
    assert (m.map == 255).all()


def test_a_value_on_a_bin_edge_belongs_below_it() -> None:
    quarter = np.log(0.375 / 0.625)  # sigmoid 0.375 twice: S = 1/4
    m = Reducer(threshold=0.25, alpha=1).reduce(logits(float(quarter), float(quarter)))
    assert m.histogram[63] + m.histogram[64] == 35
    assert m.peak == pytest.approx(0.25, abs=1e-6)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_logit_that_is_not_finite_is_refused_and_counted(isa: str, bad: float) -> None:
    pair = logits(-3, -3)
    pair[1, 4, 6] = bad
    with pytest.raises(NonFiniteMapError, match="1 of 35"):
        Reducer(threshold=0.3, alpha=2).reduce(pair)


@pytest.mark.parametrize(("threshold", "alpha"), [(0, 2), (1, 2), (0.5, 0)])
def test_parameters_out_of_range_are_refused(threshold: float, alpha: float) -> None:
    with pytest.raises(ValueError, match="wanted"):
        Reducer(threshold=threshold, alpha=alpha)
