"""The training loop all three networks share: stages of growing image side, one-cycle rate, checkpoints that resume."""

from __future__ import annotations

import csv
import os
import time
from collections.abc import Callable
from dataclasses import astuple, dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

Batch = tuple[Tensor, ...]


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What to train and how.

    Attributes:
        model: changed in place.
        draw: (stage, rng) -> a batch on the CPU; its first tensor is the images, (n, 1, side, side) in [0, 1].
        loss: (output, batch) -> scalar.
        validate: (model, side) -> named numbers; called after each stage.
        stages: in order.
        out: folder of checkpoint.pt and curve.csv.
        seed: of the draws.
        start: SHA-256 of the file whose weights the model has, or empty for fresh ones; a checkpoint belongs to it.
        optimizer: adamw or sgd.
        checkpoint_s: seconds between checkpoints.
        report: called with one line of progress.
    """

    model: nn.Module
    draw: Callable[[Stage, np.random.Generator], Batch]
    loss: Callable[[Tensor, Batch], Tensor]
    validate: Callable[[nn.Module, int], dict[str, float]]
    stages: tuple[Stage, ...]
    out: Path
    seed: int = 0
    start: str = ""
    optimizer: str = "adamw"
    weight_decay: float = 0.02
    checkpoint_s: float = 120.0
    report: Callable[[str], None] = print
    device: str = field(default_factory=lambda: "cuda" if torch.cuda.is_available() else "cpu")


def fit(job: Job) -> None:
    """Train a job's model, or go on where its last checkpoint stopped.

    Each batch is drawn from (seed, stage, step), so that a resumed run sees the same batches.
    """
    job.out.mkdir(parents=True, exist_ok=True)
    model = job.model.to(job.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    state = _load(job.out / "checkpoint.pt")
    if state:
        _check_same(job, state)
        model.load_state_dict(state["model"])
        job.report(f"resumed at stage {state['stage']} step {state['step']}")
    for number in range(len(job.stages)):
        if state and number < int(state["stage"]):  # type: ignore[call-overload]
            continue
        # A checkpoint at a stage's first step holds the optimiser of the stage before it.
        here = state if state and number == state["stage"] and state["step"] else None
        _run_stage(job, model, number, here)


def _schedule(job: Job, stages: int) -> list[object]:
    """What a checkpoint belongs to: seed, start, optimiser and the stages up to its own."""
    return [job.seed, job.start, job.optimizer, *(list(astuple(stage)) for stage in job.stages[:stages])]


def _check_same(job: Job, state: dict[str, object]) -> None:
    begun = int(state["stage"]) + bool(state["step"])  # type: ignore[call-overload]
    if state["schedule"] != _schedule(job, begun):
        raise ValueError(f"{job.out / 'checkpoint.pt'}: begun with seed, start, optimiser and stages {state['schedule']}, "
                         f"now {_schedule(job, begun)}; go on with the same, or choose another folder")  # fmt: skip


def _make_optimizer(job: Job, model: nn.Module, stage: Stage) -> torch.optim.Optimizer:
    if job.optimizer == "sgd":
        return torch.optim.SGD(model.parameters(), stage.rate, momentum=0.9, nesterov=True, weight_decay=5e-4)
    return torch.optim.AdamW(model.parameters(), stage.rate, weight_decay=job.weight_decay)


def _run_stage(job: Job, model: nn.Module, number: int, state: dict[str, object] | None) -> None:
    stage = job.stages[number]
    optimizer = _make_optimizer(job, model, stage)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, stage.rate, stage.steps + 1, pct_start=0.25)
    first = 0
    if state:
        optimizer.load_state_dict(state["optimizer"])  # type: ignore[arg-type]
        scheduler.load_state_dict(state["scheduler"])  # type: ignore[arg-type]
        first = int(state["step"])  # type: ignore[call-overload]
    began = saved = time.monotonic()
    losses: list[float] = []
    model.train()
    for step in range(first, stage.steps):
        losses.append(_step(job, model, optimizer, stage, np.random.default_rng((job.seed, number, step))))
        scheduler.step()
        now = time.monotonic()
        if now - saved > job.checkpoint_s:
            saved = now
            _save(job, model, optimizer, scheduler, number, step + 1)
            eta = (now - began) / (step + 1 - first) * (stage.steps - step - 1)
            job.report(f"stage {number} ({stage.side} px) {step + 1}/{stage.steps} loss {np.mean(losses[-100:]):.4f} "
                       f"eta {eta / 60:.1f} min")  # fmt: skip
    scores = job.validate(model, stage.side)
    seconds = time.monotonic() - began
    _write_curve(job.out / "curve.csv", {
        "stage": number, "side": stage.side, "images": stage.images, "seconds": round(seconds),
        "loss": float(np.mean(losses[-200:])) if losses else float("nan"), **scores,
    })  # fmt: skip
    job.report(f"stage {number} done in {seconds:.0f} s: " + " ".join(f"{k} {v:.4f}" for k, v in scores.items()))
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


def _load(path: Path) -> dict[str, object] | None:
    return torch.load(path, weights_only=True, map_location="cpu") if path.exists() else None


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
            "schedule": _schedule(job, stage + bool(step)),
        },
        temporary,
    )
    with temporary.open("rb") as file:
        os.fsync(file.fileno())
    os.replace(temporary, job.out / "checkpoint.pt")  # noqa: PTH105  (atomic on POSIX, as the docstring says)


def _write_curve(path: Path, row: dict[str, float]) -> None:
    new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, list(row))
        if new:
            writer.writeheader()
        writer.writerow(row)


def to_images(images: NDArray[np.uint8], side: int) -> Tensor:
    """(n, 224, 224) uint8 -> (n, 1, side, side) float32 in [0, 1], area-averaged down to `side`."""
    full = torch.from_numpy(np.array(images, np.float32)).unsqueeze(1) / 255
    return full if side == full.shape[-1] else nn.functional.interpolate(full, (side, side), mode="area")


@torch.no_grad()
def predict(model: nn.Module, images: NDArray[np.uint8], side: int, *, batch: int = 64) -> NDArray[np.float32]:
    """Outputs of a model in evaluation mode for (n, 224, 224) uint8 images."""
    was_training = model.training
    model.eval()
    device = next(model.parameters()).device
    parts = []
    for start in range(0, len(images), batch):
        x = to_images(images[start : start + batch], side).to(device)
        with torch.autocast(device.type, torch.bfloat16, enabled=mixed_precision(device.type)):
            parts.append(model(x.contiguous(memory_format=torch.channels_last)).float().cpu().numpy())
    model.train(was_training)
    return np.concatenate(parts)


@torch.no_grad()
def reestimate_norms(model: nn.Module, images: NDArray[np.uint8], side: int, *, batch: int = 64) -> None:
    """Set the running statistics of every BatchNorm to their mean over images (precise-BN).

    After short training the exponential averages lag far behind the weights.
    """
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # torch: a plain average
    model.train()
    device = next(model.parameters()).device
    for start in range(0, len(images) - batch + 1, batch):
        x = to_images(images[start : start + batch], side).to(device)
        with torch.autocast(device.type, torch.bfloat16, enabled=mixed_precision(device.type)):
            model(x.contiguous(memory_format=torch.channels_last))
    for norm in norms:
        norm.momentum = 0.1
    model.eval()
