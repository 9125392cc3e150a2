"""The detector whose training images are being compared: a CenterNet (Zhou et al. 2019, "Objects as Points").

It stands on EfficientNet-Lite0 as photographs taught it, which it leaves as it is: ten to thirty images teach no network to
see. Boxes are learnt at all cells in the middle of an object (Liu et al. 2020, "Training-Time-Friendly Network").
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import cast

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from appliance.labels import iou
from benchmarks.unseen.sets import DEVIATION, Picture
from engines.models.efficientnet_lite import STAGES, Trunk
from engines.training.fit import mixed_precision
from engines.training.photographs import load_published
from kernels import IMAGE_SIDE

STRIDE = 4
CELLS = IMAGE_SIDE // STRIDE
CONTRAST = 0.2  # pictures' standard deviations, brought to the -1 to 1 of a photograph
READ_STAGES, MERGED = (1, 2, 4, 6), 32  # ends of stages that are read, 4, 8, 16 and 32 pixels a cell
VERSIONS = 16  # that a picture is varied to, for all trainings alike
STEPS, STEPS_A_PICTURE = 600, 10  # the more of them: 160 epochs of 30 images, 80 of more than 60
BATCH, RATE = 8, 2e-3
FOCAL_POWER, FOCAL_FALL = 2.0, 4.0  # alpha and beta of the paper's heat-map loss
BOX_WEIGHT = 5.0
BOX_SCALE = 4.0  # cells, of what distances to sides are learnt in
CORE = 0.5  # of a box's sides: the middle where its sides are learnt
GAUSSIAN_SHARE = 6.0  # a box's side over the standard deviation of its spot in the heat map
MOST_OBJECTS = 60
SCORE = 0.2  # from which on a detection counts, the same for all

Values = NDArray[np.float32]


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


@cache
def _trunk() -> Trunk:
    trunk = Trunk(len(STAGES))
    load_published(trunk)
    trunk.requires_grad_(False).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return trunk.eval()


@torch.no_grad()
def _seen(images: Values) -> list[Tensor]:
    """(n, 224, 224) in [0, 1] -> what the trunk gives at four depths, float16."""
    scaled = torch.from_numpy((images - 0.5) * (255 / DEVIATION * CONTRAST))[:, None].clamp(-1.0, 1.0)
    maps = _trunk().maps(scaled.contiguous(memory_format=torch.channels_last))
    return [maps[stage].half().contiguous(memory_format=torch.channels_last) for stage in READ_STAGES]


class CenterNet(nn.Module):
    """Heat maps of centres, one a class, with the distances from each cell to the sides of a box, from the trunk's maps.

    Args:
        classes: how many.
    """

    def __init__(self, classes: int) -> None:
        super().__init__()
        channels = [STAGES[stage][4] for stage in READ_STAGES]
        self.lateral = nn.ModuleList(nn.Sequential(nn.BatchNorm2d(c), nn.Conv2d(c, MERGED, 1)) for c in channels)
        self.smooth = nn.ModuleList(_filtered() for _ in channels)
        self.last = _filtered()
        self.heads = nn.Conv2d(MERGED, classes + 4, 1)
        nn.init.constant_(self.heads.bias[:classes], -2.19)  # type: ignore[index]  # P 0.1, as the paper starts

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Maps of n images -> (n, classes + 4, 56, 56): heat logits; left, top, right and bottom in cells, above 0."""
        with torch.autocast("cpu", torch.bfloat16, enabled=mixed_precision("cpu")):
            out = self._heads_of(maps).float()
        return torch.cat([out[:, :-4], functional.softplus(out[:, -4:]) * BOX_SCALE], 1)

    def _heads_of(self, maps: Sequence[Tensor]) -> Tensor:
        levels = [lateral(one.float()) for lateral, one in zip(self.lateral, maps, strict=True)]
        merged = levels[-1]
        for level, smooth in zip(levels[-2::-1], list(self.smooth)[-2::-1], strict=True):
            merged = smooth(level + functional.interpolate(merged, scale_factor=2.0))
        return cast("Tensor", self.heads(self.last(self.smooth[-1](merged))))


def _filtered() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(MERGED, MERGED, 3, 1, 1, bias=False), nn.BatchNorm2d(MERGED), nn.ReLU(inplace=True))


def _varied(image: NDArray[np.uint8], boxes: Values, rng: np.random.Generator) -> tuple[Values, Values]:
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


@dataclass(slots=True)
class Album:
    """Pictures as the trunk sees them: each varied in sixteen ways, drawn by its name, once for all trainings.

    Attributes:
        kept: maps of the versions, and boxes of each, by the picture's name.
    """

    kept: dict[str, tuple[list[Tensor], list[Values]]] = field(default_factory=dict)

    def versions(self, picture: Picture) -> tuple[list[Tensor], list[Values]]:
        """(16, channels, side, side) maps at four depths, and the boxes of each version."""
        if picture.name not in self.kept:
            rng = np.random.default_rng(list(hashlib.sha256(picture.name.encode()).digest()))
            drawn = [_varied(picture.image, picture.boxes, rng) for _ in range(VERSIONS)]
            self.kept[picture.name] = _seen(np.stack([image for image, _ in drawn])), [boxes for _, boxes in drawn]
        return self.kept[picture.name]


def _targets(boxes: Values, classes: NDArray[np.int64], count: int) -> Values:
    """(count + 5, 56, 56): heat of each class; left, top, right, bottom; and what these weigh, 1 for each box."""
    target = np.zeros((count + 5, CELLS, CELLS), np.float32)
    yy, xx = np.mgrid[:CELLS, :CELLS] + 0.5
    inside = np.clip(boxes, 0, IMAGE_SIDE) / STRIDE
    for k in np.argsort(-(inside[:, 2] - inside[:, 0]) * (inside[:, 3] - inside[:, 1])):  # the smaller hides the larger
        x0, y0, x1, y1 = inside[k]
        w, h = x1 - x0, y1 - y0
        if min(w, h) < 0.75:  # left the image
            continue
        cx, cy = (x0 + x1) / 2, (y0 + y1) / 2
        i, j = min(int(cx), CELLS - 1), min(int(cy), CELLS - 1)
        sx, sy = max(w / GAUSSIAN_SHARE, 0.6), max(h / GAUSSIAN_SHARE, 0.6)
        spot = np.exp(-((xx - i - 0.5) ** 2 / (2 * sx**2) + (yy - j - 0.5) ** 2 / (2 * sy**2)))
        target[classes[k]] = np.maximum(target[classes[k]], spot)
        core = (np.abs(xx - cx) <= CORE * w / 2) & (np.abs(yy - cy) <= CORE * h / 2)
        core[j, i] = True
        target[count:-1, core] = np.stack([xx - x0, yy - y0, x1 - xx, y1 - yy])[:, core]
        target[-1, core] = 1 / core.sum()
    return target


def _loss(out: Tensor, target: Tensor, count: int) -> Tensor:
    """The paper's focal loss of the heat maps, and 1 - generalised IoU of the boxes."""
    logits, heat = out[:, :count], target[:, :count]
    p, centre = logits.sigmoid(), heat == 1
    near = (1 - p) ** FOCAL_POWER * functional.logsigmoid(logits)
    far = (1 - heat) ** FOCAL_FALL * p**FOCAL_POWER * functional.logsigmoid(-logits)
    weight = target[:, -1]
    where = ((1 - _generalised_iou(out[:, count:], target[:, count:-1])) * weight).sum() / weight.sum().clamp_min(1e-6)
    return -torch.where(centre, near, far).sum() / centre.sum().clamp_min(1) + BOX_WEIGHT * where


def _generalised_iou(a: Tensor, b: Tensor) -> Tensor:
    """Of boxes around the same cell, both (n, 4, h, w) distances to their sides; (n, h, w) in [-1, 1]."""

    def area(of: Tensor) -> Tensor:
        return (of[:, 0] + of[:, 2]) * (of[:, 1] + of[:, 3])

    shared, hull = area(torch.minimum(a, b).clamp_min(0)), area(torch.maximum(a, b))
    union = area(a) + area(b) - shared
    return shared / union.clamp_min(1e-6) - (hull - union) / hull.clamp_min(1e-6)


def train_detector(
    pictures: Sequence[Picture], classes: Sequence[str], *, seed: int, album: Album | None = None, steps: int = 0
) -> CenterNet:
    """Train heads from nothing on labeled pictures, whose order does not matter; 0 steps: as many as that many pictures want."""
    steps = steps or max(STEPS, STEPS_A_PICTURE * len(pictures))
    album = album or Album()
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
        drawn = [(int(i), int(rng.integers(VERSIONS))) for i in rng.integers(len(pictures), size=BATCH)]
        maps = [
            torch.stack(depth).contiguous(memory_format=torch.channels_last)
            for depth in zip(*([depth[v] for depth in album.versions(pictures[i])[0]] for i, v in drawn), strict=True)
        ]
        targets = [_targets(album.versions(pictures[i])[1][v], numbers[i], len(classes)) for i, v in drawn]
        loss = _loss(model(maps), torch.from_numpy(np.stack(targets)), len(classes))
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(model.parameters(), 10.0)
        optimizer.step()
        scheduler.step()
    return model.eval()


@torch.no_grad()
def heat_maps(model: CenterNet, pictures: Sequence[Picture]) -> tuple[Values, Values]:
    """Of each picture (classes, 56, 56) probabilities of centres, and (4, 56, 56) distances to the sides, in cells."""
    images = np.asarray(np.stack([p.image for p in pictures]) / 255, np.float32)
    out = torch.cat([model(_seen(images[i : i + 16])) for i in range(0, len(images), 16)])
    return out[:, :-4].sigmoid().numpy(), out[:, -4:].numpy()


def detect(model: CenterNet, pictures: Sequence[Picture], *, least: float = SCORE) -> list[list[Detection]]:
    """What a detector finds on pictures, best first: peaks among their eight neighbours, each object once a class."""
    heat, sides = heat_maps(model, pictures)
    peaks = functional.max_pool2d(torch.from_numpy(heat), 3, 1, 1).numpy() == heat
    found = []
    for scores, distances, top in zip(heat, sides, peaks & (heat >= least), strict=True):
        here = sorted(((float(scores[k, j, i]), k, j, i) for k, j, i in np.argwhere(top)), reverse=True)[:MOST_OBJECTS]
        kept: list[Detection] = []
        for score, k, j, i in here:
            box = _box(distances[:, j, i], i, j)
            if all(other.class_index != k or iou(other.box, box) <= 0.5 for other in kept):
                kept.append(Detection(box, int(k), score))
        found.append(kept)
    return found


def _box(sides: Values, i: int, j: int) -> tuple[float, float, float, float]:
    left, top, right, bottom = sides
    box = np.clip(np.array([i + 0.5 - left, j + 0.5 - top, i + 0.5 + right, j + 0.5 + bottom]) * STRIDE, 0, IMAGE_SIDE)
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
