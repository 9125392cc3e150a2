"""The unseen UNet: two independent maps from boxes, negatives weighed more, and outlier exposure where all is taught.

Trained as the image-ranking paper prints it, the two maps are mirrors of each other and S is empty. The weight draws both
down where the network is in doubt; pasted patches with both targets 0 teach a network that knows nothing else to stay low
where all is new. At the end the logits are calibrated on images that show nothing new, so that the doubt about what is known
does not count as unseen.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from engines.classes import CLASSES
from engines.models import INPUT_GAIN, ForImages, TwoMaps
from engines.models.familiarity import Familiarity
from engines.regions import margins
from engines.training.data import ImageSet, Pictures
from engines.training.fit import Batch, Job, Stage, predict, reestimate_norms_over
from engines.training.outliers import Outliers
from kernels import IMAGE_SIDE

ALPHA = 4.0  # of M_alpha: of 1, 2, 4 and 8 the best on dark frames, and on the mean of boards, steel and tiles
KNOWN_UNSEEN = 0.05  # S of the middle pixel of images that show nothing new
OFFSETS = np.arange(0, 4.01, 0.05)
CALIBRATION_IMAGES = 200
NORM_BATCHES, NORM_CROPS = 30, 16
PIXEL_IMAGES = 200  # of validation that are looked at pixel by pixel
LEFT_OUT_KINDS = ("ring",)  # shapes kept unseen, so that evaluation has something new to find
AROUND_OBJECTS = 0.6  # share of crops that hold part of a box
FRAME_CONTRAST, FRAME_OFFSET = 0.08, 0.08  # changes of contrast, and of brightness in SD; a frame's noise is known
PICTURE_CONTRAST, PICTURE_OFFSET, PICTURE_SLOPE = 0.4, 0.4, 0.3  # a picture's light is not
MOST_ZOOM = 0.2
FAMILIAR_IMAGES, FAMILIAR_CELLS = 400, 3000  # that descriptions are drawn from, and that distances are asked of

Plane = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Recipe:
    """How the UNet is taught.

    Attributes:
        weight: of what a map must not show, against what it must, in the loss.
        exposed: share of crops with one or two pasted outliers.
    """

    weight: float
    exposed: float


RECIPES = {
    "paper": Recipe(weight=1.0, exposed=0.0),
    "exposed": Recipe(weight=4.0, exposed=0.9),
    "weighted": Recipe(weight=10.0, exposed=0.0),
}


def usual_recipe(preset: str) -> str:
    """The recipe that serves best with a preset.

    What learnt photographs tells known objects from background by itself, and where nothing is familiar; pastes that look
    like what is labeled, as on a board of two greys, only teach it to doubt that.
    """
    return "weighted" if preset == "photographs" else "exposed"


def seen_only(labels: ImageSet, left_out: tuple[str, ...] = LEFT_OUT_KINDS) -> ImageSet:
    """The frames the UNet may learn from: no capture failure and no left-out shape."""
    return labels.select((labels.class_index != CLASSES.index("Error")) & ~np.isin(labels.kind, left_out))


def box_target(boxes: NDArray[np.float32], scale: NDArray[np.float32]) -> Plane:
    """(k, 4) boxes -> (224, 224) float32: 1 inside any box enlarged by 10 pixels of the frame.

    Args:
        boxes: x0, y0, x1, y1 in pixels of the image.
        scale: (2,) pixels of the image for one of the frame, along x and y.
    """
    target = np.zeros((IMAGE_SIDE, IMAGE_SIDE), np.float32)
    wide, high = margins((float(scale[0]), float(scale[1])))
    enlarged = np.rint(boxes + np.array([-wide, -high, wide, high], np.float32)).astype(int)
    for x0, y0, x1, y1 in np.clip(enlarged, 0, IMAGE_SIDE):
        target[y0:y1, x0:x1] = 1
    return target


def unseen_loss(weight: float) -> Callable[[Tensor, Batch], Tensor]:
    """L = -t log p - weight (1 - t) log(1 - p), mean over both maps and all pixels."""

    def loss(logits: Tensor, batch: Batch) -> Tensor:
        target = batch[1]
        terms = target * functional.softplus(-logits) + weight * (1 - target) * functional.softplus(logits)
        return terms.mean()

    return loss


def finish(
    job: Job, taught: NDArray[np.uint8], known: NDArray[np.uint8], recipe: str, pictures: Pictures | None
) -> str:
    """What comes after training: norms are re-estimated, logits calibrated, and what pictures look like kept as familiar.

    Norms are re-estimated on crops as training draws them, pastes and all: over bare frames they are other statistics than
    the weights were fitted to (rings on dark frames: AUROC 0.91 instead of 0.997).

    Args:
        job: that is done; its model, a UNet, is changed in place.
        taught: (n, 224, 224) uint8 that it learnt from.
        known: (n, 224, 224) uint8 that it did not, of the same kinds of things.
        recipe: a key of RECIPES; paper leaves all as it is.
        pictures: as for training; of frames the noise is known, and what is unlike it is pasted.

    Returns:
        What was done, in a line.

    Raises:
        TypeError: the job's model is no UNet.
    """
    model, network = job.model, getattr(job.model, "network", None)
    if not (isinstance(model, ForImages) and isinstance(network, TwoMaps)):
        raise TypeError(f"{type(network).__name__}: wanted a UNet")
    crops, seed = replace(job.stages[-1], batch=NORM_CROPS), job.seed
    draws = (job.draw(crops, np.random.default_rng((seed, 43, i)))[0] for i in range(NORM_BATCHES))
    reestimate_norms_over(model, draws)
    if recipe == "paper":
        return "maps as they were taught"
    drawn = np.sort(np.random.default_rng((seed, 37)).permutation(len(known))[:CALIBRATION_IMAGES])
    offset, left = calibrate(model, network, known[drawn])
    if pictures is not None:
        keep_familiar(network.familiarity, taught, seed)
    return f"{offset:+.2f} on both logits: half of what is known has S of at most {left:.3f}"


@torch.no_grad()
def calibrate(model: ForImages, network: TwoMaps, known: NDArray[np.uint8]) -> tuple[float, float]:
    """Add to both logits the least with which half of the pixels of images that show nothing new have S of at most 0.05.

    The weight in the loss draws both P down wherever anything is in doubt: where background and object are equally
    likely each is 1/5, and S 3/5. How far depends on how well so many images could teach. Doubt in few places may stay:
    it is what tells unseen objects that are much like known ones.

    Returns:
        What was added, at most 4, and the S that half of the pixels then have at most.
    """
    logits = predict(model, known, IMAGE_SIDE, batch=16, exact=True)[..., ::2, ::2]
    offset, left = 0.0, 1.0
    for offset in OFFSETS:
        left = float(np.median(unseen_maps(logits + np.float32(offset))))
        if left <= KNOWN_UNSEEN:
            break
    if network.head.bias is not None:
        network.head.bias += float(offset)
    return float(offset), left


@torch.no_grad()
def keep_familiar(familiarity: Familiarity, images: NDArray[np.uint8], seed: int) -> None:
    """Fit the density of what training images look like.

    Of descriptions the first principal components are asked, brought to like spreads (each divided by a power of its
    variance), and a draw of them is kept. Distances from one image's descriptions to those of the others say where familiar
    ends: at their 75 % quantile; `reach` differences of the median and the 99 % quantile further, and g has fallen by a
    factor e.

    Args:
        familiarity: changed in place.
        images: (n, 224, 224) uint8, image times 255; of more than 400 so many are drawn.
        seed: of the draws.
    """
    rng = np.random.default_rng((seed, 31))
    chosen = images[np.sort(rng.permutation(len(images))[:FAMILIAR_IMAGES])]
    scaled = torch.from_numpy((chosen.astype(np.float32) / 255 - 0.5) * np.float32(INPUT_GAIN))[:, None]
    looks, device = familiarity.looks.eval(), familiarity.mean.device
    cells = torch.cat([looks(scaled[i : i + 8].to(device)) for i in range(0, len(scaled), 8)])
    points = cells.permute(0, 2, 3, 1).reshape(-1, cells.shape[1])
    image_of = np.repeat(np.arange(len(cells)), len(points) // len(cells))
    familiarity.mean.copy_(points.mean(0))
    variances, components = torch.linalg.eigh(torch.cov((points - familiarity.mean).T))
    spread = variances.clamp_min(variances.max() * 1e-3) ** looks.whitening
    familiarity.whiten.copy_((components / spread)[:, -looks.components :])  # ascending
    kept = rng.choice(len(points), len(familiarity.known), replace=len(points) < len(familiarity.known))
    familiarity.known.copy_((points[kept] - familiarity.mean) @ familiarity.whiten)
    asked = rng.choice(len(points), min(FAMILIAR_CELLS, len(points)), replace=False)
    squared = familiarity.distances(points[asked])
    if len(cells) > 1:
        squared[torch.from_numpy(image_of[asked][:, None] == image_of[kept]).to(squared.device)] = torch.inf
    nearest = familiarity.nearest(squared)
    median, usual, nearly_all = (torch.quantile(nearest, q) for q in (0.5, 0.75, 0.99))
    familiarity.start.copy_(usual)
    familiarity.span.copy_((looks.reach * (nearly_all - median)).clamp_min(1e-6))
    familiarity.fitted = True


def _cropped(
    planes: tuple[Plane, Plane], corner: tuple[int, int], side: int, pictures: Pictures | None, rng: np.random.Generator
) -> tuple[Plane, Plane]:
    """A crop of an image and its target, mirrored; of a picture scaled too, and turned by quarters unless upright.

    Args:
        planes: image in SD of the set, and target, (224, 224).
        corner: row and column of the crop.
        side: of the crop.
        pictures: as for training.
        rng: draws everything.
    """
    zoom = 1.0 if pictures is None else float(np.exp(rng.uniform(-MOST_ZOOM, MOST_ZOOM)))
    quarter = int(rng.integers(4)) if pictures is Pictures.TURNED else 2 * int(rng.integers(2))
    mirror = rng.choice([-1, 1])
    cos, sin = ((1, 0), (0, 1), (-1, 0), (0, -1))[quarter]
    turn = np.array([[cos * mirror, -sin], [sin * mirror, cos]], float) / zoom
    middle = (side - 1) / 2
    to_source = np.column_stack([turn, np.array(corner[::-1]) + middle - turn @ [middle, middle]])
    image, target = (
        cv2.warpAffine(
            plane, to_source, (side, side), flags=how | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_REFLECT_101
        )
        for plane, how in zip(planes, (cv2.INTER_LINEAR, cv2.INTER_NEAREST), strict=True)
    )
    return np.asarray(image, np.float32), np.asarray(target, np.float32)


def _lit(image: Plane, pictures: Pictures | None, rng: np.random.Generator) -> Plane:
    """An image a little brighter and of a little more contrast, or less; a picture by more, and from one side."""
    if pictures is None:
        return image * np.float32(1 + rng.uniform(-1, 1) * FRAME_CONTRAST) + np.float32(rng.normal() * FRAME_OFFSET)
    slope = np.linspace(-1, 1, image.shape[0], dtype=np.float32)
    across, down = (np.float32(rng.normal() * PICTURE_SLOPE) for _ in range(2))
    contrast = np.float32(np.exp(rng.uniform(-PICTURE_CONTRAST, PICTURE_CONTRAST)))
    lit = image * contrast + slope * across + slope[:, None] * down + rng.normal() * PICTURE_OFFSET
    return np.asarray(lit, np.float32)


def unseen_job(
    model: ForImages, train: ImageSet, validation: ImageSet, stages: tuple[Stage, ...], out: Path, *,
    seed: int = 0, recipe: str = "exposed", left_out: tuple[str, ...] = LEFT_OUT_KINDS, pictures: Pictures | None = None,
) -> Job:  # fmt: skip
    """The job that trains the UNet; a stage's `side` is the side of random crops, not of smaller images.

    Args:
        model: of `build("unseen")`; changed in place.
        train: frames with boxes to learn from; capture failures and `left_out` among them are not.
        validation: what `scores` are told of after each stage.
        stages: in order.
        out: folder of checkpoint and curve.
        seed: of the draws.
        recipe: a key of RECIPES.
        left_out: kinds of shapes that stay unseen.
        pictures: what ordinary pictures may be turned to; None for frames, which are never turned on their side.
    """
    seen, how = seen_only(train, left_out), RECIPES[recipe]
    boxes = [seen.boxes_of(i) for i in range(len(seen))]
    outliers = Outliers(seen.images, INPUT_GAIN)

    def draw_one(side: int, rng: np.random.Generator) -> tuple[Plane, NDArray[np.float32]]:
        i = int(rng.integers(len(seen)))
        r, c = (int(v) for v in rng.integers(0, IMAGE_SIDE - side + 1, 2))
        if len(boxes[i]) and rng.random() < AROUND_OBJECTS:
            x0, y0, x1, y1 = boxes[i][rng.integers(len(boxes[i]))]
            inside = rng.uniform((y0, x0), (y1, x1)).astype(int)
            r, c = (int(v) for v in np.clip(inside - rng.integers(side, size=2), 0, IMAGE_SIDE - side))
        whole = (seen.images[i].astype(np.float32) / 255 - 0.5) * np.float32(INPUT_GAIN)
        image, fg = _cropped((whole, box_target(boxes[i], seen.scale[i])), (r, c), side, pictures, rng)
        image, target = _lit(image, pictures, rng), np.stack([1 - fg, fg])
        if rng.random() < how.exposed:
            for _ in range(rng.integers(1, 3)):
                outliers.paste(image, target, rng)
        return image / INPUT_GAIN + 0.5, target

    def draw(stage: Stage, rng: np.random.Generator) -> Batch:
        pairs = [draw_one(stage.side, rng) for _ in range(stage.batch)]
        images = np.stack([image for image, _ in pairs])[:, None]
        targets = np.stack([target for _, target in pairs])
        return torch.from_numpy(np.ascontiguousarray(images)), torch.from_numpy(np.ascontiguousarray(targets))

    return Job(
        model=model, draw=draw, loss=unseen_loss(how.weight), stages=stages, out=out, seed=seed,
        validate=lambda m, _side: scores(predict(m, validation.images, IMAGE_SIDE, batch=16), validation, left_out),
    )  # fmt: skip


def unseen_maps(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """(n, 2, h, w) logits -> (n, h, w) S (eq. 4)."""
    p = 1 / (1 + np.exp(-logits))
    return np.maximum(0, 1 - p[:, 0] - p[:, 1])


def auroc(positive: NDArray[np.floating], negative: NDArray[np.floating]) -> float:
    """Probability that a positive scores above a negative; ties count half. NaN where there are none of either."""
    if not (len(positive) and len(negative)):
        return math.nan
    order = np.searchsorted(np.sort(negative), positive, side="left")
    ties = np.searchsorted(np.sort(negative), positive, side="right")
    return float((order + ties).mean() / 2 / len(negative))


def _object_pixels(logits: NDArray[np.float32], labels: ImageSet) -> float:
    """AUROC of the object's logit in enlarged boxes against all around, of every fourth pixel each way."""
    inside, outside = [], []
    for i, one in enumerate(logits[:, 1]):
        target = box_target(labels.boxes_of(i), labels.scale[i])[::4, ::4] > 0
        inside.append(one[::4, ::4][target])
        outside.append(one[::4, ::4][~target])
    return auroc(np.concatenate(inside), np.concatenate(outside))


def scores(
    logits: NDArray[np.float32], labels: ImageSet, left_out: tuple[str, ...] = LEFT_OUT_KINDS
) -> dict[str, float]:
    """AUROC of M_alpha of left-out shapes and of failures against clean and seen frames, and of P(object) pixel by pixel.

    Args:
        logits: (n, 2, 224, 224).
        labels: of the n images.
        left_out: kinds of shapes that were not taught.

    Returns:
        Named numbers in [0, 1]; NaN where a set has no such frames: pictures have boxes alone.
    """
    m_alpha = (unseen_maps(logits) ** ALPHA).sum((1, 2))
    new, failed = np.isin(labels.kind, left_out), labels.rating == 10
    unseen, clean = new & (labels.rating >= 4), ~new & (labels.rating <= 2)
    seen = (labels.rating >= 4) & ~failed & ~new
    return {
        "failure_auroc": auroc(m_alpha[failed], m_alpha[clean]),
        "left_out_auroc": auroc(m_alpha[unseen], m_alpha[clean]),
        "left_out_against_seen": auroc(m_alpha[unseen], m_alpha[seen]),
        "object_pixels_auroc": _object_pixels(logits[:PIXEL_IMAGES], labels),
    }
