"""A small CenterNet (Zhou et al. 2019, "Objects as Points"), the detector whose training images are being compared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from appliance.labels import iou
from benchmarks.unseen.sets import DEVIATION, Picture
from engines.training.fit import predict, reestimate_norms
from kernels import IMAGE_SIDE

STRIDE = 4
CELLS = IMAGE_SIDE // STRIDE
WIDTHS, MERGED = (16, 32, 64, 96), 32
STEPS, BATCH, RATE = 600, 8, 2e-3  # the same for every training, whatever its images: about 160 epochs of 30 images
FOCAL_POWER, FOCAL_FALL = 2.0, 4.0  # alpha and beta of the paper's heat-map loss
SIZE_WEIGHT = 0.5
GAUSSIAN_SHARE = 6.0  # a box's side over the standard deviation of its spot in the heat map
MOST_OBJECTS = 60
SCORE = 0.3  # from which on a detection counts, the same for all


@dataclass(frozen=True, slots=True)
class Detection:
    """One found object.

    Attributes:
        box: (x0, y0, x1, y1) in pixels of the image.
        class_index: into the classes trained on.
        score: of the heat map, 0..1.
    """

    box: tuple[float, float, float, float]
    class_index: int
    score: float


def _block(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True),
        nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True),
    )  # fmt: skip


class CenterNet(nn.Module):
    """Heat maps of centres, one a class, with the size and the fraction of a cell at each; (n, 1, 224, 224) in [0, 1] in.

    Args:
        classes: how many.
    """

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(1, WIDTHS[0], 5, 2, 2, bias=False), nn.BatchNorm2d(WIDTHS[0]), nn.ReLU(True)
        )
        self.down = nn.ModuleList(
            _block(a, b, 2) for a, b in zip((WIDTHS[0], *WIDTHS[1:]), (*WIDTHS[1:], WIDTHS[-1]), strict=True)
        )
        self.lateral = nn.ModuleList(nn.Conv2d(width, MERGED, 1) for width in (*WIDTHS[1:], WIDTHS[-1]))
        self.smooth = _block(MERGED, MERGED)
        self.heads = nn.Conv2d(MERGED, classes + 4, 1)
        nn.init.constant_(self.heads.bias[:classes], -2.19)  # type: ignore[index]  # P 0.1, as the paper starts

    def forward(self, x: Tensor) -> Tensor:
        """(n, classes + 4, 56, 56): heat logits, log size (w, h) in cells, offset (x, y) in cells."""
        x = self.stem((x - 0.5) * (255 / DEVIATION))
        levels = []
        for down in self.down:
            x = down(x)
            levels.append(x)
        merged = self.lateral[-1](levels[-1])
        for level, lateral in zip(levels[-2::-1], list(self.lateral)[-2::-1], strict=True):
            merged = lateral(level) + functional.interpolate(merged, scale_factor=2.0)
        out: Tensor = self.heads(self.smooth(merged))
        return out


def _varied(
    image: NDArray[np.uint8], boxes: NDArray[np.float32], rng: np.random.Generator
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Mirrored, turned by quarters, scaled, shifted, at another contrast; boxes with it."""
    quarter, mirror = int(rng.integers(4)), rng.choice([-1.0, 1.0])
    scale, shift = np.exp(rng.uniform(-0.2, 0.2)), rng.uniform(-20, 20, 2)
    middle = (IMAGE_SIDE - 1) / 2
    cos, sin = (1, 0, -1, 0)[quarter], (0, 1, 0, -1)[quarter]
    turn = np.array([[cos * mirror, -sin], [sin * mirror, cos]]) * scale
    matrix = np.column_stack([turn, middle - turn @ [middle, middle] + shift])
    moved = cv2.warpAffine(
        image.astype(np.float32), matrix, (IMAGE_SIDE, IMAGE_SIDE), borderMode=cv2.BORDER_REFLECT_101
    )
    corners = np.stack([boxes[:, [0, 1]], boxes[:, [2, 3]], boxes[:, [0, 3]], boxes[:, [2, 1]]], 1) - 0.5
    corners = corners @ matrix[:, :2].T + matrix[:, 2] + 0.5
    found = np.concatenate([corners.min(1), corners.max(1)], 1)
    value = (moved / 255 - 0.5) * np.exp(rng.uniform(-0.2, 0.2)) + 0.5 + rng.normal() * 0.1 * DEVIATION / 255
    return value.astype(np.float32), found.astype(np.float32)


def _targets(boxes: NDArray[np.float32], classes: NDArray[np.int64], count: int) -> NDArray[np.float32]:
    """(count + 5, 56, 56): heat of each class, log size, offset, and 1 where size and offset are known."""
    target = np.zeros((count + 5, CELLS, CELLS), np.float32)
    yy, xx = np.mgrid[:CELLS, :CELLS]
    for (x0, y0, x1, y1), k in zip(np.clip(boxes, 0, IMAGE_SIDE) / STRIDE, classes, strict=True):
        w, h = x1 - x0, y1 - y0
        if min(w, h) < 0.75:  # left the image
            continue
        cx, cy = (x0 + x1) / 2, (y0 + y1) / 2
        i, j = min(int(cx), CELLS - 1), min(int(cy), CELLS - 1)
        sx, sy = max(w / GAUSSIAN_SHARE, 0.6), max(h / GAUSSIAN_SHARE, 0.6)
        spot = np.exp(-((xx - i) ** 2 / (2 * sx**2) + (yy - j) ** 2 / (2 * sy**2)))
        target[k] = np.maximum(target[k], spot)
        target[count:, j, i] = np.log(w), np.log(h), cx - i, cy - j, 1
    return target


def _loss(out: Tensor, target: Tensor, count: int) -> Tensor:
    """The paper's focal loss of the heat maps, and L1 of log size and offset at centres."""
    logits, heat = out[:, :count], target[:, :count]
    p, centre = logits.sigmoid(), heat == 1
    near = (1 - p) ** FOCAL_POWER * functional.logsigmoid(logits)
    far = (1 - heat) ** FOCAL_FALL * p**FOCAL_POWER * functional.logsigmoid(-logits)
    known = target[:, -1:]
    objects = known.sum().clamp_min(1)
    where = ((out[:, count:] - target[:, count:-1]).abs() * known).sum()
    return (-torch.where(centre, near, far).sum() + SIZE_WEIGHT * where) / objects


def train_detector(pictures: Sequence[Picture], classes: Sequence[str], *, seed: int, steps: int = STEPS) -> CenterNet:
    """Train from nothing on labeled pictures, whose order does not matter; the same schedule for any of them."""
    pictures = sorted(pictures, key=lambda picture: picture.name)
    torch.manual_seed(seed)
    rng = np.random.default_rng((seed, 19))
    model = CenterNet(len(classes))
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.AdamW(model.parameters(), RATE, weight_decay=1e-3)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, steps + 1, pct_start=0.2)
    numbers = [np.array([classes.index(c) for c in p.classes], np.int64) for p in pictures]
    model.train()
    for _ in range(steps):
        images, targets = [], []
        for i in rng.integers(len(pictures), size=BATCH):
            image, boxes = _varied(pictures[i].image, pictures[i].boxes, rng)
            images.append(image)
            targets.append(_targets(boxes, numbers[i], len(classes)))
        batch = torch.from_numpy(np.stack(images))[:, None].contiguous(memory_format=torch.channels_last)
        loss = _loss(model(batch), torch.from_numpy(np.stack(targets)), len(classes))
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(model.parameters(), 10.0)
        optimizer.step()
        scheduler.step()
    reestimate_norms(model, _images(pictures), IMAGE_SIDE, batch=min(BATCH, len(pictures)))
    return model


def _images(pictures: Sequence[Picture]) -> NDArray[np.uint8]:
    return np.stack([p.image for p in pictures])


def heat_maps(model: CenterNet, pictures: Sequence[Picture]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Of each picture (classes, 56, 56) probabilities of centres, and (4, 56, 56) sizes and offsets."""
    out = predict(model, _images(pictures), IMAGE_SIDE, batch=16, exact=True)
    return np.asarray(1 / (1 + np.exp(-out[:, :-4])), np.float32), out[:, -4:]


def detect(model: CenterNet, pictures: Sequence[Picture], *, least: float = SCORE) -> list[list[Detection]]:
    """What a detector finds on pictures: peaks of the heat maps among their eight neighbours, best first."""
    heat, where = heat_maps(model, pictures)
    peaks = functional.max_pool2d(torch.from_numpy(heat), 3, 1, 1).numpy() == heat
    found = []
    for scores, geometry, top in zip(heat, where, peaks & (heat >= least), strict=True):
        here = sorted(((float(scores[k, j, i]), k, j, i) for k, j, i in np.argwhere(top)), reverse=True)[:MOST_OBJECTS]
        found.append([Detection(_box(geometry[:, j, i], i, j), int(k), score) for score, k, j, i in here])
    return found


def _box(geometry: NDArray[np.float32], i: int, j: int) -> tuple[float, float, float, float]:
    w, h = np.exp(np.clip(geometry[:2], -2, np.log(2.0 * CELLS))) * STRIDE
    cx, cy = (i + geometry[2]) * STRIDE, (j + geometry[3]) * STRIDE
    box = np.clip([cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2], 0, IMAGE_SIDE)
    return float(box[0]), float(box[1]), float(box[2]), float(box[3])


@dataclass(frozen=True, slots=True)
class Score:
    """Precision, recall and F1 of one class; NaN where nothing was there to find."""

    precision: float
    recall: float
    f1: float


def scores(
    found: Sequence[Sequence[Detection]], pictures: Sequence[Picture], classes: Sequence[str]
) -> dict[str, Score]:
    """Each class by itself: a detection is right where its IoU with a box not yet taken is above 1/2, best score first."""
    table = {}
    for k, name in enumerate(classes):
        right = given = there = 0
        for detections, picture in zip(found, pictures, strict=True):
            boxes = [tuple(box) for box, c in zip(picture.boxes.tolist(), picture.classes, strict=True) if c == name]
            there += len(boxes)
            for detection in (d for d in detections if d.class_index == k):
                given += 1
                overlaps = [iou(detection.box, box) for box in boxes]
                if overlaps and max(overlaps) > 0.5:
                    right += 1
                    boxes.pop(int(np.argmax(overlaps)))
        precision = right / given if given else 0.0
        recall = right / there if there else float("nan")
        f1 = 2 * right / (given + there) if there else float("nan")
        table[name] = Score(precision, recall, f1)
    return table
