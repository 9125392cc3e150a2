"""Trained weights -> TensorRT plans through torch-tensorrt, on a machine that trains and has a GPU."""

from __future__ import annotations

import hashlib
import importlib
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from engines.bundle import HASH_DIGITS, MODEL_FILES, file_sha256
from engines.errors import EngineBuildError, EngineUnavailableError, TrainingError
from engines.models import ForImages
from engines.tensorrt import Via
from engines.training.quantize import load_weights
from kernels import IMAGE_SIDE


class HalfInside(nn.Module):
    """A network in half precision that takes and gives single."""

    def __init__(self, model: ForImages) -> None:
        super().__init__()
        self.model = model.half()

    def forward(self, image: Tensor) -> Tensor:
        """(n, 1, 224, 224) float32 -> the role's output, float32."""
        out: Tensor = self.model(image.half()).float()
        return out


def weights_of(runs: Path) -> dict[str, Path]:
    """The weights of each role in a folder of trainings.

    Raises:
        TrainingError: a role has none.
    """
    found = {role: runs / role / "weights.pt" for role in MODEL_FILES}
    if missing := [str(path) for path in found.values() if not path.is_file()]:
        raise TrainingError(f"{', '.join(missing)}: not there; wanted a training of each role")
    return found


def weights_digest(runs: Path) -> str:
    """Which weights plans are made of: torch-tensorrt:hash12."""
    hashes = " ".join(file_sha256(path) for path in weights_of(runs).values())
    return f"torch-tensorrt:{hashlib.sha256(hashes.encode()).hexdigest()[:HASH_DIGITS]}"


def plan_maker(runs: Path) -> Via:
    """Makes the plan of a role from its weights.

    Raises:
        EngineUnavailableError: torch-tensorrt is not installed, or finds no CUDA.
        TrainingError: a role has no weights.
    """
    weights = weights_of(runs)
    try:
        torch_tensorrt: Any = importlib.import_module("torch_tensorrt")
    except ModuleNotFoundError as error:
        raise EngineUnavailableError(f"{error.name} is not installed: pip install 'umbra[gpu]'") from error
    except (ImportError, OSError, RuntimeError) as error:
        raise EngineUnavailableError(f"torch-tensorrt does not load: {error}") from error

    def make(role: str, max_batch: int) -> bytes:
        model = HalfInside(load_weights(role, weights[role])).eval().to(DEVICE)
        shape = (1, IMAGE_SIDE, IMAGE_SIDE)
        batch = torch.export.Dim("n", min=1, max=max_batch) if max_batch > 1 else None
        example = torch.zeros((max_batch, *shape), device=DEVICE)
        program = torch.export.export(model, (example,), dynamic_shapes=({0: batch} if batch is not None else None,))
        ranges = torch_tensorrt.Input(
            min_shape=(1, *shape),
            opt_shape=(max_batch, *shape),
            max_shape=(max_batch, *shape),
            dtype=torch.float32,
            name="image",
        )
        plan = torch_tensorrt.dynamo.convert_exported_program_to_serialized_trt_engine(
            program, inputs=[ranges], require_full_compilation=True
        )
        if not plan:
            raise EngineBuildError(f"torch-tensorrt made no plan of the {role}")
        return bytes(plan)

    return make


DEVICE = "cuda"  # tests without one put the CPU here
