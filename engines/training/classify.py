"""The classifier: four classes, weighted cross entropy with Diagonal raised further (the dark-blemish paper)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from engines.classes import CLASSES, p_ng
from engines.models import ForImages
from engines.training.data import AMBIGUOUS, ImageSet, Pictures
from engines.training.fit import Batch, Job, Stage, predict, to_images

DIAGONAL_RAISE = 1.5
MOST_TURN, UPRIGHT_TURN = 0.15, 0.05  # radians beside whole quarters or halves
MOST_SCALE, MOST_SHIFT, MOST_CONTRAST = 0.15, 0.12, 0.25  # log, half sides, log


def class_weights(labels: ImageSet) -> Tensor:
    """Square root of inverse frequency, Diagonal raised further, mean 1 over classes that are there, else 0: (4,) float32."""
    counts = np.bincount(labels.class_index[labels.class_index != AMBIGUOUS], minlength=len(CLASSES))
    weights = 1 / np.sqrt(np.maximum(counts, 1))
    weights[CLASSES.index("Diagonal")] *= DIAGONAL_RAISE
    weights[counts == 0] = 0
    return torch.tensor(weights / weights[counts > 0].mean(), dtype=torch.float32)


def flip(images: Tensor, rng: np.random.Generator) -> Tensor:
    """Mirror a batch left to right and top to bottom, each with probability 1/2."""
    axes = [axis for axis in (2, 3) if rng.random() < 0.5]
    return images.flip(axes) if axes else images


def augment(images: Tensor, rng: np.random.Generator, *, upright: bool = False) -> Tensor:
    """Pictures of which there are few, varied: turned by quarters, mirrored, shifted, scaled, at another contrast.

    Args:
        images: (n, 1, side, side) in [0, 1], 1/2 the background.
        rng: draws everything; each picture gets its own.
        upright: whether what is horizontal stays so: turned by halves only, and less beside that.
    """
    n = len(images)
    quarters, most = (rng.integers(0, 2, n) * 2, UPRIGHT_TURN) if upright else (rng.integers(0, 4, n), MOST_TURN)
    turn = quarters * np.pi / 2 + rng.uniform(-most, most, n)
    scale, mirror = np.exp(rng.uniform(-MOST_SCALE, MOST_SCALE, n)), rng.choice([-1, 1], n)
    shift = rng.uniform(-MOST_SHIFT, MOST_SHIFT, (n, 2))
    c, s = np.cos(turn) * scale, np.sin(turn) * scale
    matrices = np.stack([np.stack([c * mirror, -s, shift[:, 0]], 1), np.stack([s * mirror, c, shift[:, 1]], 1)], 1)
    grid = nn.functional.affine_grid(torch.from_numpy(matrices.astype(np.float32)), list(images.shape), False)
    moved = nn.functional.grid_sample(images, grid, padding_mode="reflection", align_corners=False)
    contrast = torch.from_numpy(np.exp(rng.uniform(-MOST_CONTRAST, MOST_CONTRAST, (n, 1, 1, 1))).astype(np.float32))
    return ((moved - 0.5) * contrast + 0.5).clamp(0, 1)


def varied(
    train: ImageSet, chosen: NDArray[np.int64], stage: Stage, rng: np.random.Generator, pictures: Pictures | None
) -> Tensor:
    """Images of a set at a stage's side: frames mirrored, pictures varied further."""
    images = to_images(train.images[chosen], stage.side)
    return flip(images, rng) if pictures is None else augment(images, rng, upright=pictures is Pictures.UPRIGHT)


def scores(logits: NDArray[np.float32], labels: ImageSet) -> dict[str, float]:
    """Accuracy and F1 of OK against NG, and accuracy over four classes; logits are (n, 4), labels n clear images."""
    truth = labels.class_index != CLASSES.index("OK")
    called = p_ng(logits) > 0.5
    f1 = 2 * (truth & called).sum() / max(1, truth.sum() + called.sum())
    return {
        "accuracy": float((truth == called).mean()),
        "f1": float(f1),
        "four_class": float((logits.argmax(1) == labels.class_index).mean()),
    }


def classifier_job(
    model: ForImages,
    train: ImageSet,
    validation: ImageSet,
    stages: tuple[Stage, ...],
    out: Path,
    *,
    seed: int = 0,
    classes: int = 4,
    pictures: Pictures | None = None,
) -> Job:
    """The job that trains a classifier; ambiguous frames are left out of both sets.

    With `classes` 2 it learns OK against the rest, which takes the place of Spot: for comparison alone, since the paper
    found four classes to tell OK from NG better. Pictures have no rows and columns of a read-out: they are varied further.
    """
    if classes == 2:
        train, validation = (
            replace(images, class_index=np.minimum(images.class_index, 1)) for images in (train, validation)
        )
    usable = np.flatnonzero(train.class_index != AMBIGUOUS)
    check = validation.select(validation.class_index != AMBIGUOUS)
    cross_entropy = nn.CrossEntropyLoss(weight=class_weights(train), label_smoothing=0.02)

    def draw(stage: Stage, rng: np.random.Generator) -> Batch:
        chosen = np.sort(rng.choice(usable, stage.batch, replace=len(usable) < stage.batch))
        return varied(train, chosen, stage, rng, pictures), torch.from_numpy(train.class_index[chosen])

    def loss(output: Tensor, batch: Batch) -> Tensor:
        result: Tensor = cross_entropy.to(output.device)(output, batch[1])
        return result

    return Job(
        model=model, draw=draw, loss=loss, stages=stages, out=out, seed=seed,
        validate=lambda m, side: scores(predict(m, check.images, side), check),
    )  # fmt: skip
