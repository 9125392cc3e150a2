"""Outlier exposure: patches unlike anything labeled, pasted so that both maps learn to stay low where all is new."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

LEAST_CHANGE = 0.4  # of a patch, in SD of the set: of local mean and local deviation together; other noise changes 0.25
WINDOW = (8, 8)  # pixels that "local" is
SMALLEST, LARGEST_SHARE = 3.0, 0.6  # a patch's size: pixels, and share of the image's side
TEXTURES = {"own": 0.3, "flat": 0.2, "noise": 0.15, "stripes": 0.1, "offset": 0.1, "blurred": 0.075, "contrast": 0.075}
MASKS = {"blob": 0.3, "ellipse": 0.2, "rectangle": 0.15, "stroke": 0.15, "outline": 0.1, "lines": 0.05, "dots": 0.05}

Plane = NDArray[np.float32]


def change(before: Plane, after: Plane) -> Plane:
    """(h, w): how far the mean and the deviation of the 8x8 pixels around each pixel have moved, added up."""
    means = [cv2.blur(image, WINDOW) for image in (before, after)]
    squares = [cv2.blur(image * image, WINDOW) for image in (before, after)]
    spreads = [np.sqrt(np.maximum(s - m * m, 0)) for s, m in zip(squares, means, strict=True)]
    return np.asarray(np.abs(means[1] - means[0]) + np.abs(spreads[1] - spreads[0]), np.float32)


@dataclass(frozen=True, slots=True)
class Outliers:
    """What pastes are made from.

    Attributes:
        images: (n, h, w) uint8 of the training set, image times 255.
        gain: of a pasted image over its stored values, (image / 255 - 0.5) * gain.
        textures, masks: chance of each kind.
    """

    images: NDArray[np.uint8]
    gain: float
    textures: tuple[tuple[str, float], ...] = tuple(TEXTURES.items())
    masks: tuple[tuple[str, float], ...] = tuple(MASKS.items())

    def paste(self, image: Plane, target: NDArray[np.float32], rng: np.random.Generator) -> None:
        """Paste one patch into an image and set both its targets to 0 there; in place. What hardly changes is dropped.

        Args:
            image: (h, w) in SD of the set.
            target: (2, h, w) background and object.
            rng: draws everything.
        """
        mask = _mask(_draw(self.masks, rng), image.shape[0], rng)
        if not mask.any():
            return
        texture = self._texture(_draw(self.textures, rng), image, rng)
        soft = cv2.GaussianBlur(mask.astype(np.float32), (0, 0), 0.7) * np.float32(rng.uniform(0.5, 1))
        pasted = image + (texture - image) * soft
        if change(image, pasted)[mask > 0].mean() < LEAST_CHANGE:
            return
        image[:] = pasted
        target[:, mask > 0] = 0

    def _texture(self, kind: str, image: Plane, rng: np.random.Generator) -> Plane:
        """(h, w) of what the patch shows."""
        side = image.shape[0]
        if kind == "own":
            return self._own(side, rng)
        if kind == "noise":
            return _noise(side, rng) * np.float32(rng.uniform(0.2, 3)) + np.float32(rng.choice([0, rng.normal() * 2]))
        if kind == "stripes":
            return _stripes(side, rng)
        return _changed(kind, image, rng)

    def _own(self, side: int, rng: np.random.Generator) -> Plane:
        """A training image zoomed, turned, drawn out of shape, perhaps inverted, at another contrast."""
        source = self.images[int(rng.integers(len(self.images)))]
        zoom, angle = float(np.exp(rng.uniform(np.log(0.35), np.log(3.5)))), float(rng.uniform(0, 360))
        centre = (float(rng.uniform(0, source.shape[1])), float(rng.uniform(0, source.shape[0])))
        matrix = cv2.getRotationMatrix2D(centre, angle, zoom)
        matrix[:, 0] *= rng.uniform(0.5, 1.6)
        turned = cv2.warpAffine(source, matrix, (side, side), borderMode=cv2.BORDER_REFLECT_101)
        values = (turned.astype(np.float32) / 255 - 0.5) * self.gain
        sign = -1 if rng.random() < 0.4 else 1
        return np.asarray(values * sign * rng.uniform(0.5, 2) + rng.choice([0, rng.normal() * 0.7]), np.float32)


def _changed(kind: str, image: Plane, rng: np.random.Generator) -> Plane:
    """The image itself: one of its grey values, brighter or darker, blurred, at another contrast."""
    if kind == "flat":
        value = image[tuple(rng.integers(image.shape[0], size=2))] if rng.random() < 0.7 else rng.normal() * 2.5
        return np.full_like(image, value)
    if kind == "offset":
        return np.asarray(image + np.float32(rng.choice([-1, 1]) * rng.uniform(0.5, 4)), np.float32)
    if kind == "blurred":
        blurred = cv2.GaussianBlur(image, (0, 0), float(rng.choice([1, 2, 4])))
        return np.asarray(blurred + np.float32(rng.normal() * 0.5), np.float32)
    mean = image.mean()  # "contrast"
    return np.asarray(mean + (image - mean) * np.exp(rng.choice([-1, 1]) * rng.uniform(0.5, 1.3)), np.float32)


def _draw(chances: Sequence[tuple[str, float]], rng: np.random.Generator) -> str:
    weights = np.array([weight for _, weight in chances])
    return chances[int(rng.choice(len(chances), p=weights / weights.sum()))][0]


def _noise(side: int, rng: np.random.Generator) -> Plane:
    """Noise of one to three scales, some of it drawn out along an axis; SD 1."""
    total = np.zeros((side, side), np.float32)
    for scale in rng.choice([0.6, 1, 2, 4, 8, 16], rng.integers(1, 4), replace=False):
        white = rng.standard_normal((side, side), np.float32)
        stretched = float(scale) * float(rng.choice([1, 1, 0.5]))
        part = cv2.GaussianBlur(white, (0, 0), stretched, sigmaY=float(scale))
        total += part / part.std() * np.float32(rng.uniform(0.3, 1))
    return np.asarray(total / total.std(), np.float32)


def _stripes(side: int, rng: np.random.Generator) -> Plane:
    yy, xx = np.mgrid[0:side, 0:side].astype(np.float32)
    angle = rng.choice([0, np.pi / 2, rng.uniform(0, np.pi)])
    wave = np.sin((xx * np.cos(angle) + yy * np.sin(angle)) * 2 * np.pi / rng.uniform(3, 24))
    if rng.random() < 0.5:
        wave = np.sign(wave)
    return np.asarray(wave * rng.uniform(0.5, 3) + rng.choice([0, rng.normal() * 2]), np.float32)


def _mask(kind: str, side: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """(side, side) of 0 and 1: where a patch goes."""
    mask = np.zeros((side, side), np.uint8)
    size = float(np.exp(rng.uniform(np.log(SMALLEST), np.log(side * LARGEST_SHARE))))
    row, column = (int(v) for v in rng.integers(0, side, 2))
    if kind == "blob":
        smooth = cv2.GaussianBlur(rng.standard_normal((side, side), np.float32), (0, 0), size / 3 + 1)
        reach = int(size) + 2
        near = (slice(max(0, row - reach), row + reach), slice(max(0, column - reach), column + reach))
        mask[near] = smooth[near] > np.quantile(smooth[near], 0.6)
    elif kind == "rectangle":
        height, width = (max(2, int(size * rng.uniform(0.5, 1.5))) for _ in range(2))
        mask[row : row + height, column : column + width] = 1
    elif kind == "lines":
        across = mask if rng.random() < 0.5 else mask.T
        across[row : row + max(2, int(size) // 3)] = 1
    elif kind == "stroke":
        turns = rng.uniform(0, 2 * np.pi) + np.cumsum(rng.normal(size=int(rng.integers(3, 12))) * 0.5)
        steps = np.cumsum(np.stack([np.cos(turns), np.sin(turns)], 1) * (2 + size / 5), axis=0) + np.array(
            [column, row]
        )
        cv2.polylines(mask, [steps.astype(np.int32)], isClosed=False, color=1, thickness=int(rng.integers(1, 7)))
    elif kind == "dots":
        for x, y in rng.integers(side, size=(int(rng.integers(2, 12)), 2)):
            cv2.circle(mask, (int(x), int(y)), int(rng.integers(1, 2 + max(1, int(size) // 6))), 1, -1)
    else:
        axes = max(2, int(size / 2)), max(2, int(size / 2 * rng.uniform(0.4, 1)))
        thickness = -1 if kind == "ellipse" else max(1, int(size) // 10)
        cv2.ellipse(mask, (column, row), axes, float(rng.uniform(0, 180)), 0, 360, 1, thickness)
    return mask
