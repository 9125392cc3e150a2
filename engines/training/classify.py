"""The classifier: four classes, weighted cross entropy with Diagonal raised further (the dark-blemish paper)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from engines.models import ForImages
from engines.simulation import CLASSES
from engines.training.data import AMBIGUOUS, ImageSet
from engines.training.fit import Batch, Job, Stage, predict, to_images

DIAGONAL_RAISE = 1.5


def class_weights(labels: ImageSet) -> Tensor:
    """Square root of inverse frequency, Diagonal raised further, mean 1: (4,) float32."""
    counts = np.bincount(labels.class_index[labels.class_index != AMBIGUOUS], minlength=len(CLASSES))
    weights = 1 / np.sqrt(np.maximum(counts, 1))
    weights[CLASSES.index("Diagonal")] *= DIAGONAL_RAISE
    return torch.tensor(weights / weights.mean(), dtype=torch.float32)


def flip(images: Tensor, rng: np.random.Generator) -> Tensor:
    """Mirror a batch left to right and top to bottom, each with probability 1/2."""
    axes = [axis for axis in (2, 3) if rng.random() < 0.5]
    return images.flip(axes) if axes else images


def scores(logits: np.ndarray[tuple[int, ...], np.dtype[np.float32]], labels: ImageSet) -> dict[str, float]:
    """Accuracy and F1 of OK against NG, and accuracy over four classes."""
    truth = labels.class_index != CLASSES.index("OK")
    p = np.exp(logits - logits.max(1, keepdims=True))
    p_ng = 1 - p[:, 0] / p.sum(1)
    called = p_ng > 0.5
    f1 = 2 * (truth & called).sum() / max(1, truth.sum() + called.sum())
    return {
        "accuracy": float((truth == called).mean()),
        "f1": float(f1),
        "four_class": float((logits.argmax(1) == labels.class_index).mean()),
    }


def classifier_job(
    model: ForImages, train: ImageSet, validation: ImageSet, stages: tuple[Stage, ...], out: Path, *, seed: int = 0
) -> Job:
    """The job that trains a classifier; ambiguous frames are left out of both sets."""
    usable = np.flatnonzero(train.class_index != AMBIGUOUS)
    check = validation.select(validation.class_index != AMBIGUOUS)
    cross_entropy = nn.CrossEntropyLoss(weight=class_weights(train), label_smoothing=0.02)

    def draw(stage: Stage, rng: np.random.Generator) -> Batch:
        chosen = np.sort(rng.choice(usable, stage.batch, replace=len(usable) < stage.batch))
        images = flip(to_images(train.images[chosen], stage.side), rng)
        return images, torch.from_numpy(train.class_index[chosen])

    def loss(output: Tensor, batch: Batch) -> Tensor:
        result: Tensor = cross_entropy.to(output.device)(output, batch[1])
        return result

    return Job(
        model=model, draw=draw, loss=loss, stages=stages, out=out, seed=seed,
        validate=lambda m, side: scores(predict(m, check.images, side), check),
    )  # fmt: skip
