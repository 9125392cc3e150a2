"""Which engine runs a bundle, and in which arithmetic."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Precision(StrEnum):
    """Arithmetic of an engine."""

    INT8 = "int8"
    BF16 = "bf16"
    F32 = "f32"
    FP16 = "fp16"


class Target(StrEnum):
    """What runs the networks: the CPU, or one of three ways on an NVIDIA GPU."""

    OPENVINO = "openvino"
    TENSORRT = "tensorrt"
    TENSORRT_RTX = "tensorrt_rtx"
    TORCH_CUDA = "torch_cuda"

    @property
    def precisions(self) -> tuple[Precision, ...]:
        """What it can compute in, the default first."""
        return {
            Target.OPENVINO: (Precision.INT8, Precision.BF16, Precision.F32),
            Target.TENSORRT: (Precision.FP16, Precision.INT8),
            Target.TENSORRT_RTX: (Precision.FP16,),
            Target.TORCH_CUDA: (Precision.FP16,),
        }[self]


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineChoice:
    """How a bundle is run.

    Attributes:
        target: what runs it.
        precision: one of the target's; None for its default.
        threads: cores used on the CPU; 0 for all.
        max_batch: frames at once on a GPU, 1..1024.

    Raises:
        ValueError: a precision that the target does not have, or numbers out of range.
    """

    target: Target = Target.OPENVINO
    precision: Precision | None = None
    threads: int = 0
    max_batch: int = 16

    def __post_init__(self) -> None:
        if self.precision is not None and self.precision not in self.target.precisions:
            raise ValueError(f"{self.target} does not compute in {self.precision}, "
                             f"wanted one of {', '.join(self.target.precisions)}")  # fmt: skip
        if self.threads < 0 or not 1 <= self.max_batch <= 1024:
            raise ValueError(f"threads {self.threads}, max_batch {self.max_batch}: wanted 0 or more, and 1..1024")

    @property
    def on_cpu(self) -> Precision:
        """The precision in which the CPU runs what need not run on a GPU."""
        return self.arithmetic if self.target is Target.OPENVINO else Target.OPENVINO.precisions[0]

    @property
    def arithmetic(self) -> Precision:
        """The precision, or the target's default."""
        return self.precision or self.target.precisions[0]
