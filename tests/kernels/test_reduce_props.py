"""The reduction equals its numpy definition for any logits, threshold, alpha and size."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from kernels import Reducer
from kernels.reduce import reference

ISA_SETTINGS = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
S_ERROR = 1e-6  # two exponentials of 3e-7 and float32 rounding


def draw_logits(seed: int, height: int, width: int, spread: float) -> NDArray[np.float32]:
    rng = np.random.default_rng(seed)
    return rng.normal(rng.uniform(-3, 3), spread, (2, height, width)).astype(np.float32)


@ISA_SETTINGS
@given(
    seed=st.integers(0, 2**31), height=st.integers(1, 80), width=st.integers(1, 80), spread=st.floats(0, 60),
    threshold=st.floats(0.01, 0.99), alpha=st.sampled_from([0.5, 1.0, 2.0, 3.7, 8.0]),
)  # fmt: skip
def test_equals_reference(
    isa: str, seed: int, height: int, width: int, spread: float, threshold: float, alpha: float
) -> None:
    pair = draw_logits(seed, height, width, spread)
    s = reference.unseen_map(pair)
    got = Reducer(threshold=threshold, alpha=alpha).reduce(pair)
    _, m_alpha, _ = reference.metrics(s, threshold=threshold, alpha=alpha)
    # Pixels whose S lies within the error of an edge may fall to either side of it.
    assert (s > threshold + S_ERROR).sum() <= got.m_thresh <= (s > threshold - S_ERROR).sum()
    below = np.concatenate([[0], np.cumsum(got.histogram)])
    for j in (1, 64, 128, 255):
        assert (s > j / 256 + S_ERROR).sum() <= s.size - below[j] <= (s > j / 256 - S_ERROR).sum()
    # d(S^alpha) = alpha S^(alpha-1) dS, at most alpha dS for alpha >= 1; sqrt(dS) for alpha = 1/2.
    per_pixel = max(1.0, alpha) * S_ERROR * 2 if alpha >= 1 else S_ERROR**alpha
    assert got.m_alpha == pytest.approx(m_alpha, abs=per_pixel * s.size, rel=1e-5)
    assert got.peak == pytest.approx(s.max(), abs=S_ERROR)
    assert np.abs(got.map - 255 * s).max() <= 0.5 + 255 * S_ERROR
    assert got.histogram.sum() == s.size


@ISA_SETTINGS
@given(seed=st.integers(0, 2**31), bin_edge=st.integers(1, 255))
def test_histogram_gives_m_thresh_at_bin_edges_exactly(isa: str, seed: int, bin_edge: int) -> None:
    pair = draw_logits(seed, 40, 41, 3.0)
    got = Reducer(threshold=bin_edge / 256, alpha=2).reduce(pair)
    assert got.m_thresh == got.histogram[bin_edge:].sum()


@ISA_SETTINGS
@given(seed=st.integers(0, 2**31), push=st.floats(0, 5))
def test_less_claimed_means_more_unseen(isa: str, seed: int, push: float) -> None:
    pair = draw_logits(seed, 20, 20, 2.0)
    reducer = Reducer(threshold=0.4, alpha=2)
    assert reducer.reduce(pair - np.float32(push)).m_alpha >= reducer.reduce(pair).m_alpha - 1e-4
