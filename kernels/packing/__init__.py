"""Raw samples as a sensor packs them -> uint16 samples."""

from __future__ import annotations

import enum
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kernels import _native
from kernels.errors import FrameGeometryError

MAX_SIDE = 32768


class Layout(enum.IntEnum):
    """How samples lie in a row (docs/formats.md). Values are those of packing.h."""

    U8 = 0
    U16LE = 1
    U16BE = 2
    RAW10 = 3
    RAW12 = 4
    RAW14 = 5
    PACKED10 = 6
    PACKED12 = 7
    PACKED14 = 8

    @property
    def storage_bits(self) -> int:
        """Bits one sample takes in memory."""
        return {0: 8, 1: 16, 2: 16, 3: 10, 4: 12, 5: 14, 6: 10, 7: 12, 8: 14}[self.value]

    @property
    def group_samples(self) -> int:
        """Samples of the smallest group that begins on a byte in a MIPI row; 1 where rows may be any width."""
        return {3: 4, 4: 2, 5: 4}.get(self.value, 1)

    def row_bytes(self, width: int) -> int:
        """Bytes that `width` samples take, without padding."""
        return (width * self.storage_bits + 7) // 8


@dataclass(frozen=True, slots=True)
class RawFrame:
    """One frame as it lies in memory, still packed.

    Attributes:
        packed: (bytes,) uint8, C-contiguous; holds the rows from the first sample on. Shared, never written.
        width, height: pixels, 1..32768.
        stride: bytes from one row to the next, at least the bytes of a row.
        layout: how samples are packed.
        bits: significant bits of a sample, 1..16.

    Raises:
        FrameGeometryError: the numbers do not fit together or the bytes are too few.
    """

    packed: NDArray[np.uint8]
    width: int
    height: int
    stride: int
    layout: Layout
    bits: int

    def __post_init__(self) -> None:
        here = f"{self.width}x{self.height} {self.layout.name.lower()}"
        if not (1 <= self.width <= MAX_SIDE and 1 <= self.height <= MAX_SIDE):
            raise FrameGeometryError(f"frame {here}: sides must be 1..{MAX_SIDE}")
        if self.width % self.layout.group_samples:
            raise FrameGeometryError(f"frame {here}: width must be a multiple of {self.layout.group_samples}")
        if not 1 <= self.bits <= self.layout.storage_bits:
            raise FrameGeometryError(f"frame {here}: {self.bits} bits, wanted 1..{self.layout.storage_bits}")
        row = self.layout.row_bytes(self.width)
        if self.stride < row:
            raise FrameGeometryError(f"frame {here}: stride of {self.stride} bytes, a row takes {row}")
        if self.packed.dtype != np.uint8 or self.packed.ndim != 1 or not self.packed.flags.c_contiguous:
            raise FrameGeometryError(f"frame {here}: samples must be one contiguous run of uint8")
        wanted = self.stride * (self.height - 1) + row
        if self.packed.size < wanted:
            raise FrameGeometryError(f"frame {here}: {self.packed.size} bytes, wanted {wanted}")

    @classmethod
    def from_samples(cls, samples: NDArray[np.generic], *, bits: int) -> RawFrame:
        """Wrap (h, w) uint8 or uint16 samples without copying where they are contiguous and little-endian.

        Raises:
            FrameGeometryError: another rank or dtype.
        """
        if samples.ndim != 2 or samples.dtype.kind != "u" or samples.dtype.itemsize > 2:
            raise FrameGeometryError(f"samples of shape {samples.shape} {samples.dtype}: wanted (h, w) uint8 or uint16")
        h, w = samples.shape
        layout = Layout.U8 if samples.dtype.itemsize == 1 else Layout.U16LE
        little = np.ascontiguousarray(samples, dtype=samples.dtype.newbyteorder("<"))
        return cls(little.reshape(-1).view(np.uint8), w, h, layout.row_bytes(w), layout, bits)


def unpack(frame: RawFrame) -> NDArray[np.uint16]:
    """All samples of a frame, in row order.

    Returns:
        (h, w) uint16, DN; a new array.
    """
    out = np.empty((frame.height, frame.width), np.uint16)
    _native.unpack(frame.packed, frame.width, frame.height, frame.stride, int(frame.layout), out)
    return out
