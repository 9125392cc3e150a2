"""The definition of eq. 4-6 and 9 in plain numpy."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kernels.errors import NonFiniteMapError
from kernels.reduce import HISTOGRAM_BINS


def unseen_map(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    """(2, h, w) logits -> (h, w) S = max(0, 1 - sigmoid(bg) - sigmoid(fg)).

    Raises:
        NonFiniteMapError: a logit is NaN or infinite.
    """
    if not np.isfinite(logits).all():
        raise NonFiniteMapError("unseen map: a logit is not finite")
    p_bg, p_fg = 1 / (1 + np.exp(-np.clip(logits.astype(np.float64), -40, 40)))
    return np.asarray(np.maximum(0, 1 - p_bg - p_fg))


def metrics(s: NDArray[np.float64], *, threshold: float, alpha: float) -> tuple[int, float, NDArray[np.intp]]:
    """M_thresh, M_alpha and the 256-bin histogram of S."""
    bins = np.clip(np.ceil(s * HISTOGRAM_BINS) - 1, 0, HISTOGRAM_BINS - 1).astype(np.intp)
    histogram = np.bincount(bins.reshape(-1), minlength=HISTOGRAM_BINS)
    return int((s > threshold).sum()), float((s**alpha).sum()), histogram
