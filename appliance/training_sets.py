"""Folders of frames, or simulation, -> the image sets that training reads, kept for the next run."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from appliance.dataset import DataSetError, TruthRow, frames_of, is_ambiguous, read_truth
from engines.classes import CLASSES
from engines.training.data import AMBIGUOUS, ImageSet, SetRecipe, simulate_set
from kernels import IMAGE_SIDE, NotADarkFrameError, Stretcher, StretchParams

TRAINING_SEED, VALIDATION_SEED = 1000, 2000
VALIDATION_FRAMES = 1600
VALIDATION_NUISANCE = (0.7, 1.3)  # as on a station: spec and threshold are chosen on these frames
VALIDATION_EVERY = 5


def training_sets(data: Path | None, simulated: int | None, *, cache: Path) -> tuple[ImageSet, ImageSet]:
    """Training and validation sets: every fifth frame of a folder, or two simulated sets of different seeds.

    Raises:
        DataSetError: the folder's truth is unusable.
    """
    if simulated is not None:
        return (
            _simulated(cache / f"training-{simulated}", simulated, SetRecipe(seed=TRAINING_SEED)),
            _simulated(
                cache / f"nominal-{VALIDATION_FRAMES}",
                VALIDATION_FRAMES,
                SetRecipe(seed=VALIDATION_SEED, nuisance=VALIDATION_NUISANCE),
            ),
        )
    if data is None:
        raise DataSetError("neither a folder nor a number of frames to simulate")
    whole = from_folder(data)
    check = np.arange(len(whole)) % VALIDATION_EVERY == VALIDATION_EVERY - 1
    return whole.select(~check), whole.select(check)


def _simulated(folder: Path, count: int, recipe: SetRecipe) -> ImageSet:
    if not (folder / "images.npy").exists():
        simulate_set(recipe, count, StretchParams()).save(folder)
    return ImageSet.load(folder)


def from_folder(folder: Path) -> ImageSet:
    """Decode and stretch every frame of a folder with truth.csv.

    Raises:
        DataSetError: the truth is unusable, or no frame can be stretched.
    """
    stretcher, image = Stretcher(StretchParams()), np.empty((IMAGE_SIDE, IMAGE_SIDE), np.float32)
    images: list[np.ndarray[tuple[int, ...], np.dtype[np.uint8]]] = []
    rows: list[TruthRow] = []
    boxes: list[tuple[float, ...]] = []
    for row, frame in frames_of(folder, read_truth(folder)):
        if frame.raw is None:
            raise DataSetError(f"{folder / row.file}: {frame.unreadable}")
        try:
            stretcher.stretch(frame.raw, image)
        except NotADarkFrameError:  # the line refuses it before any network sees it
            continue
        sx, sy = IMAGE_SIDE / frame.raw.width, IMAGE_SIDE / frame.raw.height
        boxes += [(len(images), x0 * sx, y0 * sy, x1 * sx, y1 * sy) for x0, y0, x1, y1 in row.boxes]
        images.append(np.rint(image * 255).astype(np.uint8))
        rows.append(row)
    if not images:
        raise DataSetError(f"{folder}: no frame that can be stretched")
    return ImageSet(
        images=np.stack(images),
        class_index=np.array([AMBIGUOUS if is_ambiguous(r) else CLASSES.index(r.class_name) for r in rows], np.int64),
        rating=np.array([np.nan if r.level is None else r.level for r in rows], np.float32),
        boxes=np.array(boxes, np.float32).reshape(-1, 5),
        sensor=np.array([r.sensor for r in rows]),
        kind=np.array([r.kind for r in rows]),
    )
