"""The training loop all three networks share: stages of growing image side, one-cycle rate, checkpoints that resume."""

from __future__ import annotations

import csv
import os
import pickle
import time
import zipfile
from collections.abc import Callable, Iterable
from dataclasses import astuple, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from engines.errors import TrainingError
from engines.models import area_weights
from engines.training.parallel import join_group
from engines.training.pictures import draw_curve

Batch = tuple[Tensor, ...]
SGD_RATE = 30.0  # a step of AdamW is about its rate a weight; SGD's is its rate times a gradient far below 1
CURVE_COLUMNS = ("stage", "side", "images", "seconds", "rate", "loss")


@dataclass(frozen=True, slots=True)
class Stage:
    """Part of a schedule.

    Attributes:
        side: images are averaged down to this many pixels, at most 224.
        images: images seen.
        batch: images a step.
        rate: peak learning rate of the stage's one-cycle schedule.
    """

    side: int
    images: int
    batch: int
    rate: float

    @property
    def steps(self) -> int:
        """Optimiser steps."""
        return max(1, self.images // self.batch)

    @property
    def pixels(self) -> int:
        """Pixels that all steps see: what the stage's time is in proportion to."""
        return self.steps * self.batch * self.side**2


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What to train and how.

    Attributes:
        model: changed in place.
        draw: (stage, rng) -> a batch on the CPU; its first tensor is the images, (n, 1, side, side) in [0, 1].
        loss: (output, batch) -> scalar.
        validate: (model, side) -> named numbers; called after each stage.
        stages: in order.
        out: folder of checkpoint.pt, curve.csv and curve.png.
        seed: of the draws.
        data: digest of what is learnt from; a checkpoint belongs to it.
        start: SHA-256 of the file whose weights the model has, or empty for fresh ones; a checkpoint belongs to it.
        optimizer: adamw or sgd; the rate of SGD is SGD_RATE times the stage's.
        weight_decay: of AdamW.
        curve_steps: steps between two rows of curve.csv.
        checkpoint_s: seconds between checkpoints.
        report_s: seconds between lines of progress.
        report: called with one line of progress.
        device: cuda or cpu.
    """

    model: nn.Module
    draw: Callable[[Stage, np.random.Generator], Batch]
    loss: Callable[[Tensor, Batch], Tensor]
    validate: Callable[[nn.Module, int], dict[str, float]]
    stages: tuple[Stage, ...]
    out: Path
    seed: int = 0
    data: str = ""
    start: str = ""
    optimizer: str = "adamw"
    weight_decay: float = 0.02
    curve_steps: int = 50
    checkpoint_s: float = 120.0
    report_s: float = 15.0
    report: Callable[[str], None] = print
    device: str = field(default_factory=lambda: "cuda" if torch.cuda.is_available() else "cpu")


def fit(job: Job) -> None:
    """Train a job's model, or go on where its last checkpoint stopped.

    Each batch is drawn from (seed, stage, step), so that a resumed run sees the same batches. Under torchrun each process
    draws its part of the batch from (seed, stage, step, rank).

    Raises:
        TrainingError: the folder's checkpoint cannot be read, or belongs to another seed, data, start, optimiser or
            schedule.
    """
    group = join_group()
    job.out.mkdir(parents=True, exist_ok=True)
    model = job.model.to(job.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    state = _load(job.out / "checkpoint.pt")
    if state:
        _check_same(job, state)
        model.load_state_dict(state["model"])
        job.report(f"resumed at stage {int(state['stage']) + 1} step {state['step']}")
        if group.leads:
            _trim_curve(job.out / "curve.csv", _images_before(job, int(state["stage"]), int(state["step"])))
    group.wait()  # before the leader writes another checkpoint
    for number in range(len(job.stages)):
        if state and number < int(state["stage"]):
            continue
        # A checkpoint at a stage's first step holds the optimiser of the stage before it.
        here = state if state and number == state["stage"] and state["step"] else None
        _run_stage(job, model, number, here)


def _belongs_to(job: Job, stages: int) -> dict[str, object]:
    """What a checkpoint belongs to: all that decides its weights, of stages those up to its own."""
    return {"seed": job.seed, "data": job.data, "start": job.start, "optimiser": job.optimizer,
            "stages": [list(astuple(stage)) for stage in job.stages[:stages]]}  # fmt: skip


def _check_same(job: Job, state: dict[str, Any]) -> None:
    begun = int(state["stage"]) + bool(state["step"])
    then: dict[str, object] = state.get("belongs_to", {})
    now = _belongs_to(job, begun)
    if differing := [key for key, value in now.items() if then.get(key) != value]:
        told = "; ".join(f"{key} {then.get(key) or 'none'}, now {now[key] or 'none'}" for key in differing)
        raise TrainingError(
            f"{job.out / 'checkpoint.pt'}: begun with {told}; go on with the same, or choose another folder"
        )


def _images_before(job: Job, number: int, step: int) -> int:
    """Images seen before a step of a stage."""
    earlier = sum(stage.steps * stage.batch for stage in job.stages[:number])
    return earlier + (step * job.stages[number].batch if step else 0)


def _peak_rate(job: Job, stage: Stage) -> float:
    return stage.rate * (SGD_RATE if job.optimizer == "sgd" else 1)


def _make_optimizer(job: Job, model: nn.Module, stage: Stage) -> torch.optim.Optimizer:
    if job.optimizer == "sgd":
        return torch.optim.SGD(
            model.parameters(), _peak_rate(job, stage), momentum=0.9, nesterov=True, weight_decay=5e-4
        )
    return torch.optim.AdamW(model.parameters(), stage.rate, weight_decay=job.weight_decay)


def _run_stage(job: Job, model: nn.Module, number: int, state: dict[str, Any] | None) -> None:
    stage, group = job.stages[number], join_group()
    optimizer = _make_optimizer(job, model, stage)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, _peak_rate(job, stage), stage.steps + 1, pct_start=0.25, cycle_momentum=False
    )
    first = 0
    if state:
        optimizer.load_state_dict(state["optimizer"])
        scheduler.load_state_dict(state["scheduler"])
        first = int(state["step"])
    part = replace(stage, batch=max(1, stage.batch // group.size))
    shared = group.share(model)
    began = saved = told = time.monotonic()
    later = sum(other.pixels for other in job.stages[number + 1 :])
    losses: list[float] = []
    shared.train()

    def row(step: int, **scores: float) -> dict[str, float]:
        return {"stage": number, "side": stage.side, "images": _images_before(job, number, step),
                "seconds": round(time.monotonic() - began, 1), "rate": float(scheduler.get_last_lr()[0]),
                "loss": float(np.mean(losses[-job.curve_steps :])) if losses else float("nan"), **scores}  # fmt: skip

    for step in range(first, stage.steps):
        words = (job.seed, number, step) if group.size == 1 else (job.seed, number, step, group.rank)
        losses.append(_step(job, shared, optimizer, part, np.random.default_rng(words)))
        scheduler.step()
        if not group.leads:
            continue
        if (step + 1) % job.curve_steps == 0:
            _write_curve(job.out / "curve.csv", row(step + 1))
        now = time.monotonic()
        if now - saved > job.checkpoint_s:
            saved = now
            _save(job, model, optimizer, scheduler, number, step + 1)
        if now - told > job.report_s:
            told = now
            done = (step + 1 - first) * stage.batch * stage.side**2
            left = (stage.steps - step - 1) * stage.batch * stage.side**2 + later
            job.report(f"stage {number + 1} of {len(job.stages)} ({stage.side} px) step {step + 1}/{stage.steps} "
                       f"loss {np.mean(losses[-100:]):.4f} eta {(now - began) * left / done / 60:.1f} min")  # fmt: skip
    if group.leads:
        scores = job.validate(model, stage.side)
        _write_curve(job.out / "curve.csv", row(stage.steps, **scores))
        draw_curve(job.out / "curve.csv", job.out / "curve.png")
        job.report(f"stage {number + 1} done in {time.monotonic() - began:.0f} s: "
                   + " ".join(f"{k} {v:.4f}" for k, v in scores.items()))  # fmt: skip
        _save(job, model, optimizer, scheduler, number + 1, 0)


def mixed_precision(device: str) -> bool:
    """Whether bfloat16 pays: on CUDA, and on CPUs that multiply it; elsewhere it is emulated at half the speed."""
    if device != "cpu":
        return True
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities["avx512_bf16"] or capabilities["amx_bf16"])


def _step(
    job: Job, model: nn.Module, optimizer: torch.optim.Optimizer, stage: Stage, rng: np.random.Generator
) -> float:
    batch = tuple(t.to(job.device) for t in job.draw(stage, rng))
    images = batch[0].contiguous(memory_format=torch.channels_last)
    with torch.autocast(job.device, torch.bfloat16, enabled=mixed_precision(job.device)):
        output = model(images)
    loss = job.loss(output.float(), batch)
    optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(model.parameters(), 5.0)
    optimizer.step()
    return float(loss.detach())


def _load(path: Path) -> dict[str, Any] | None:
    if not path.exists():
        return None
    unreadable = TrainingError(f"{path}: not a checkpoint that can be read; remove it to begin anew")
    if not zipfile.is_zipfile(path):
        raise unreadable
    try:
        state: dict[str, Any] = torch.load(path, weights_only=True, map_location="cpu")
    except (RuntimeError, pickle.UnpicklingError) as error:
        raise unreadable from error
    return state


def _save(
    job: Job,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    scheduler: torch.optim.lr_scheduler.LRScheduler,
    stage: int,
    step: int,
) -> None:
    """Write the checkpoint beside the old one, then take its place: a kill leaves one of the two."""
    temporary = job.out / "checkpoint.tmp"
    torch.save(
        {
            "model": model.state_dict(),
            "optimizer": optimizer.state_dict(),
            "scheduler": scheduler.state_dict(),
            "stage": stage,
            "step": step,
            "belongs_to": _belongs_to(job, stage + bool(step)),
        },
        temporary,
    )
    with temporary.open("rb") as file:
        os.fsync(file.fileno())
    os.replace(temporary, job.out / "checkpoint.pt")  # noqa: PTH105  (atomic on POSIX, as the docstring says)


def _trim_curve(path: Path, images: int) -> None:
    """Take out rows that were written after the checkpoint that training goes on from."""
    if not path.exists():
        return
    with path.open(newline="") as file:
        reader = csv.DictReader(file)
        rows, columns = list(reader), reader.fieldnames or CURVE_COLUMNS
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns, restval="")
        writer.writeheader()
        writer.writerows(row for row in rows if int(row["images"]) <= images)


def _write_curve(path: Path, row: dict[str, float]) -> None:
    """Add a row; the file's columns are the common ones, then the numbers of validation."""
    rows: list[dict[str, str]] = []
    columns = list(CURVE_COLUMNS)
    if path.exists():
        with path.open(newline="") as file:
            reader = csv.DictReader(file)
            columns, rows = list(reader.fieldnames or columns), list(reader)
    if new := [key for key in row if key not in columns]:
        columns += new
    elif path.exists():
        with path.open("a", newline="") as file:
            csv.DictWriter(file, columns, restval="").writerow(row)
        return
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns, restval="")
        writer.writeheader()
        writer.writerows(rows)
        writer.writerow(row)


def to_images(images: NDArray[np.uint8], side: int) -> Tensor:
    """(n, 224, 224) uint8 -> (n, 1, side, side) float32 in [0, 1], area-averaged down to `side`."""
    full = torch.from_numpy(np.array(images, np.float32)).unsqueeze(1) / 255
    if side == full.shape[-1]:
        return full
    weights = area_weights(side)
    return weights @ full @ weights.T


@torch.no_grad()
def predict(
    model: nn.Module, images: NDArray[np.uint8], side: int, *, batch: int = 64, exact: bool = False
) -> NDArray[np.float32]:
    """Outputs of a model in evaluation mode for (n, 224, 224) uint8 images.

    Args:
        model: any whose input is (n, 1, side, side) in [0, 1].
        images: as they are stored.
        side: they are averaged down to this many pixels.
        batch: images at a time.
        exact: in float32, even where training would use mixed precision.
    """
    mixed = not exact and mixed_precision(next(model.parameters()).device.type)
    was_training = model.training
    model.eval()
    device = next(model.parameters()).device
    parts = []
    for start in range(0, len(images), batch):
        x = to_images(images[start : start + batch], side).to(device)
        with torch.autocast(device.type, torch.bfloat16, enabled=mixed):
            parts.append(model(x.contiguous(memory_format=torch.channels_last)).float().cpu().numpy())
    model.train(was_training)
    return np.concatenate(parts)


def reestimate_norms(model: nn.Module, images: NDArray[np.uint8], side: int, *, batch: int = 64) -> None:
    """Set the running statistics of every BatchNorm to their mean over images (precise-BN).

    After short training the exponential averages lag far behind the weights.
    """
    parts = np.array_split(images, max(1, len(images) // batch))  # of like size: they count alike
    reestimate_norms_over(model, (to_images(part, side) for part in parts))


@torch.no_grad()
def reestimate_norms_over(model: nn.Module, batches: Iterable[Tensor]) -> None:
    """The same over batches of (n, 1, side, side) images in [0, 1] as training saw them, where it changed them."""
    model.train()
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d) and m.training]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # torch: a plain average
    device = next(model.parameters()).device
    for images in batches:
        x = images.to(device)
        with torch.autocast(device.type, torch.bfloat16, enabled=mixed_precision(device.type)):
            model(x.contiguous(memory_format=torch.channels_last))
    for norm in norms:
        norm.momentum = 0.1
    model.eval()
