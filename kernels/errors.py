"""The errors of the kernels floor: bad arrays, and frames that cannot be judged."""

from __future__ import annotations


class KernelError(ValueError):
    """Base of every error raised by this floor."""


class FrameGeometryError(KernelError):
    """Width, height, stride, layout and byte count do not fit together."""


class NotADarkFrameError(KernelError):
    """The frame holds nothing to judge: constant, or mostly clipped at one code."""


class NonFiniteMapError(KernelError):
    """A map of logits holds NaN or infinity."""


class FatbinError(KernelError):
    """The compiled CUDA kernels are missing or damaged."""


class NoGpuError(RuntimeError):
    """There is no GPU to use; says why."""


class DeviceFaultError(RuntimeError):
    """A GPU failed at something it was asked for; it must not be used any further."""
