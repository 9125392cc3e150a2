"""Stretched images with their labels, as training reads them; simulated in parallel or filled from files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, fields
from enum import StrEnum
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engines.simulation import CLASSES, SENSORS, SIMULATION_VERSION, TRAINING_MIX, Plan, Sensor, draw_plan, simulate
from kernels import IMAGE_SIDE, NotADarkFrameError, RawFrame, Stretcher, StretchParams

AMBIGUOUS = -1  # class_index of frames at the OK/NG border: for regression and UNet only
AMBIGUOUS_SHARE = 0.10
BORDER_SHARE = 0.20  # of frames, whose level is drawn close to the ambiguous ones, on either side
BORDER_LEVELS = {"OK": (1.0, 2.5), "Spot": (3.5, 5.0), "Diagonal": (3.5, 5.0)}
FULL_SIZE_SHARE = 0.01
CHUNK = 64
SET_VERSION = 2  # of what is kept of a frame: sets of another one are made anew
TRAINING_TAG = 11  # parts the streams of these sets from those of `umbra simulate` with the same seed


class Pictures(StrEnum):
    """What ordinary pictures, which are no raw frames, may be turned to without a change of class."""

    TURNED = "turned"  # any way
    UPRIGHT = "upright"  # rows stay rows: mirrored both ways


@dataclass(frozen=True, slots=True)
class ImageSet:
    """Stretched images and what is known of them.

    Attributes:
        images: (n, 224, 224) uint8, image times 255, rounded.
        class_index: (n,) int64 into CLASSES, or -1 where ambiguous.
        rating: (n,) float32, 0..10.
        boxes: (m, 5) float32: image number, x0, y0, x1, y1 in pixels of the 224 image.
        scale: (n, 2) float32, pixels of the image for one of the frame, along x and y.
        sensor, kind: (n,) str.
    """

    images: NDArray[np.uint8]
    class_index: NDArray[np.int64]
    rating: NDArray[np.float32]
    boxes: NDArray[np.float32]
    scale: NDArray[np.float32]
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
        names = (f.name for f in fields(self) if f.name != "boxes")
        return ImageSet(boxes=boxes, **{name: getattr(self, name)[keep] for name in names})

    @property
    def digest(self) -> str:
        """Names the set: SHA-256 of all labels and of about a thousand of the images."""
        found = hashlib.sha256()
        for name, labels in self._labels().items():
            found.update(f"{name} {labels.shape} {labels.dtype}".encode() + labels.tobytes())
        found.update(self.images[:: max(1, len(self) // 1000)].tobytes())
        return found.hexdigest()

    def _labels(self) -> dict[str, NDArray[np.generic]]:
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name != "images"}

    def save(self, folder: Path) -> None:
        """Write images.npy and labels.npz to a new folder, which appears when it is whole.

        Raises:
            OSError: the folder is there and is not empty, or it cannot be written.
        """
        save_joined([self], folder)

    @classmethod
    def load(cls, folder: Path) -> ImageSet:
        """Read what save wrote; images stay on disk until used."""
        with np.load(folder / "labels.npz") as labels:
            return cls(images=np.load(folder / "images.npy", mmap_mode="r"), **dict(labels))


def _joined_labels(sets: Sequence[ImageSet]) -> dict[str, NDArray[Any]]:
    offsets = np.cumsum([0, *(len(s) for s in sets)])
    boxes = [s.boxes + np.array([offset, 0, 0, 0, 0], np.float32) for s, offset in zip(sets, offsets, strict=False)]
    columns = ("class_index", "rating", "scale", "sensor", "kind")
    return {
        "boxes": np.concatenate(boxes),
        **{name: np.concatenate([getattr(s, name) for s in sets]) for name in columns},
    }


def join(sets: Sequence[ImageSet]) -> ImageSet:
    """One set of several, in order."""
    return ImageSet(images=np.concatenate([s.images for s in sets]), **_joined_labels(sets))


def save_joined(sets: Sequence[ImageSet], folder: Path) -> None:
    """Write several sets as one to a new folder, which appears when it is whole; images are copied one set at a time.

    Raises:
        OSError: the folder is there and is not empty, or it cannot be written.
    """
    temporary = folder.with_name(f"{folder.name}.tmp")
    temporary.mkdir(parents=True, exist_ok=True)
    np.savez(temporary / "labels.npz", **_joined_labels(sets))  # type: ignore[arg-type]
    shape = (sum(len(s) for s in sets), *sets[0].images.shape[1:])
    images = np.lib.format.open_memmap(temporary / "images.npy", "w+", np.uint8, shape)
    for part, start in zip(sets, np.cumsum([0, *(len(s) for s in sets)]), strict=False):
        images[start : start + len(part)] = part.images
    images.flush()
    temporary.rename(folder)


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

    @property
    def digest(self) -> str:
        """Names the recipe and the version of the simulation: what it draws now, and not before a change of either."""
        words = {f.name: getattr(self, f.name) for f in fields(self)} | {"version": [SIMULATION_VERSION, SET_VERSION]}
        return hashlib.sha256(json.dumps(words).encode()).hexdigest()


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
    scale = np.array([IMAGE_SIDE / sensor.width, IMAGE_SIDE / sensor.height], np.float32)
    boxes = np.array(frame.truth.boxes, np.float32).reshape(-1, 4) * np.tile(scale, 2)
    return ImageSet(
        images=np.rint(out * 255).astype(np.uint8)[None],
        class_index=np.array([class_index], np.int64),
        rating=np.array([frame.truth.rating], np.float32),
        boxes=np.column_stack([np.zeros(len(boxes), np.float32), boxes]),
        scale=scale[None],
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
    first: int = 0,
    workers: int | None = None,
    progress: Callable[[int], None] = lambda _: None,
) -> ImageSet:
    """Draw frames `first` to `first + count` of a recipe, expose and stretch them in worker processes.

    Args:
        recipe: how.
        count: frames drawn.
        params: of the stretch.
        first: index of the first one.
        workers: processes; None: one for each core.
        progress: called with the frames drawn so far.

    Returns:
        The set in order of index; the same recipe gives the same set. Frames that cannot be stretched are left out.
    """
    stop = first + count
    tasks = [(recipe, params, start, min(start + CHUNK, stop)) for start in range(first, stop, CHUNK)]
    parts: list[ImageSet] = []
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        for (_, _, _, end), part in zip(tasks, pool.map(_simulate_chunk, tasks), strict=True):
            parts += part
            progress(end - first)
    return join(parts)
