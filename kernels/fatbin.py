"""The compiled CUDA kernels that lie beside the extension, and for which GPUs they hold code."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

from kernels import _native
from kernels.errors import FatbinError

KERNELS = ("stretch", "reduce")
MAGIC = 0xBA55ED50  # 50 ed 55 ba in the file
_HEADER, _PART = struct.Struct("<IHHQ"), struct.Struct("<HHIQ12xI")
_PTX, _MACHINE = 1, 2


@dataclass(frozen=True, slots=True)
class Code:
    """One part of a fatbin.

    Attributes:
        machine: machine code; PTX otherwise, which the driver compiles when it loads it.
        capability: compute capability times 10: 90 for 9.0.
    """

    machine: bool
    capability: int

    def runs_on(self, capability: int) -> bool:
        """Whether a GPU of this compute capability (times 10) runs it.

        Machine code runs on its own major version from its minor on; PTX on everything from its capability on.
        """
        if self.machine:
            return self.capability // 10 == capability // 10 and self.capability <= capability
        return self.capability <= capability


def path_of(kernel: str) -> Path:
    """Where the fatbin of one of KERNELS lies, or would."""
    return Path(_native.__file__).with_name(f"{kernel}.fatbin")


def contents(kernel: str) -> tuple[Code, ...]:
    """The parts of a fatbin.

    Raises:
        FatbinError: it was not built, or is no fatbin.
    """
    path = path_of(kernel)
    if not path.is_file():
        raise FatbinError(f"{path.name}: not built; the build found no nvcc 13 or newer")
    data = path.read_bytes()
    try:
        return tuple(_parts(data))
    except (struct.error, ValueError) as error:
        raise FatbinError(f"{path}: not a fatbin ({error})") from error


def _parts(data: bytes) -> list[Code]:
    magic, _, header, size = _HEADER.unpack_from(data)
    if magic != MAGIC or header + size != len(data):
        raise ValueError(f"magic {magic:#x} and {len(data)} bytes, wanted {MAGIC:#x} and {header + size}")
    found = []
    at = header
    while at < len(data):
        kind, _, part_header, part_size, capability = _PART.unpack_from(data, at)
        if kind not in (_PTX, _MACHINE) or part_header + part_size <= 0:
            raise ValueError(f"part of kind {kind} at byte {at}")
        found.append(Code(kind == _MACHINE, capability))
        at += part_header + part_size
    return found


def fits(capability: int) -> bool:
    """Whether every kernel has code for a GPU of this compute capability (times 10).

    Raises:
        FatbinError: a fatbin was not built, or is no fatbin.
    """
    return all(any(code.runs_on(capability) for code in contents(kernel)) for kernel in KERNELS)
