"""The inspector on a GPU: packed bytes go up, a small measurement a frame comes down; nothing between leaves the device."""

from __future__ import annotations

import warnings
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from engines.bundle import Bundle
from engines.errors import EngineFaultError
from engines.inspector import Authored, Measurement, too_small
from kernels import IMAGE_SIDE, NotADarkFrameError, RawFrame
from kernels.cuda import (
    FRAME,
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
from kernels.device import Device, Event, Graph, Memory, Stream, aligned
from kernels.errors import DeviceFaultError

SLOTS = 2  # batches under way: one goes up while the other is measured
UPLOAD_BYTES = 1 << 30  # of one batch, unless a single frame is larger
FIRST_SIDE = 4096
_CLASSES = 4


def at_once(most: int, nbytes: int) -> int:
    """Frames of so many bytes that go up together: `most`, or the largest power of two whose bytes a slot takes; at least one.

    A batch is padded to a power of two: any other number would be measured slower than it need be.
    """
    fits = max(1, UPLOAD_BYTES // aligned(nbytes))
    return most if most <= fits else 1 << (fits.bit_length() - 1)


class GpuEngines(Protocol):
    """Three networks in device memory.

    Attributes:
        identity: kind-precision@hash12.
        max_batch: images at once, at most.
    """

    @property
    def identity(self) -> str: ...  # noqa: D102
    @property
    def max_batch(self) -> int: ...  # noqa: D102

    def reset(self) -> None:
        """Forget what was set up for addresses: they are given back. Nothing may be under way."""

    def close(self) -> None:
        """Give everything back; the last thing that is asked of it."""

    def enqueue(self, images: int, count: int, *, logits: int, levels: int, maps: int, on: Stream) -> None:
        """Run them on (count, 1, 224, 224) float32 images.

        Args:
            images: address of the images.
            count: images, 1 to max_batch.
            logits: address of (count, 4) float32, written.
            levels: address of (count, 1) float32, written.
            maps: address of (count, 2, 224, 224) float32 logits, written.
            on: the stream; work on others waits for it and is waited for by it.
        """


@dataclass(frozen=True, slots=True)
class Results:
    """Where the results of a batch lie in one block of memory, so that one copy brings them down.

    Attributes:
        count: frames.
    """

    count: int

    def parts(self) -> Iterator[tuple[str, int, np.dtype[np.generic], tuple[int, ...]]]:
        """Name, offset, dtype and shape of each part."""
        n, at = self.count, 0
        image = (n, IMAGE_SIDE, IMAGE_SIDE)
        for name, dtype, shape in (
            ("stats", STATS, (n,)), ("logits", np.dtype("f4"), (n, _CLASSES)), ("levels", np.dtype("f4"), (n,)),
            ("reduced", REDUCED, (n,)), ("shown", np.dtype("u1"), image), ("maps", np.dtype("u1"), image),
        ):  # fmt: skip
            yield name, at, dtype, shape
            at += aligned(dtype.itemsize * int(np.prod(shape)))

    @property
    def nbytes(self) -> int:
        """Of the whole block."""
        *_, (_, at, dtype, shape) = self.parts()
        return at + dtype.itemsize * int(np.prod(shape))

    def addresses(self, block: int) -> dict[str, int]:
        """Where each part lies in device memory."""
        return {name: block + at for name, at, _, _ in self.parts()}

    def views(self, block: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
        """Each part as an array over host memory."""
        found = {}
        for name, at, dtype, shape in self.parts():
            size = dtype.itemsize * int(np.prod(shape))
            found[name] = block[at : at + size].view(dtype).reshape(shape)
        return found


class Slot:
    """Memory for one batch under way, on both sides; for batches of at most `frames` frames and `nbytes` bytes."""

    def __init__(self, device: Device, *, frames: int, nbytes: int) -> None:
        self.nbytes = nbytes
        results = Results(frames).nbytes
        table = aligned(frames * FRAME.itemsize)
        # The table lies before the frames: one copy takes both up.
        self.host_up, self.host_down = device.pinned(table + nbytes), device.pinned(results)
        self.up, self.down = device.allocate(table + nbytes + OVERREAD), device.allocate(results)
        self._table = table
        self.graphs: dict[int, Graph | None] = {}

    def fill(self, frames: Sequence[RawFrame]) -> int:
        """Put the frames' bytes and their table into host memory; how many bytes must go up."""
        places, at = [], self._table
        for frame in frames:
            places.append(at)
            at += aligned(_bytes_of(frame))
        table = describe(frames, [self.up.address + place for place in places])
        self.host_up[: table.nbytes] = table.view(np.uint8)
        for frame, place in zip(frames, places, strict=True):
            size = _bytes_of(frame)
            self.host_up[place : place + size] = frame.packed[:size]
        return at

    def free(self) -> None:
        """Give device memory back; nothing may be under way."""
        self.graphs.clear()
        for memory in (self.up, self.down):
            memory.free()


def _bytes_of(frame: RawFrame) -> int:
    """What of a frame is read: the rows, without what follows the last one."""
    return frame.stride * (frame.height - 1) + frame.layout.row_bytes(frame.width)


@dataclass(frozen=True, slots=True)
class _UnderWay:
    """A batch whose results will be in its slot's memory once `done` has come."""

    slot: Slot
    places: Sequence[int]
    padded: int
    done: Event


class CudaInspector(Authored):
    """An engines.Inspector on one GPU.

    Args:
        bundle: what is run.
        engines: its networks, through the golden gate afterwards.
        device: where; used by this thread alone.
        graphs: capture the work of a batch size once and launch it as one.
    """

    def __init__(self, bundle: Bundle, engines: GpuEngines, device: Device, *, graphs: bool = True) -> None:
        super().__init__(bundle, engines.identity)
        self._engines, self._device, self._capturing = engines, device, graphs
        self._batch = engines.max_batch
        self._copying, self._computing = device.stream(), device.stream()
        self._reduce = ReduceKernels(device, threshold=bundle.threshold, alpha=bundle.alpha)
        self._stretch: StretchKernels | None = None
        # Of one batch at a time: batches follow each other on one stream.
        self._images: Memory = device.allocate(4 * IMAGE_PIXELS * self._batch)
        self._maps: Memory = device.allocate(8 * IMAGE_PIXELS * self._batch)
        self._slots: list[Slot] = []

    @property
    def batch(self) -> int:
        """Frames measured at once, at most."""
        return self._batch

    def measure(self, frames: Sequence[RawFrame]) -> list[Measurement]:
        """As engines.Inspector; while one batch is measured the next goes up."""
        found: list[Measurement | None] = [None] * len(frames)
        places = []
        for i, frame in enumerate(frames):
            if (small := too_small(frame)) is not None:
                found[i] = self._author.refuse(small)
            else:
                places.append(i)
        try:
            self._measure(frames, places, found)
        except DeviceFaultError as error:
            raise EngineFaultError(f"engine {self.engine}: {error}") from error
        return [m for m in found if m is not None]

    def close(self) -> None:
        """As engines.Inspector: all device memory."""
        self._device.synchronize()
        for slot in self._slots:
            slot.free()
        self._engines.close()
        if self._stretch is not None:
            self._stretch.free()
        self._images.free()
        self._maps.free()
        self._slots = []

    def _measure(self, frames: Sequence[RawFrame], places: list[int], found: list[Measurement | None]) -> None:
        if not places:
            return
        self._make_room([frames[i] for i in places])
        under_way: deque[_UnderWay] = deque()
        for turn, batch in enumerate(self._batches(frames, places)):
            if len(under_way) == SLOTS:
                self._collect(under_way.popleft(), found)
            under_way.append(self._send(self._slots[turn % SLOTS], frames, batch))
        while under_way:
            self._collect(under_way.popleft(), found)

    def _batches(self, frames: Sequence[RawFrame], places: list[int]) -> Iterator[list[int]]:
        """Frames in order, as many at once as the engines take; or, of what a slot takes, a power of two."""
        batch: list[int] = []
        taken = 0
        for i in places:
            size = aligned(_bytes_of(frames[i]))
            while batch and (len(batch) == self._batch or taken + size > self._slots[0].nbytes):
                whole = len(batch) if len(batch) == self._batch else 1 << (len(batch).bit_length() - 1)
                yield batch[:whole]
                batch = batch[whole:]
                taken = sum(aligned(_bytes_of(frames[k])) for k in batch)
            batch.append(i)
            taken += size
        yield batch

    def _make_room(self, frames: Sequence[RawFrame]) -> None:
        """Slots and buffers that take these frames; made anew where one is larger than any before it."""
        side = max(max(f.width, f.height) for f in frames)
        largest = max(aligned(_bytes_of(f)) for f in frames)
        wanted = largest * at_once(self._batch, largest)
        if self._stretch is not None and self._slots and side <= self._stretch.side and wanted <= self._slots[0].nbytes:
            return
        self._device.synchronize()
        if self._stretch is None or side > self._stretch.side:
            if self._stretch is not None:
                self._stretch.free()
                self._stretch = None
            self._stretch = StretchKernels(
                self._device, self.bundle.stretch, frames=self._batch, side=max(side, FIRST_SIDE)
            )
        wanted = max([wanted, *(slot.nbytes for slot in self._slots)])
        old, self._slots = self._slots, []  # nothing must point at what is given back, also where the new is not given
        for slot in old:
            slot.free()
        self._engines.reset()
        self._slots = [Slot(self._device, frames=self._batch, nbytes=wanted) for _ in range(SLOTS)]

    def _send(self, slot: Slot, frames: Sequence[RawFrame], batch: list[int]) -> _UnderWay:
        """Enqueue a batch's way up, through the networks and down."""
        nbytes = slot.fill([frames[i] for i in batch])
        padded = min(self._batch, 1 << (len(batch) - 1).bit_length())  # few sizes: few graphs
        self._pad(slot, len(batch), padded)
        self._device.upload(slot.up.address, slot.host_up[:nbytes], self._copying)
        self._computing.wait(self._copying.record())
        self._run(slot, padded)
        results = Results(padded).nbytes
        self._device.download(slot.host_down[:results], slot.down.address, self._computing)
        return _UnderWay(slot, batch, padded, self._computing.record())

    @staticmethod
    def _pad(slot: Slot, count: int, padded: int) -> None:
        """Let the table name the last frame again where a batch is not full."""
        table = slot.host_up[: padded * FRAME.itemsize].view(FRAME)
        table[count:] = table[count - 1]

    def _run(self, slot: Slot, count: int) -> None:
        if self._capturing and count not in slot.graphs:
            self._enqueue(slot, count)  # once as it is: engines set themselves up for a batch size
            slot.graphs[count] = self._device.capture(lambda: self._enqueue(slot, count), self._computing)
            if slot.graphs[count] is None:
                warnings.warn(f"engine {self.engine}: batches of {count} cannot be captured as one CUDA graph; "
                              "they are enqueued step by step", RuntimeWarning, stacklevel=2)  # fmt: skip
        elif (graph := slot.graphs.get(count)) is not None:
            graph.launch(self._computing)
        else:
            self._enqueue(slot, count)

    def _enqueue(self, slot: Slot, count: int) -> None:
        if self._stretch is None:
            raise EngineFaultError("no room was made for frames")
        to, on = Results(count).addresses(slot.down.address), self._computing
        images, maps = self._images.address, self._maps.address
        self._stretch.enqueue(slot.up.address, count, images=images, shown=to["shown"], stats=to["stats"], on=on)
        self._engines.enqueue(images, count, logits=to["logits"], levels=to["levels"], maps=maps, on=on)
        self._reduce.enqueue(maps, count, reduced=to["reduced"], maps=to["maps"], on=on)

    def _collect(self, batch: _UnderWay, found: list[Measurement | None]) -> None:
        batch.done.synchronize()
        views = Results(batch.padded).views(batch.slot.host_down)
        for row, i in enumerate(batch.places):
            found[i] = self._conclude({name: view[row] for name, view in views.items()})

    def _conclude(self, row: dict[str, Any]) -> Measurement:
        try:
            noise = noise_of(row["stats"])
        except NotADarkFrameError as error:
            return self._author.refuse(str(error))
        reduced, shown_map = row["reduced"], np.array(row["maps"], np.uint8)
        return self._author.conclude(
            noise, np.array(row["shown"], np.uint8), np.array(row["logits"], np.float32), float(row["levels"]),
            maps_speak=bool(reduced["not_zero"]), unseen=lambda: metrics_of(reduced, shown_map),
        )  # fmt: skip
