"""What the kernels and engines need of a GPU. kernels.pycuda_device has it for real; tests have it on the CPU."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from kernels.driver import Gpu

ALIGNMENT = 256  # of every array in device memory

Grid = tuple[int, int, int]
Argument = np.generic | NDArray[np.void]  # by value, as the kernel declares it


def address(value: int) -> np.uint64:
    """An argument that is a device address."""
    return np.uint64(value)


def aligned(nbytes: int) -> int:
    """The next multiple of ALIGNMENT."""
    return -(-nbytes // ALIGNMENT) * ALIGNMENT


class Event(Protocol):
    """A point in a stream."""

    def synchronize(self) -> None:
        """Wait until the stream has come there."""


class Stream(Protocol):
    """Work done in order.

    Attributes:
        handle: as other libraries take it.
    """

    handle: int

    def record(self) -> Event:
        """Mark where the stream is."""

    def wait(self, event: Event) -> None:
        """Let what comes after wait until another stream has come to its mark."""


class Memory(Protocol):
    """Device memory; its contents are anything at first.

    Attributes:
        address: a multiple of ALIGNMENT.
        nbytes: its size.
    """

    address: int
    nbytes: int

    def free(self) -> None:
        """Give it back; nothing that uses it may be under way."""


class Graph(Protocol):
    """Work recorded once, launched as one."""

    def launch(self, on: Stream) -> None:
        """Enqueue it."""


class Device(Protocol):
    """One GPU; for one thread. A fault of the GPU is a DeviceFaultError and leaves the device unusable.

    Attributes:
        gpu: what it is.
    """

    gpu: Gpu

    def allocate(self, nbytes: int) -> Memory:
        """Device memory.

        Raises:
            DeviceFaultError: there is not that much.
        """

    def pinned(self, nbytes: int) -> NDArray[np.uint8]:
        """Page-locked host memory: (nbytes,) uint8."""

    def stream(self) -> Stream:
        """A new stream."""

    def upload(self, to: int, data: NDArray[np.uint8], on: Stream) -> None:
        """Enqueue a copy of page-locked memory to a device address; it must stay as it is until done."""

    def download(self, to: NDArray[np.uint8], source: int, on: Stream) -> None:
        """Enqueue a copy from a device address to page-locked memory."""

    def launch(self, kernel: str, grid: Grid, threads: int, arguments: Sequence[Argument], on: Stream) -> None:
        """Enqueue a kernel.

        Args:
            kernel: its name.
            grid: blocks.
            threads: of a block.
            arguments: in the kernel's order; addresses as `address` makes them.
            on: the stream.
        """

    def capture(self, enqueue: Callable[[], None], on: Stream) -> Graph | None:
        """What `enqueue` puts on a stream and, through events, on others, as one graph; None where that cannot be."""

    def synchronize(self) -> None:
        """Wait for everything."""
