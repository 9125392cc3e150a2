"""A GPU that is none: the CUDA kernels compiled for this processor (emulator/), launched as on a device."""

import ctypes
import hashlib
import subprocess
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kernels.cuda import ALIGNMENT, Grid

HERE = Path(__file__).parent / "emulator"
KERNELS = HERE.parents[2] / "kernels"
BUILD = HERE.parents[2] / "build" / "emulator"
COMPILE = ("g++", "-std=c++20", "-O2", "-ffp-contract=off", "-fPIC", "-shared", "-Wall", "-Wextra", "-Werror",
           "-Wno-unknown-pragmas", "-Wno-unused-but-set-variable", f"-I{KERNELS}", f"-I{HERE}")  # fmt: skip


def library(source: Path = HERE / "emulator.cc") -> Path:
    """The emulator with the kernels in it, compiled where they or it have changed."""
    parts = [source, *HERE.glob("*.h"), *KERNELS.rglob("*.h"), *KERNELS.rglob("*.cu*")]
    digest = hashlib.sha256(b"".join(p.read_bytes() for p in sorted(parts)) + " ".join(COMPILE).encode()).hexdigest()
    target = BUILD / f"{source.stem}-{digest[:16]}.so"
    if not target.exists():
        BUILD.mkdir(parents=True, exist_ok=True)
        subprocess.run([*COMPILE, str(source), "-o", str(target)], check=True)
    return target


class EmulatedDevice:
    """kernels.cuda.Device on this processor; memory is filled with garbage, blocks and threads run in a drawn order."""

    def __init__(self, seed: int = 0, source: Path = HERE / "emulator.cc") -> None:
        self._launch = ctypes.CDLL(str(library(source))).launch
        self._launch.restype = ctypes.c_char_p
        self._random = np.random.default_rng(seed)
        self._memory: list[NDArray[np.uint8]] = []

    def allocate(self, nbytes: int) -> int:
        memory = self._random.integers(0, 256, nbytes + ALIGNMENT, dtype=np.uint8)
        self._memory.append(memory)
        return (memory.ctypes.data + ALIGNMENT - 1) // ALIGNMENT * ALIGNMENT

    def launch(self, kernel: str, grid: Grid, threads: int, arguments: Sequence[np.generic | NDArray[np.void]]) -> None:
        held = [np.ascontiguousarray(a) for a in arguments]
        pointers = (ctypes.c_void_p * len(held))(*(a.ctypes.data for a in held))
        seed = ctypes.c_uint(int(self._random.integers(2**32)))
        fault = self._launch(kernel.encode(), (ctypes.c_uint * 3)(*grid), threads, pointers, seed)
        assert fault is None, fault

    def upload(self, array: NDArray[np.generic], *, beyond: int = 0) -> int:
        """A copy of an array, with garbage before and `beyond` bytes of it after; its address."""
        at = self.allocate(array.nbytes + beyond)
        ctypes.memmove(at, array.ctypes.data, array.nbytes)
        return at

    def download(self, at: int, shape: tuple[int, ...], dtype: np.dtype[np.generic]) -> NDArray[np.generic]:
        out = np.empty(shape, dtype)
        ctypes.memmove(out.ctypes.data, at, out.nbytes)
        return out
