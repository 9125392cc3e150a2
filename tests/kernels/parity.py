"""What the CUDA kernels say against what the CPU's say, bit by bit, on any kernels.device.Device."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from kernels import Noise, NotADarkFrameError, RawFrame, Reducer, Stretcher, StretchParams, UnseenMetrics
from kernels.cuda import (
    IMAGE_PIXELS,
    OVERREAD,
    REDUCED,
    STATS,
    ReduceKernels,
    StretchKernels,
    describe,
    metrics_of,
    noise_of,
)
from kernels.device import Device, Memory

SIDE = 224
Told = tuple[Noise, NDArray[np.float32], NDArray[np.uint8]] | str  # noise, image and shown image, or the refusal


class Bench:
    """Arrays put on a device and got back; what was put stays until `free`."""

    def __init__(self, device: Device) -> None:
        self.device = device
        self.main = device.stream()
        self._held: list[Memory] = []

    def allocate(self, nbytes: int) -> int:
        """The address of new device memory."""
        self._held.append(self.device.allocate(nbytes))
        return self._held[-1].address

    def put(self, array: NDArray[Any], *, beyond: int = 0) -> int:
        """The address of a copy of an array, with `beyond` bytes of anything after it."""
        at = self.allocate(array.nbytes + beyond)
        host = self.device.pinned(array.nbytes + beyond)
        host[: array.nbytes] = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        host[array.nbytes :] = 0xA5
        self.device.upload(at, host, self.main)
        self.device.synchronize()
        return at

    def get(self, at: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
        """What lies at an address once everything is done."""
        host = self.device.pinned(dtype.itemsize * int(np.prod(shape)))
        self.device.download(host, at, self.main)
        self.device.synchronize()
        found: NDArray[Any] = np.array(host).view(dtype).reshape(shape)
        return found

    def free(self) -> None:
        """Give everything back."""
        self.device.synchronize()
        for memory in self._held:
            memory.free()
        self._held = []


class StretchBatch:
    """A batch of frames in device memory, to be stretched as often as one likes."""

    def __init__(self, bench: Bench, frames: list[RawFrame], params: StretchParams) -> None:
        self._bench, self._count = bench, len(frames)
        side = max(max(f.width, f.height) for f in frames)
        self._kernels = StretchKernels(bench.device, params, frames=len(frames), side=side)
        self._table = bench.put(describe(frames, [bench.put(f.packed, beyond=OVERREAD) for f in frames]))
        self.images, self._shown, self._stats = (
            bench.allocate(len(frames) * size) for size in (4 * IMAGE_PIXELS, IMAGE_PIXELS, STATS.itemsize)
        )

    def enqueue(self) -> None:
        """Put the kernels on the bench's stream."""
        self._kernels.enqueue(
            self._table, self._count, images=self.images, shown=self._shown, stats=self._stats, on=self._bench.main
        )

    def told(self) -> list[Told]:
        """What was found for each frame."""
        shape = (self._count, SIDE, SIDE)
        images = self._bench.get(self.images, shape, np.dtype("f4"))
        shown = self._bench.get(self._shown, shape, np.dtype("u1"))
        told: list[Told] = []
        for row, image, show in zip(self._bench.get(self._stats, (self._count,), STATS), images, shown, strict=True):
            assert np.isfinite(image).all()
            try:
                told.append((noise_of(row), image, show))
            except NotADarkFrameError as error:
                told.append(str(error))
        return told

    def free(self) -> None:
        """Give the kernels' own memory back; the bench gives the rest."""
        self._kernels.free()


def on_gpu(bench: Bench, frames: list[RawFrame], params: StretchParams) -> list[Told]:
    """What the CUDA kernels say of frames."""
    batch = StretchBatch(bench, frames, params)
    batch.enqueue()
    told = batch.told()
    batch.free()
    return told


def on_cpu(frame: RawFrame, params: StretchParams) -> Told:
    """What the CPU's kernel says of a frame."""
    image = np.empty((SIDE, SIDE), np.float32)
    try:
        noise = Stretcher(params).stretch(frame, image)
    except NotADarkFrameError as error:
        return str(error)
    return noise, image, np.rint(image * 255).astype(np.uint8)


def assert_told_alike(ours: Told, theirs: Told) -> None:
    """The same refusal, or the same noise and images."""
    if isinstance(theirs, str) or isinstance(ours, str):
        assert ours == theirs
        return
    assert ours[0] == theirs[0]
    np.testing.assert_array_equal(ours[1], theirs[1])
    np.testing.assert_array_equal(ours[2], theirs[2])


def assert_same_stretch(bench: Bench, frames: list[RawFrame], params: StretchParams | None = None) -> list[Told]:
    """Both say the same of every frame: what they say."""
    params = params or StretchParams()
    told = on_gpu(bench, frames, params)
    for frame, ours in zip(frames, told, strict=True):
        assert_told_alike(ours, on_cpu(frame, params))
    return told


def reduced_on_gpu(bench: Bench, logits: NDArray[np.float32], *, threshold: float, alpha: float) -> list[UnseenMetrics]:
    """What the CUDA kernels say of maps: (n, 2, 224, 224)."""
    n = len(logits)
    reduced, maps = bench.allocate(n * REDUCED.itemsize), bench.allocate(n * IMAGE_PIXELS)
    kernels = ReduceKernels(bench.device, threshold=threshold, alpha=alpha)
    kernels.enqueue(bench.put(logits), n, reduced=reduced, maps=maps, on=bench.main)
    shown = bench.get(maps, (n, SIDE, SIDE), np.dtype("u1"))
    return [metrics_of(row, m) for row, m in zip(bench.get(reduced, (n,), REDUCED), shown, strict=True)]


def assert_same_reduction(bench: Bench, logits: NDArray[np.float32], *, threshold: float, alpha: float) -> None:
    """Both find the same in every map."""
    for ours, maps in zip(reduced_on_gpu(bench, logits, threshold=threshold, alpha=alpha), logits, strict=True):
        theirs = Reducer(threshold=threshold, alpha=alpha).reduce(maps)
        assert (ours.m_thresh, ours.peak) == (theirs.m_thresh, theirs.peak)
        # A float's sum over 1,024 pixels against whole numbers.
        assert ours.m_alpha == pytest.approx(theirs.m_alpha, rel=1e-6, abs=1e-6)
        np.testing.assert_array_equal(ours.histogram, theirs.histogram)
        np.testing.assert_array_equal(ours.map, theirs.map)
