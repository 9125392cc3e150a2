"""Train one role of a bundle with a preset and write its weights."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from engines.models import ROLES, build
from engines.training.classify import classifier_job
from engines.training.data import ImageSet
from engines.training.fit import fit, reestimate_norms
from engines.training.presets import NORM_IMAGES, PRESETS
from engines.training.regress import regressor_job
from engines.training.unseen import seen_only, unseen_job
from engines.training.warm_start import START_IMAGES, start_from
from kernels import IMAGE_SIDE

_JOBS = {"classifier": classifier_job, "regressor": regressor_job, "unseen": unseen_job}


def train(
    role: str,
    sets: tuple[ImageSet, ImageSet],
    out: Path,
    *,
    preset: str = "starter",
    seed: int = 0,
    optimizer: str = "adamw",
    start: Path | None = None,
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
        report: called with one line of progress.

    Returns:
        out/weights.pt: the state dict with re-estimated BatchNorm statistics, float32, on the CPU.

    Raises:
        ValueError: an unknown role or preset, a set that cannot teach the role, or a start that is another network.
    """
    if role not in ROLES or preset not in PRESETS:
        raise ValueError(f"role {role!r}, preset {preset!r}: wanted one of {ROLES} and one of {tuple(PRESETS)}")
    training, validation = sets
    if role == "classifier" and len(np.unique(training.class_index[training.class_index >= 0])) < 2:
        raise ValueError("training set: frames of one class only, wanted at least two of OK, Spot, Diagonal, Error")
    model = build(role, seed=seed)
    if start is not None:
        start_from(model, start, training.images[:START_IMAGES])
    job = _JOBS[role](model, training, validation, PRESETS[preset][role], out, seed=seed)
    begun_from = "" if start is None else hashlib.sha256(start.read_bytes()).hexdigest()
    job = replace(job, optimizer=optimizer, start=begun_from, report=report)
    fit(job)
    taught = seen_only(training) if role == "unseen" else training
    count = min(NORM_IMAGES[preset], len(taught))
    chosen = np.sort(np.random.default_rng(seed).choice(len(taught), count, replace=False))
    side = PRESETS[preset][role][-1].side if preset == "smoke" else IMAGE_SIDE
    reestimate_norms(model, taught.images[chosen], side, batch=min(50, count))
    scores = job.validate(model, side)
    report(f"{role} with re-estimated norms: " + " ".join(f"{k} {v:.4f}" for k, v in scores.items()))
    torch.save({k: v.float().cpu() if v.is_floating_point() else v.cpu() for k, v in model.state_dict().items()},
               out / "weights.pt")  # fmt: skip
    return out / "weights.pt"
