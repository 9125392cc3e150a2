"""Folders of frames, or simulation, -> the image sets that training reads, kept for the next run."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from appliance.dataset import DataSet, DataSetError, TruthRow
from appliance.labels import LabelError, inside
from engines.classes import CLASSES
from engines.simulation import SENSOR_TEST_MIX
from engines.training.data import AMBIGUOUS, ImageSet, SetRecipe, save_joined, simulate_set
from kernels import IMAGE_SIDE, NotADarkFrameError, Stretcher, StretchParams

Image = NDArray[np.uint8]
Progress = Callable[[str, int, int], None]
TRAINING_SEED, VALIDATION_SEED = 1000, 2000
SEED_STEP = 10_000  # between the training frames of one seed and the next: none meets the validation seed
VALIDATION_FRAMES = 4000
# As on a station: spec and thresholds are chosen, and levels calibrated, on these frames.
VALIDATION = SetRecipe(
    seed=VALIDATION_SEED,
    nuisance=(0.7, 1.3),
    shading=(1.0, 1.0),
    mix=tuple(SENSOR_TEST_MIX.items()),
    ambiguous=0.02,
    border=0.0,
)
SHARD = 8192  # simulated frames that a kill can cost
CHUNK = 64  # files that a process decodes at a time
IMAGES_VERSION = 3  # of what is made of a file: another one makes kept images anew
ONE_STEP = 257.0  # of 8 bits, on the scale of 16
PICTURE_KNEE, PICTURE_REACH = 2.0, 256.0  # z where the tone turns logarithmic, and where it would reach 1


def training_sets(
    data: DataSet | None,
    simulated: int | None,
    *,
    cache: Path,
    seed: int = 0,
    progress: Progress = lambda *_: None,
) -> tuple[ImageSet, ImageSet]:
    """Training and validation sets: of a folder (its own splits, else one group in eight to validate), or simulated.

    Args:
        data: frames with truth, or None.
        simulated: training frames to simulate instead; as many validation frames, at most VALIDATION_FRAMES.
        cache: folder where the sets are kept for the next run, under names that change with what they are made of.
        seed: chooses the simulated training frames; the validation frames are always the same.
        progress: called with what is made, frames done and frames in all.

    Raises:
        DataSetError: the folder's truth is unusable.
    """
    if simulated is not None:
        drawn = SetRecipe(seed=TRAINING_SEED + SEED_STEP * seed)
        return (
            simulated_set(drawn, simulated, cache=cache, name="training", progress=progress),
            simulated_set(
                VALIDATION, min(simulated, VALIDATION_FRAMES), cache=cache, name="validation", progress=progress
            ),
        )
    if data is None:
        raise DataSetError("neither a folder nor a number of frames to simulate")
    divided = data if data.is_split else data.divided()
    return _of_files(divided, "train", cache, progress), _of_files(divided, "validation", cache, progress)


def simulated_set(
    recipe: SetRecipe, count: int, *, cache: Path, name: str, progress: Progress = lambda *_: None
) -> ImageSet:
    """The first `count` frames of a recipe, kept in the cache; made shard by shard, so that a kill costs one of them."""
    folder = cache / f"{name}-{recipe.digest[:12]}-{count}"
    shards = folder.with_name(f"{folder.name}-shards")
    if not folder.exists():
        made = [_shard(shards, name, recipe, first, count, progress) for first in range(0, count, SHARD)]
        save_joined(made, folder)
        shutil.rmtree(shards)
    return ImageSet.load(folder)


def _shard(shards: Path, name: str, recipe: SetRecipe, first: int, count: int, progress: Progress) -> ImageSet:
    folder = shards / f"{first:08d}"
    if not folder.exists():
        simulate_set(
            recipe, min(SHARD, count - first), StretchParams(), first=first,
            progress=lambda done: progress(f"simulating {name} frames", first + done, count),
        ).save(folder)  # fmt: skip
    return ImageSet.load(folder)


def _of_files(data: DataSet, split: str, cache: Path, progress: Progress) -> ImageSet:
    """A split's images, decoded on all cores, or kept from the last time where no file has changed since."""
    rows = data.of_split(split)
    stats = [(data.folder / row.file).stat() for row in rows]
    key = hashlib.sha256(repr([IMAGES_VERSION, data.folder.resolve(), data.pictures is not None, rows]).encode())
    key.update(repr([(stat.st_size, stat.st_mtime_ns) for stat in stats]).encode())
    folder = cache / f"{split}-{key.hexdigest()[:12]}"
    if not folder.exists():
        bare = replace(data, rows=())
        chunks = [rows[start : start + CHUNK] for start in range(0, len(rows), CHUNK)]
        parts: list[ImageSet] = []
        with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:
            for part in pool.map(partial(images_of, bare), chunks):
                parts.append(part)
                progress(f"decoding {split} frames", min(len(parts) * CHUNK, len(rows)), len(rows))
        if not any(map(len, parts)):
            raise DataSetError(f"{data.folder}: no frame of split {split!r} that can be stretched")
        save_joined(parts, folder)
    return ImageSet.load(folder)


def images_of(data: DataSet, wanted: Iterable[TruthRow]) -> ImageSet:
    """The images of a data set's rows, without those that the line refuses before any network.

    Raises:
        DataSetError: a file cannot be read, or a box lies outside of its frame.
    """
    images: list[Image] = []
    rows: list[TruthRow] = []
    boxes: list[tuple[float, ...]] = []
    scales: list[tuple[float, float]] = []
    for row, image, (width, height) in images_and_sizes(data, wanted):
        if image is None:
            continue
        sx, sy = IMAGE_SIDE / width, IMAGE_SIDE / height
        try:
            within = [inside(box, (width, height)) for box in row.boxes]
        except LabelError as error:
            raise DataSetError(f"{data.folder / row.file}: {error}") from None
        boxes += [(len(images), x0 * sx, y0 * sy, x1 * sx, y1 * sy) for x0, y0, x1, y1 in within]
        images.append(image)
        scales.append((sx, sy))
        rows.append(row)
    return ImageSet(
        images=np.array(images, np.uint8).reshape(-1, IMAGE_SIDE, IMAGE_SIDE),
        class_index=np.array([AMBIGUOUS if r.ambiguous else CLASSES.index(r.class_name) for r in rows], np.int64),
        rating=np.array([np.nan if r.level is None else r.level for r in rows], np.float32),
        boxes=np.array(boxes, np.float32).reshape(-1, 5),
        scale=np.array(scales, np.float32).reshape(-1, 2),
        sensor=np.array([r.sensor for r in rows]),
        kind=np.array([r.kind for r in rows]),
    )


def images_and_sizes(
    data: DataSet, wanted: Iterable[TruthRow]
) -> Iterator[tuple[TruthRow, Image | None, tuple[int, int]]]:
    """Each row with its (224, 224) uint8 image, None where the stretch refuses the frame, and the file's width and height.

    Raises:
        DataSetError: a file cannot be read.
    """
    stretcher, image = Stretcher(StretchParams()), np.empty((IMAGE_SIDE, IMAGE_SIDE), np.float32)
    if data.pictures is not None:
        for row in wanted:
            grey = read_picture(data.folder / row.file)
            yield row, picture_image(grey), (grey.shape[1], grey.shape[0])
        return
    for row, frame in data.frames(wanted):
        if frame.raw is None:
            raise DataSetError(f"{data.folder / row.file}: {frame.unreadable}")
        size = frame.raw.width, frame.raw.height
        try:
            stretcher.stretch(frame.raw, image)
        except NotADarkFrameError:  # the line refuses it before any network sees it
            yield row, None, size
        else:
            yield row, np.rint(image * 255).astype(np.uint8), size


def read_picture(path: Path) -> NDArray[np.uint16]:
    """An ordinary picture as grey values, 0..65535: (h, w).

    Raises:
        DataSetError: it cannot be read, or holds other values than 8 or 16 bits.
    """
    grey = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE | cv2.IMREAD_ANYDEPTH)
    if grey is None:
        raise DataSetError(f"{path}: no picture that can be read")
    if grey.dtype not in (np.uint8, np.uint16):
        raise DataSetError(f"{path}: a picture of {grey.dtype} values, wanted whole numbers of 8 or 16 bits")
    steps = 257 if grey.dtype == np.uint8 else 1
    return np.asarray(grey.astype(np.uint16) * np.uint16(steps))


def picture_image(grey: NDArray[np.uint16]) -> Image:
    """A picture as networks see it: (224, 224), its median at 1/2, stretched as frames are (docs/math.md 8).

    One picture has no noise model: half of what lies between its 15.9 % and 84.1 % quantiles takes the place of sigma,
    at least one step of 8 bits. Nothing is clipped.
    """
    smaller = max(grey.shape) > IMAGE_SIDE
    resized = cv2.resize(grey, (IMAGE_SIDE, IMAGE_SIDE), interpolation=cv2.INTER_AREA if smaller else cv2.INTER_LINEAR)
    low, median, high = np.percentile(resized, (15.87, 50, 84.13))
    z = (resized.astype(np.float32) - np.float32(median)) / np.float32(max((high - low) / 2, ONE_STEP))
    tone = np.arcsinh(z / PICTURE_KNEE) / np.arcsinh(PICTURE_REACH / PICTURE_KNEE)
    return np.asarray(np.rint(127.5 * (1 + tone)), np.uint8)
