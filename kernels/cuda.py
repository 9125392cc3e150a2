"""The CUDA kernels of the stretch and the reduction: their buffers, and how a batch of frames is launched."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from kernels.device import Device, Stream, address
from kernels.errors import FrameGeometryError
from kernels.packing import MAX_SIDE, RawFrame
from kernels.reduce import HISTOGRAM_BINS, UnseenMetrics, refuse_non_finite
from kernels.stretch import IMAGE_SIDE, Noise, StretchParams, checked_noise, tone_scale

IMAGE_PIXELS = IMAGE_SIDE * IMAGE_SIDE
OVERREAD = 32  # bytes that may be read beyond a frame's last row

# As in packing_gpu.cuh, stretch_gpu.cuh, stretch.h, reduce_gpu.cuh.
FRAME = np.dtype([("bytes", "u8"), ("stride", "i8"), ("width", "i4"), ("height", "i4"), ("layout", "i4"),
                  ("unused", "i4")])  # fmt: skip
_BUFFERS = ("counts", "states", "keys", "sorted", "lag_counts", "column_changes", "row_recurs", "means", "selection")
STRETCH_BUFFERS = np.dtype([*((name, "u8") for name in _BUFFERS), ("side", "i4"), ("sort_side", "i4")])
STRETCH_SETTINGS = np.dtype([("k", "f4"), ("z_range", "f4"), ("tone", "i4"), ("tone_parameter", "f4"),
                             ("scale", "f4")])  # fmt: skip
STATS = np.dtype([("median", "f8"), ("sigma", "f8"), ("minimum", "i4"), ("maximum", "i4"), ("share_minimum", "f8"),
                  ("share_maximum", "f8"), ("fault", "i4"), ("where", "i4"), ("value", "i4"), ("unused", "i4")])  # fmt: skip
REDUCE_PARAMS = np.dtype([("threshold", "f4"), ("alpha", "f4")])
REDUCED = np.dtype([("power", "u8"), ("above", "u4"), ("non_finite", "u4"), ("peak", "f4"), ("not_zero", "u4"),
                    ("histogram", "u4", HISTOGRAM_BINS)])  # fmt: skip
_COUNTS_BYTES, _STATE_BYTES = 20_532, 136
_POWER_SCALE = 2.0**40


def describe(frames: Sequence[RawFrame], addresses: Sequence[int]) -> NDArray[np.void]:
    """The table of frames that the kernels read: (n,) FRAME.

    Args:
        frames: of any geometry and layout.
        addresses: of each one's packed bytes in device memory, multiples of 16.
    """
    table = np.zeros(len(frames), FRAME)
    for row, frame, at in zip(table, frames, addresses, strict=True):
        row["bytes"], row["stride"], row["layout"] = at, frame.stride, int(frame.layout)
        row["width"], row["height"] = frame.width, frame.height
    return table


class StretchKernels:
    """Eq. 7-8 for a batch of frames in device memory; the image is the CPU's, bit by bit.

    Args:
        device: where.
        params: of the bundle.
        frames: the largest batch.
        side: the largest width or height of a frame.
    """

    def __init__(self, device: Device, params: StretchParams, *, frames: int, side: int) -> None:
        if not 1 <= side <= MAX_SIDE:
            raise FrameGeometryError(f"side {side}: wanted 1..{MAX_SIDE}")
        self.frames, self.side = frames, side
        self._device = device
        sort_side = 1 << (side - 1).bit_length()
        size = {
            "counts": _COUNTS_BYTES, "states": _STATE_BYTES, "keys": 16 * side, "sorted": 16 * sort_side,
            "lag_counts": 8 * side, "column_changes": 4 * side, "row_recurs": side, "means": 8 * IMAGE_PIXELS,
            "selection": 8 * IMAGE_PIXELS,
        }  # fmt: skip
        self._memory = {name: device.allocate(size[name] * frames) for name in _BUFFERS}
        self._buffers = np.zeros((), STRETCH_BUFFERS)
        for name, memory in self._memory.items():
            self._buffers[name] = memory.address
        self._buffers["side"], self._buffers["sort_side"] = side, sort_side
        self._settings = np.zeros((), STRETCH_SETTINGS)
        self._settings["k"], self._settings["z_range"] = params.k, params.z_range
        self._settings["tone"], self._settings["tone_parameter"] = int(params.tone), params.tone_parameter
        self._settings["scale"] = tone_scale(params)

    def free(self) -> None:
        """Give the buffers back; nothing may be under way."""
        for memory in self._memory.values():
            memory.free()

    def enqueue(self, table: int, count: int, *, images: int, shown: int, stats: int, on: Stream) -> None:
        """Stretch `count` frames.

        Args:
            table: address of (count,) FRAME.
            count: frames, at most those of the buffers.
            images: address of (count, 224, 224) float32 in [0, 1], written.
            shown: address of (count, 224, 224) uint8, the images times 255, written.
            stats: address of (count,) STATS, written.
            on: the stream.
        """
        frames, to, n = address(table), self._buffers, count
        launch = self._device.launch
        launch("stretch_clear", (8, 1, n), 256, (frames, to), on)
        launch("stretch_count_high", (4, 16, n), 128, (frames, to), on)
        launch("stretch_count_low", (4, 16, n), 128, (frames, to), on)
        launch("stretch_bits", (4, 16, n), 128, (frames, to), on)
        launch("stretch_row_keys", (32, 1, n), 256, (frames, to), on)
        launch("stretch_lags", (1, 2, n), 512, (frames, to, self._settings), on)
        launch("stretch_compare_rows", (64, 1, n), 256, (frames, to), on)
        launch("stretch_area", (IMAGE_SIDE, 1, n), 256, (frames, to), on)
        arguments = (frames, to, self._settings, address(images), address(shown), address(stats))
        launch("stretch_tone", (n, 1, 1), 512, arguments, on)


def noise_of(stats: np.void) -> Noise:
    """Eq. 7 from one row of STATS.

    Raises:
        NotADarkFrameError: as Stretcher.stretch.
    """
    return checked_noise(*(stats[name].item() for name in STATS.names[:-1]))  # type: ignore[index]


class ReduceKernels:
    """Eq. 4-6 and 9 for a batch of map pairs in device memory."""

    def __init__(self, device: Device, *, threshold: float, alpha: float) -> None:
        self._device = device
        self._params = np.zeros((), REDUCE_PARAMS)
        self._params["threshold"], self._params["alpha"] = threshold, alpha

    def enqueue(self, logits: int, count: int, *, reduced: int, maps: int, on: Stream) -> None:
        """Reduce `count` map pairs.

        Args:
            logits: address of (count, 2, 224, 224) float32: background, then labeled object.
            count: frames.
            reduced: address of (count,) REDUCED, written.
            maps: address of (count, 224, 224) uint8, S times 255, written.
            on: the stream.
        """
        self._device.launch("reduce_clear", (count, 1, 1), 256, (address(reduced),), on)
        arguments = (address(logits), self._params, address(reduced), address(maps))
        self._device.launch("reduce_maps", (7, count, 1), 256, arguments, on)


def metrics_of(reduced: np.void, unseen_map: NDArray[np.uint8]) -> UnseenMetrics:
    """Eq. 5, 6 and 9 from one row of REDUCED and the (224, 224) map beside it.

    Raises:
        NonFiniteMapError: a logit is NaN or infinite.
    """
    refuse_non_finite(int(reduced["non_finite"]), unseen_map.size)
    return UnseenMetrics(
        int(reduced["above"]), int(reduced["power"]) / _POWER_SCALE, float(reduced["peak"]),
        reduced["histogram"].copy(), unseen_map,
    )  # fmt: skip
