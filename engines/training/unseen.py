"""The unseen UNet: two independent maps from boxes, negatives weighed four times, and outlier exposure.

Trained as the image-ranking paper prints it, the two maps are mirrors of each other and S is empty. The weight lets
both maps stay low where the network is in doubt; pasted patches with both targets 0 teach it to doubt what is new.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from engines.classes import CLASSES
from engines.models import INPUT_GAIN, ForImages
from engines.regions import BOX_MARGIN, NEGATIVE_WEIGHT
from engines.training.data import ImageSet
from engines.training.fit import Batch, Job, Stage, predict
from kernels import IMAGE_SIDE

EXPOSED_SHARE = 0.7
LEAST_CHANGE = 0.4  # mean change of a paste, in SD of clean noise averaged over 8x8 pixels, below which it is dropped
LEFT_OUT_KINDS = ("ring",)  # shapes kept unseen, so that evaluation has something new to find

Plane = NDArray[np.float32]


def seen_only(labels: ImageSet) -> ImageSet:
    """The frames the UNet may learn from: no capture failure and no left-out shape."""
    return labels.select((labels.class_index != CLASSES.index("Error")) & ~np.isin(labels.kind, LEFT_OUT_KINDS))


def box_target(boxes: NDArray[np.float32]) -> Plane:
    """(k, 4) boxes -> (224, 224) float32: 1 inside any box enlarged by 10 px."""
    target = np.zeros((IMAGE_SIDE, IMAGE_SIDE), np.float32)
    for x0, y0, x1, y1 in boxes:
        top, left = max(0, int(y0) - BOX_MARGIN), max(0, int(x0) - BOX_MARGIN)
        target[top : int(np.ceil(y1)) + BOX_MARGIN, left : int(np.ceil(x1)) + BOX_MARGIN] = 1
    return target


def _texture(rng: np.random.Generator, side: int) -> Plane:
    """A patch unlike clean noise and labeled blemishes, in units of clean noise."""
    yy, xx = np.mgrid[0:side, 0:side].astype(np.float32)
    kind = rng.integers(4)
    if kind == 0:  # coarse noise
        noise = rng.standard_normal((side, side)).astype(np.float32)
        blurred = cv2.GaussianBlur(
            noise, (0, 0), float(rng.choice([1, 2, 4, 8])), sigmaY=float(rng.choice([1, 2, 4, 8]))
        )
        texture = blurred / blurred.std() * rng.uniform(0.5, 3)
    elif kind == 1:  # stripes or checks
        angle, period = rng.choice([0, np.pi / 2, rng.uniform(0, np.pi)]), rng.uniform(3, 24)
        texture = np.sin((xx * np.cos(angle) + yy * np.sin(angle)) * 2 * np.pi / period) * rng.uniform(0.5, 3)
        if rng.random() < 0.5:
            texture = np.sign(texture) * rng.uniform(0.5, 3)
    elif kind == 2:  # flat
        texture = np.zeros((side, side), np.float32)
    else:  # noise of another strength
        texture = rng.standard_normal((side, side)) * rng.choice([0.2, 2, 3])
    return np.asarray(texture + rng.choice([0, rng.normal() * 2.5]), np.float32)


def _mask(rng: np.random.Generator, side: int) -> NDArray[np.uint8]:
    """Where a patch goes: rectangle, full-width rows or columns, ellipse, outline or stroke."""
    mask = np.zeros((side, side), np.uint8)
    size = int(np.exp(rng.uniform(np.log(6), np.log(side * 0.4))))
    r, c = (int(v) for v in rng.integers(0, side, 2))
    kind = rng.integers(6)
    if kind == 0:
        mask[r : r + size, c : c + max(4, int(size * rng.uniform(0.5, 2)))] = 1
    elif kind == 1:
        mask[r : r + max(2, size // 3), :] = 1
    elif kind == 2:
        mask[:, c : c + max(2, size // 3)] = 1
    else:
        axes = (max(3, size // 2), max(3, int(size / 2 * rng.uniform(0.5, 1))))
        thickness = -1 if kind == 3 else max(2, size // 10)
        if kind == 5:
            steps = np.cumsum(rng.normal(size=(8, 2)) * size / 4, axis=0) + np.array([c, r])
            cv2.polylines(mask, [steps.astype(np.int32)], isClosed=False, color=1, thickness=thickness)
        else:
            cv2.ellipse(mask, (c, r), axes, float(rng.uniform(0, 180)), 0, 360, 1, thickness)
    return mask


def expose_outlier(image: Plane, target: NDArray[np.float32], rng: np.random.Generator) -> None:
    """Paste one patch into an image and set both its targets to 0 there; in place.

    Args:
        image: (h, w) in units of clean noise.
        target: (2, h, w) background and object.
        rng: draws everything.
    """
    side = image.shape[0]
    mask = _mask(rng, side)
    soft = cv2.GaussianBlur(mask.astype(np.float32), (0, 0), 0.7) * rng.uniform(0.5, 1)
    if rng.random() < 0.35:  # an offset of the image itself
        pasted = image + soft * np.float32(rng.choice([-1, 1]) * rng.uniform(0.5, 4))
    else:
        pasted = image * (1 - soft) + _texture(rng, side) * soft
    change = np.abs(cv2.blur(pasted - image, (8, 8)))[mask > 0]
    if change.size < 8 or change.mean() < LEAST_CHANGE:
        return
    image[:] = pasted
    target[:, mask > 0] = 0


def unseen_loss(logits: Tensor, batch: Batch) -> Tensor:
    """L = -t log p - 4 (1 - t) log(1 - p), mean over both maps and all pixels."""
    target = batch[1]
    terms = target * functional.softplus(-logits) + NEGATIVE_WEIGHT * (1 - target) * functional.softplus(logits)
    return terms.mean()


def unseen_job(
    model: ForImages, train: ImageSet, validation: ImageSet, stages: tuple[Stage, ...], out: Path, *, seed: int = 0
) -> Job:
    """The job that trains the UNet; a stage's `side` is the side of random crops, not of smaller images."""
    seen = seen_only(train)
    boxes = [seen.boxes_of(i) for i in range(len(seen))]

    def draw_one(side: int, rng: np.random.Generator) -> tuple[Plane, NDArray[np.float32]]:
        i = int(rng.integers(len(seen)))
        fg = box_target(boxes[i])
        r, c = (int(v) for v in rng.integers(0, IMAGE_SIDE - side + 1, 2))
        if len(boxes[i]) and rng.random() < 0.6:
            x, y = boxes[i][rng.integers(len(boxes[i])), :2].astype(int)
            r, c = (int(np.clip(v - rng.integers(side), 0, IMAGE_SIDE - side)) for v in (y, x))
        crop = (slice(r, r + side), slice(c, c + side))
        image = (seen.images[i][crop].astype(np.float32) / 255 - 0.5) * INPUT_GAIN
        target = np.stack([1 - fg[crop], fg[crop]])
        if rng.random() < EXPOSED_SHARE:
            for _ in range(rng.integers(1, 3)):
                expose_outlier(image, target, rng)
        for axis in (0, 1):
            if rng.random() < 0.5:
                image, target = np.flip(image, axis), np.flip(target, axis + 1)
        return image / INPUT_GAIN + 0.5, target

    def draw(stage: Stage, rng: np.random.Generator) -> Batch:
        pairs = [draw_one(stage.side, rng) for _ in range(stage.batch)]
        images = np.stack([image for image, _ in pairs])[:, None]
        targets = np.stack([target for _, target in pairs])
        return torch.from_numpy(np.ascontiguousarray(images)), torch.from_numpy(np.ascontiguousarray(targets))

    return Job(
        model=model, draw=draw, loss=unseen_loss, stages=stages, out=out, seed=seed,
        validate=lambda m, _side: scores(predict(m, validation.images, IMAGE_SIDE, batch=16), validation),
    )  # fmt: skip


def unseen_maps(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """(n, 2, h, w) logits -> (n, h, w) S (eq. 4)."""
    p = 1 / (1 + np.exp(-logits))
    return np.maximum(0, 1 - p[:, 0] - p[:, 1])


def auroc(positive: NDArray[np.floating], negative: NDArray[np.floating]) -> float:
    """Probability that a positive scores above a negative; ties count half."""
    order = np.searchsorted(np.sort(negative), positive, side="left")
    ties = np.searchsorted(np.sort(negative), positive, side="right")
    return float((order + ties).mean() / 2 / len(negative))


def scores(logits: NDArray[np.float32], labels: ImageSet) -> dict[str, float]:
    """AUROC of M_alpha (alpha 2) of left-out shapes and of failures against clean and seen frames."""
    m_alpha = (unseen_maps(logits) ** 2).sum((1, 2))
    left_out = np.isin(labels.kind, LEFT_OUT_KINDS) & (labels.rating >= 4)
    failed, clean = labels.rating == 10, (labels.rating <= 2) & (labels.kind != "ring")
    seen = (labels.rating >= 4) & ~failed & ~left_out
    return {
        "failure_auroc": auroc(m_alpha[failed], m_alpha[clean]),
        "left_out_auroc": auroc(m_alpha[left_out], m_alpha[clean]),
        "left_out_against_seen": auroc(m_alpha[left_out], m_alpha[seen]),
    }
