"""The classes of a frame, in the order of the classifier's outputs, and their probabilities."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

CLASSES = ("OK", "Spot", "Diagonal", "Error")


def probabilities(logits: NDArray[np.floating]) -> NDArray[np.float64]:
    """Softmax over the last axis, float64: (..., 4) logits -> (..., 4), each 0..1, sum 1."""
    powers = np.exp(logits.astype(np.float64) - logits.max(-1, keepdims=True))
    return np.asarray(powers / powers.sum(-1, keepdims=True))


def p_ng(logits: NDArray[np.floating]) -> NDArray[np.float64]:
    """P(NG) = 1 - P(OK) (eq. 1): (..., 4) logits -> (...)."""
    return np.asarray(1 - probabilities(logits)[..., 0])
