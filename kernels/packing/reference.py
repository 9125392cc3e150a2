"""The definition of every layout, in plain numpy: expand to bits, then weigh them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kernels.packing import Layout, RawFrame

# Bit positions, most significant bit first within each byte, of each sample of a MIPI group.
_RAW10 = [[*range(8 * i, 8 * i + 8), 32 + 6 - 2 * i, 32 + 7 - 2 * i] for i in range(4)]
_RAW12 = [[*range(8 * i, 8 * i + 8), *range(16 + 4 - 4 * i, 16 + 8 - 4 * i)] for i in range(2)]


def _low14(i: int) -> list[int]:
    """Bits 5..0 of sample i in the three last bytes of a RAW14 group, which count from their least significant bit."""
    return [32 + 8 * (bit // 8) + 7 - bit % 8 for bit in range(6 * i + 5, 6 * i - 1, -1)]


_RAW14 = [[*range(8 * i, 8 * i + 8), *_low14(i)] for i in range(4)]
_GROUPS = {Layout.RAW10: (5, _RAW10), Layout.RAW12: (3, _RAW12), Layout.RAW14: (7, _RAW14)}


def unpack(frame: RawFrame) -> NDArray[np.uint16]:
    """(h, w) uint16 samples of a frame."""
    row_bytes = frame.layout.row_bytes(frame.width)
    rows = np.stack([frame.packed[r * frame.stride : r * frame.stride + row_bytes] for r in range(frame.height)])
    if frame.layout is Layout.U8:
        return rows.astype(np.uint16)
    if frame.layout in (Layout.U16LE, Layout.U16BE):
        return rows.view("<u2" if frame.layout is Layout.U16LE else ">u2").astype(np.uint16)
    bits = np.unpackbits(rows, axis=1)
    if frame.layout in _GROUPS:
        group_bytes, positions = _GROUPS[frame.layout]
        bits = bits.reshape(frame.height, -1, 8 * group_bytes)[:, :, positions]
    else:
        depth = frame.layout.storage_bits
        bits = bits[:, : frame.width * depth].reshape(frame.height, frame.width, depth)
    weights = 1 << np.arange(bits.shape[-1] - 1, -1, -1)
    return (bits @ weights).astype(np.uint16).reshape(frame.height, frame.width)


def pack(samples: NDArray[np.uint16], layout: Layout, *, stride: int | None = None, padding: int = 0) -> RawFrame:
    """The inverse of unpack: (h, w) samples -> a packed frame, rows padded with `padding` up to `stride` bytes."""
    h, w = samples.shape
    row_bytes = layout.row_bytes(w)
    stride = row_bytes if stride is None else stride
    rows = np.full((h, stride), padding, np.uint8)
    if layout is Layout.U8:
        rows[:, :row_bytes] = samples
    elif layout in (Layout.U16LE, Layout.U16BE):
        rows[:, :row_bytes] = samples.astype("<u2" if layout is Layout.U16LE else ">u2").view(np.uint8).reshape(h, -1)
    else:
        depth = layout.storage_bits
        bits = ((samples[:, :, None] >> np.arange(depth - 1, -1, -1)) & 1).astype(np.uint8)
        if layout in _GROUPS:
            group_bytes, positions = _GROUPS[layout]
            groups = np.zeros((h, w // len(positions), 8 * group_bytes), np.uint8)
            groups[:, :, positions] = bits.reshape(h, -1, len(positions), depth)
            bits = groups
        rows[:, :row_bytes] = np.packbits(bits.reshape(h, -1), axis=1)
    return RawFrame(rows.reshape(-1), w, h, stride, layout, min(layout.storage_bits, 16))
