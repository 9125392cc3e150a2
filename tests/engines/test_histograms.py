"""M_thresh and M_alpha from histograms hold what the maps themselves give, for any t and alpha."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from engines.histograms import m_alpha, m_thresh
from kernels.reduce import reference


def maps(seed: int, n: int = 5) -> NDArray[np.float64]:
    """(n, 32, 32) S with zeros, small values, values on edges of bins, and 1."""
    rng = np.random.default_rng(seed)
    s = rng.random((n, 32, 32)) ** rng.uniform(0.5, 8, (n, 1, 1))
    s[rng.random(s.shape) < 0.3] = 0
    on_edges = rng.random(s.shape) < 0.2
    s[on_edges] = rng.integers(0, 257, on_edges.sum()) / 256
    return s


def histograms(s: NDArray[np.float64]) -> NDArray[np.uint16]:
    return np.stack([reference.metrics(one, threshold=0.5, alpha=2)[2] for one in s]).astype(np.uint16)


@given(st.integers(0, 1000), st.integers(1, 255))
def test_m_thresh_is_exact_at_the_edges_of_bins(seed: int, edge: int) -> None:
    s = maps(seed)
    found = m_thresh(histograms(s), edge / 256)
    assert found.exact
    expected = (s > edge / 256).sum((1, 2))
    np.testing.assert_array_equal(found.lower, expected)
    np.testing.assert_array_equal(found.upper, expected)


@given(st.integers(0, 1000), st.floats(0, 1, exclude_max=True))
def test_m_thresh_lies_between_its_bounds(seed: int, t: float) -> None:
    s = maps(seed)
    found, true = m_thresh(histograms(s), t), (s > t).sum((1, 2))
    assert (found.lower <= true).all()
    assert (true <= found.upper).all()
    assert found.exact == (t * 256 == int(t * 256) and t > 0)


@given(st.integers(0, 1000), st.floats(0.05, 20))
def test_m_alpha_lies_between_its_bounds(seed: int, alpha: float) -> None:
    s = maps(seed)
    found, true = m_alpha(histograms(s), alpha), (s**alpha).sum((1, 2))
    assert (found.lower <= true * (1 + 1e-12)).all()
    assert (true <= found.upper * (1 + 1e-12)).all()
    assert (found.upper - found.lower <= 1024 * max(1, alpha) / 256 + 1024 / 256**alpha).all()


def test_more_histograms_than_fit_a_chunk() -> None:
    counts = np.random.default_rng(0).integers(0, 9, (2500, 256)).astype(np.uint16)
    np.testing.assert_array_equal(m_thresh(counts, 0.25).lower, counts[:, 64:].sum(1))
    assert len(m_thresh(counts[:0], 0.25).lower) == 0


@pytest.mark.parametrize("t", [-0.1, 1.0, float("nan")])
def test_a_t_out_of_range_is_refused(t: float) -> None:
    with pytest.raises(ValueError, match="t "):
        m_thresh(np.zeros((1, 256), np.uint16), t)


@pytest.mark.parametrize("alpha", [0.0, -1.0, float("nan"), float("inf")])
def test_an_alpha_out_of_range_is_refused(alpha: float) -> None:
    with pytest.raises(ValueError, match="alpha "):
        m_alpha(np.zeros((1, 256), np.uint16), alpha)
