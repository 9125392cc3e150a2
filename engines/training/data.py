"""Stretched images with their labels, as training reads them; simulated in parallel or filled from files."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, fields
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from engines.simulation import CLASSES, SENSORS, TRAINING_MIX, Plan, Sensor, draw_plan, simulate
from kernels import IMAGE_SIDE, NotADarkFrameError, RawFrame, Stretcher, StretchParams

AMBIGUOUS = -1  # class_index of frames at the OK/NG border: for regression and UNet only
AMBIGUOUS_SHARE = 0.10
BORDER_SHARE = 0.20  # of frames, whose level is drawn close to the ambiguous ones, on either side
BORDER_LEVELS = {"OK": (1.0, 2.5), "Spot": (3.5, 5.0), "Diagonal": (3.5, 5.0)}
FULL_SIZE_SHARE = 0.01
CHUNK = 64
TRAINING_TAG = 11  # parts the streams of these sets from those of `umbra simulate` with the same seed


@dataclass(frozen=True, slots=True)
class ImageSet:
    """Stretched images and what is known of them.

    Attributes:
        images: (n, 224, 224) uint8, image times 255, rounded.
        class_index: (n,) int64 into CLASSES, or -1 where ambiguous.
        rating: (n,) float32, 0..10.
        boxes: (m, 5) float32: image number, x0, y0, x1, y1 in pixels of the 224 image.
        sensor, kind: (n,) str.
    """

    images: NDArray[np.uint8]
    class_index: NDArray[np.int64]
    rating: NDArray[np.float32]
    boxes: NDArray[np.float32]
    sensor: NDArray[np.str_]
    kind: NDArray[np.str_]

    def __len__(self) -> int:
        return len(self.images)

    def boxes_of(self, i: int) -> NDArray[np.float32]:
        """(k, 4) boxes of image i."""
        return self.boxes[self.boxes[:, 0] == i, 1:]

    def select(self, keep: NDArray[np.bool_]) -> ImageSet:
        """The images where keep is True, renumbered."""
        number = np.cumsum(keep) - 1
        boxes = self.boxes[keep[self.boxes[:, 0].astype(int)]].copy()
        boxes[:, 0] = number[boxes[:, 0].astype(int)]
        return ImageSet(
            self.images[keep], self.class_index[keep], self.rating[keep], boxes, self.sensor[keep], self.kind[keep]
        )

    def save(self, folder: Path) -> None:
        """Write images.npy and labels.npz; the folder appears when it is whole."""
        if folder.exists():
            shutil.rmtree(folder)
        temporary = folder.with_name(f"{folder.name}.tmp")
        temporary.mkdir(parents=True, exist_ok=True)
        labels = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "images"}
        np.savez(temporary / "labels.npz", **labels)
        np.save(temporary / "images.npy", self.images)
        temporary.rename(folder)

    @classmethod
    def load(cls, folder: Path) -> ImageSet:
        """Read what save wrote; images stay on disk until used."""
        with np.load(folder / "labels.npz") as labels:
            return cls(images=np.load(folder / "images.npy", mmap_mode="r"), **dict(labels))


def join(sets: Sequence[ImageSet]) -> ImageSet:
    """One set of several, in order."""
    offsets = np.cumsum([0, *(len(s) for s in sets)])
    boxes = [s.boxes + np.array([offset, 0, 0, 0, 0], np.float32) for s, offset in zip(sets, offsets, strict=False)]
    columns = ("images", "class_index", "rating", "sensor", "kind")
    joined = {name: np.concatenate([getattr(s, name) for s in sets]) for name in columns}
    return ImageSet(boxes=np.concatenate(boxes), **joined)


@dataclass(frozen=True, slots=True)
class SetRecipe:
    """How a simulated set is drawn.

    Attributes:
        sensors: names out of A..F.
        seed: never one of another set.
        nuisance: lowest and highest factor on shading, glow, line noise and hot pixels.
        shading: lowest and highest further factor on shading and glow, drawn log-uniformly.
        full_size: share of frames at the sensor's own size; the others are 0.15 to 1 MP.
        mix: share of each class.
        ambiguous, border: shares of frames at the OK/NG border, and close to it on either side.
    """

    sensors: tuple[str, ...] = tuple(SENSORS)
    seed: int = 0
    nuisance: tuple[float, float] = (0.3, 2.5)
    shading: tuple[float, float] = (0.5, 3.5)
    full_size: float = FULL_SIZE_SHARE
    mix: tuple[tuple[str, float], ...] = tuple(TRAINING_MIX.items())
    ambiguous: float = AMBIGUOUS_SHARE
    border: float = BORDER_SHARE


def _draw_sensor(recipe: SetRecipe, rng: np.random.Generator) -> Sensor:
    sensor = SENSORS[str(rng.choice(recipe.sensors))]
    if rng.random() < recipe.full_size:
        return sensor
    width = int(np.exp(rng.uniform(np.log(440), np.log(1150))))
    return sensor.resized(width, int(width * rng.uniform(0.7, 0.95)))


def _draw_plan(sensor: Sensor, recipe: SetRecipe, rng: np.random.Generator) -> tuple[Plan, bool]:
    """A plan by the recipe's mix, and whether it is ambiguous; those at the border are what is hard to learn."""
    plan = draw_plan(sensor, rng, dict(recipe.mix))
    share = rng.random()
    if share < recipe.ambiguous:
        return Plan(str(rng.choice(["Spot", "Diagonal"], p=[0.7, 0.3])), rng.uniform(2.0, 4.0)), True
    if share < recipe.ambiguous + recipe.border and plan.class_name != "Error":
        return Plan(plan.class_name, rng.uniform(*BORDER_LEVELS[plan.class_name])), False
    return plan, False


def _draw(recipe: SetRecipe, index: int, stretcher: Stretcher, out: NDArray[np.float32]) -> ImageSet | None:
    rng = np.random.default_rng((recipe.seed, index, TRAINING_TAG))
    sensor = _draw_sensor(recipe, rng)
    plan, ambiguous = _draw_plan(sensor, recipe, rng)
    class_index = AMBIGUOUS if ambiguous else CLASSES.index(plan.class_name)
    frame = simulate(
        sensor, plan, seed=(recipe.seed, index, TRAINING_TAG), frames=int(rng.choice([1, 1, 1, 4, 16])),
        nuisance=rng.uniform(*recipe.nuisance), shading=float(np.exp(rng.uniform(*np.log(recipe.shading)))),
    )  # fmt: skip
    try:
        stretcher.stretch(RawFrame.from_samples(frame.samples, bits=sensor.bits), out)
    except NotADarkFrameError:  # a capture failure that never reaches the networks
        return None
    boxes = np.array(frame.truth.boxes, np.float32).reshape(-1, 4) * IMAGE_SIDE
    boxes /= np.array([sensor.width, sensor.height] * 2, np.float32)
    return ImageSet(
        images=np.rint(out * 255).astype(np.uint8)[None],
        class_index=np.array([class_index], np.int64),
        rating=np.array([frame.truth.rating], np.float32),
        boxes=np.column_stack([np.zeros(len(boxes), np.float32), boxes]),
        sensor=np.array([sensor.name]),
        kind=np.array([frame.truth.kind]),
    )


def _simulate_chunk(task: tuple[SetRecipe, StretchParams, int, int]) -> list[ImageSet]:
    recipe, params, start, stop = task
    stretcher, out = Stretcher(params), np.empty((IMAGE_SIDE, IMAGE_SIDE), np.float32)
    return [one for i in range(start, stop) if (one := _draw(recipe, i, stretcher, out)) is not None]


def simulate_set(
    recipe: SetRecipe,
    count: int,
    params: StretchParams,
    *,
    workers: int = 2,
    progress: Callable[[int], None] = lambda _: None,
) -> ImageSet:
    """Draw `count` frames, expose and stretch them in worker processes.

    Returns:
        The set in order of index; the same recipe gives the same set. Frames that cannot be stretched are left out.
    """
    tasks = [(recipe, params, start, min(start + CHUNK, count)) for start in range(0, count, CHUNK)]
    parts: list[ImageSet] = []
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        for part in pool.map(_simulate_chunk, tasks):
            parts += part
            progress(len(part))
    return join(parts)


def recipe_json(recipe: SetRecipe) -> str:
    """The recipe as it is kept beside a set."""
    return json.dumps({f.name: getattr(recipe, f.name) for f in fields(recipe)}, default=list)
