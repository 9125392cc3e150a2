"""UNets of pictures with boxes, trained by the product's code and preset, and what their maps say of other pictures.

What differs from `umbra train unseen`: pictures are brought to one mean and SD instead of the stretch's tone, every fifth one
is kept to calibrate on instead of a group in eight, and what is familiar is kept of those as well: there are ten to begin with.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.unseen.sets import Picture
from engines.models import ForImages, build
from engines.training.data import ImageSet, Pictures
from engines.training.fit import Stage, fit, predict
from engines.training.photographs import start_from_photographs
from engines.training.presets import PRESETS
from engines.training.unseen import ALPHA, finish, unseen_job, usual_recipe
from kernels import IMAGE_SIDE, Reducer, UnseenMetrics

HELD_EVERY = 5
STAGES = PRESETS["photographs"]["unseen"]
THRESHOLD_QUANTILE = 0.9  # of S over the pool: no constant t serves every set


def image_set(pictures: Sequence[Picture]) -> ImageSet:
    """Pictures as the training of the UNet reads them."""
    boxes = [np.column_stack([np.full(len(p.boxes), i, np.float32), p.boxes]) for i, p in enumerate(pictures)]
    return ImageSet(
        images=np.stack([p.image for p in pictures]),
        class_index=np.zeros(len(pictures), np.int64),
        rating=np.zeros(len(pictures), np.float32),
        boxes=np.concatenate(boxes),
        scale=np.array([p.scale for p in pictures], np.float32),
        sensor=np.array(["" for _ in pictures]),
        kind=np.array(["" for _ in pictures]),
    )


def trained(
    pictures: Sequence[Picture],
    turns: Pictures,
    *,
    seed: int,
    recipe: str = "photographs",
    stages: tuple[Stage, ...] = STAGES,
) -> ForImages:
    """A UNet from nothing, taught by the boxes of some pictures, which may be turned so.

    Of at least five pictures every fifth calibrates it and teaches nothing; the paper's recipe has no use for them and learns
    from all.

    Args:
        pictures: labeled ones.
        turns: what they may be turned to.
        seed: of all draws.
        recipe: paper, exposed, or photographs: weighted, with a network whose encoder learnt photographs.
        stages: of training.
    """
    photographs = recipe == "photographs"
    taught_as = usual_recipe("photographs") if photographs else recipe
    everything = image_set(pictures)
    held = np.arange(len(pictures)) % HELD_EVERY == HELD_EVERY - 1
    taught = everything if recipe == "paper" or not held.any() else everything.select(~held)
    known = everything.select(held) if held.any() else everything
    model = build("unseen", seed=seed, photographs=photographs)
    if photographs:
        start_from_photographs(model, ())
    with tempfile.TemporaryDirectory() as scratch:
        job = unseen_job(model, taught, taught, stages, Path(scratch), seed=seed, recipe=taught_as, pictures=turns)
        fit(replace(job, validate=lambda *_: {}, report=lambda _line: None))
    finish(job, everything.images, known.images, taught_as, turns)
    return model


def logits_of(model: ForImages, pictures: Sequence[Picture]) -> NDArray[np.float32]:
    """(n, 2, 224, 224) logits."""
    return predict(model, np.stack([p.image for p in pictures]), IMAGE_SIDE, batch=8, exact=True)


def measured(logits: NDArray[np.float32], *, alpha: float = ALPHA) -> tuple[list[UnseenMetrics], float]:
    """The metrics of each picture by the product's kernel, and the t they are for: a quantile of S over all pictures.

    A bundle's t is chosen on a thousand clean frames; labels of some ten pictures leave none to choose on.
    """
    maps = [Reducer(threshold=0.5, alpha=alpha).reduce(np.ascontiguousarray(one)).map for one in logits]
    t = float(np.clip(np.quantile(np.stack(maps), THRESHOLD_QUANTILE) / 255, 1 / 256, 252 / 256))
    reducer = Reducer(threshold=t, alpha=alpha)
    return [reducer.reduce(np.ascontiguousarray(one)) for one in logits], t
