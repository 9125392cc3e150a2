"""The visibility regressor: Huber loss on whole-number ratings (the dark-blemish paper)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from engines.classes import CLASSES
from engines.models import LEVEL_MIDDLE, LEVEL_SPAN, ForImages
from engines.training.classify import varied
from engines.training.data import ImageSet, Pictures
from engines.training.fit import Batch, Job, Stage, predict

HUBER_DELTA = 0.5  # levels: what the jitter and rounding of a rating leave open


def scores(levels: NDArray[np.float32], rating: NDArray[np.float32]) -> dict[str, float]:
    """Mean absolute error, share beyond 3 levels and Pearson correlation of levels clamped to 0..10."""
    clamped = np.clip(levels, 0, 10)
    error = np.abs(clamped - rating)
    below_ten = rating < 10
    return {
        "mae": float(error.mean()),
        "mae_0_to_9": float(error[below_ten].mean()),
        "beyond_3": float((error > 3).mean()),
        "pcc": float(np.corrcoef(clamped, rating)[0, 1]),
    }


def calibrate(model: ForImages, validation: ImageSet) -> tuple[float, float]:
    """Give the last layer the slope and offset that make the levels' mean absolute error on validation frames least.

    Huber loss on a training set with many frames at the border draws levels together; validation frames are as
    frequent, level by level, as on a station. Capture failures have no visibility and are left out.

    Returns:
        Slope and offset, levels: level = slope x before + offset.
    """
    rated = validation.select(validation.class_index != CLASSES.index("Error"))
    levels = predict(model, rated.images, model.side)[:, 0]

    def error(slope: float, offset: float) -> float:
        return float(np.abs(np.clip(slope * levels + offset, 0, 10) - rated.rating).mean())

    _, slope, offset = min(
        (error(a, c), float(a), float(c)) for a in np.arange(0.9, 1.1001, 0.01) for c in np.arange(-0.5, 0.5001, 0.02)
    )
    with torch.no_grad():
        last = model.get_submodule("network.fc")
        last.get_parameter("weight").mul_(slope)
        last.get_parameter("bias").mul_(slope).add_((slope * LEVEL_MIDDLE + offset - LEVEL_MIDDLE) / LEVEL_SPAN)
    return slope, offset


def regressor_job(
    model: ForImages,
    train: ImageSet,
    validation: ImageSet,
    stages: tuple[Stage, ...],
    out: Path,
    *,
    seed: int = 0,
    pictures: Pictures | None = None,
) -> Job:
    """The job that trains a regressor on all frames, ambiguous ones included; pictures are varied further."""
    huber = nn.HuberLoss(delta=HUBER_DELTA)

    def draw(stage: Stage, rng: np.random.Generator) -> Batch:
        chosen = np.sort(rng.choice(len(train), stage.batch, replace=len(train) < stage.batch))
        return varied(train, chosen, stage, rng, pictures), torch.from_numpy(train.rating[chosen])

    def loss(output: Tensor, batch: Batch) -> Tensor:
        result: Tensor = huber(output[:, 0], batch[1])
        return result

    return Job(
        model=model, draw=draw, loss=loss, stages=stages, out=out, seed=seed,
        validate=lambda m, side: scores(predict(m, validation.images, side)[:, 0], validation.rating),
    )  # fmt: skip
