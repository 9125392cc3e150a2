"""Train one role of a bundle with a preset and write its weights."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from engines.classes import CLASSES
from engines.errors import TrainingError
from engines.models import ROLES, ForImages, ResNetD, build
from engines.training.classify import classifier_job, varied
from engines.training.data import AMBIGUOUS, ImageSet, Pictures
from engines.training.fit import Job, fit, reestimate_norms
from engines.training.parallel import join_group
from engines.training.photographs import start_from_photographs
from engines.training.presets import NORM_IMAGES, PRESETS
from engines.training.regress import calibrate, regressor_job
from engines.training.unseen import RECIPES, finish, seen_only, unseen_job, usual_recipe
from engines.training.warm_start import START_IMAGES, start_from

_JOBS: dict[str, Callable[..., Job]] = {"classifier": classifier_job, "regressor": regressor_job, "unseen": unseen_job}


def train(
    role: str,
    sets: tuple[ImageSet, ImageSet],
    out: Path,
    *,
    preset: str = "starter",
    seed: int = 0,
    optimizer: str = "adamw",
    start: Path | None = None,
    classes: int = 4,
    pictures: Pictures | None = None,
    recipe: str | None = None,
    report: Callable[[str], None] = print,
) -> Path:
    """Train a role on (training, validation) sets, or go on from out/checkpoint.pt.

    Args:
        role: of the network.
        sets: training and validation images.
        out: folder of checkpoints and weights.
        preset: a key of PRESETS.
        seed: of weights and batches.
        optimizer: adamw or sgd.
        start: a bundle's ONNX file of this role to start from, or None for fresh weights.
        classes: of a classifier: 4, or 2 to compare.
        pictures: what ordinary pictures, and no stretched frames, may be turned to; None for frames.
        recipe: of an unseen network: a key of RECIPES; None: what serves best with the preset.
        report: called with one line of progress.

    Returns:
        out/weights.pt: the state dict with re-estimated BatchNorm statistics, float32, on the CPU.

    Raises:
        TrainingError: an unknown role, preset or recipe, a set that cannot teach the role, or a start that is another network.
    """
    recipe = recipe or usual_recipe(preset)
    for what, name, known in (("role", role, ROLES), ("preset", preset, PRESETS), ("recipe", recipe, RECIPES)):
        if name not in known:
            raise TrainingError(f"{what} {name!r}: wanted one of {', '.join(known)}")
    training, validation = sets
    for name, taught in (("training", training), ("validation", validation)):
        _check_teaches(role, taught, name)
    model = _begun(role, preset, seed, start, training, pictures)
    options: dict[str, Any] = {"pictures": pictures}
    if role == "unseen":
        options["recipe"] = recipe
    if role == "classifier":
        options["classes"] = classes
    job = _JOBS[role](model, training, validation, PRESETS[preset][role], out, seed=seed, **options)
    learnt_from = f"{role} {sorted(options.items())} {training.digest} {validation.digest}"
    group = join_group()
    job = replace(
        job, optimizer=optimizer, report=report if group.leads else lambda _line: None,
        data=hashlib.sha256(learnt_from.encode()).hexdigest(),
        start="" if start is None else hashlib.sha256(start.read_bytes()).hexdigest(),
    )  # fmt: skip
    fit(job)
    if group.leads:
        _finish(job, model, sets, NORM_IMAGES[preset], options)
    return out / "weights.pt"


def _begun(
    role: str, preset: str, seed: int, start: Path | None, training: ImageSet, pictures: Pictures | None
) -> ForImages:
    """The network before its first step: at the side of the preset's last stage, with fresh or learnt weights.

    Raises:
        TrainingError: photographs and a bundle to start from, or a UNet of frames, of which noise is known and not looks.
    """
    photographs = preset == "photographs"
    if photographs and start is not None:
        raise TrainingError(f"preset photographs: begins with weights of its own, not with {start}")
    if photographs and role == "unseen" and pictures is None:
        raise TrainingError(
            "preset photographs: for the unseen network of pictures (`pictures` in the class map), these are frames"
        )
    model = build(role, seed=seed, photographs=photographs)
    if role != "unseen":
        model.side = PRESETS[preset][role][-1].side
    if photographs:
        rng, stage = np.random.default_rng(seed), PRESETS[preset][role][-1]
        parts = np.array_split(np.arange(len(training)), -(-len(training) // stage.batch))
        start_from_photographs(model, (varied(training, part, stage, rng, pictures) for part in parts))
    elif start is not None:
        start_from(model, start, training.images[:START_IMAGES])
    return model


def _finish(
    job: Job, model: ForImages, sets: tuple[ImageSet, ImageSet], norm_images: int, options: dict[str, Any]
) -> None:
    """Re-estimate the norms, calibrate, say what came of the training and write weights.pt."""
    training, validation = sets
    taught = seen_only(training) if model.role == "unseen" else training
    count = min(norm_images, len(taught))
    images = taught.images[np.sort(np.random.default_rng(job.seed).choice(len(taught), count, replace=False))]
    if model.role == "unseen":
        known = seen_only(validation).images
        job.report(finish(job, images, known, options["recipe"], options["pictures"]))
    elif isinstance(model.network, ResNetD):
        reestimate_norms(model, images, model.side, batch=min(50, count))
        if model.role == "regressor":
            slope, offset = calibrate(model, validation)
            job.report(f"levels calibrated: {slope:.2f} x level {offset:+.2f}")
    scores = job.validate(model, model.side)
    job.report(f"{model.role}, finished: " + " ".join(f"{k} {v:.4f}" for k, v in scores.items()))
    torch.save(model.float().cpu().state_dict(), job.out / "weights.tmp")
    (job.out / "weights.tmp").replace(job.out / "weights.pt")


def _check_teaches(role: str, images: ImageSet, name: str) -> None:
    """Refuse a set that a role cannot learn from, or be validated on, before the first epoch."""
    if role == "classifier":
        clear = images.class_index[images.class_index != AMBIGUOUS]
        wanted = 2 if name == "training" else 1
        if len(classes := np.unique(clear)) < wanted:
            found = f"frames of one class only ({CLASSES[classes[0]]})" if len(classes) else "no frame of a clear class"
            raise TrainingError(f"{name} set: {found}, wanted at least {wanted} of {', '.join(CLASSES)}")
    if role == "regressor":
        unrated = int((~np.isfinite(images.rating)).sum())
        if unrated:
            raise TrainingError(f"{name} set: {unrated} of {len(images)} frames have no level")
        if name == "training" and len(np.unique(images.rating)) < 2:
            raise TrainingError(f"{name} set: every frame has level {images.rating[0]:g}, wanted at least two levels")
        if name == "validation" and not (images.class_index != CLASSES.index("Error")).any():
            raise TrainingError(f"{name} set: capture failures only, wanted frames with a level")
    if role == "unseen":
        seen = seen_only(images)
        if name == "training" and not len(seen.boxes):
            raise TrainingError(f"{name} set: no box on a frame that may be learnt from "
                                "(no capture failure, no left-out shape), wanted some")  # fmt: skip
        if not len(seen):
            raise TrainingError(f"{name} set: capture failures and left-out shapes only, wanted frames to calibrate on")
