"""A GPU that is none: the CUDA kernels compiled for this processor (emulator/), and streams that put work off."""

from __future__ import annotations

import ctypes
import hashlib
import subprocess
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kernels.device import ALIGNMENT, Argument, Event, Grid, Stream
from kernels.driver import Gpu
from kernels.errors import DeviceFaultError

HERE = Path(__file__).parent / "emulator"
KERNELS = HERE.parents[2] / "kernels"
BUILD = HERE.parents[2] / "build" / "emulator"
COMPILE = ("g++", "-std=c++20", "-O2", "-ffp-contract=off", "-fPIC", "-shared", "-Wall", "-Wextra", "-Werror",
           "-Wno-unknown-pragmas", "-Wno-unused-but-set-variable", f"-I{KERNELS}", f"-I{HERE}")  # fmt: skip
Work = Callable[[], None]


def library(source: Path = HERE / "emulator.cc") -> Path:
    """The emulator with the kernels in it, compiled where they or it have changed."""
    parts = [source, *HERE.glob("*.h"), *KERNELS.rglob("*.h"), *KERNELS.rglob("*.cu*")]
    digest = hashlib.sha256(b"".join(p.read_bytes() for p in sorted(parts)) + " ".join(COMPILE).encode()).hexdigest()
    target = BUILD / f"{source.stem}-{digest[:16]}.so"
    if not target.exists():
        BUILD.mkdir(parents=True, exist_ok=True)
        made = target.with_suffix(".tmp")
        subprocess.run([*COMPILE, str(source), "-o", str(made)], check=True)
        made.rename(target)
    return target


def bytes_at(address: int, nbytes: int) -> NDArray[np.uint8]:
    """Memory as an array."""
    return np.ctypeslib.as_array((ctypes.c_uint8 * nbytes).from_address(address))


class EmulatedEvent:
    def __init__(self, device: EmulatedDevice) -> None:
        self._device = device
        self.come = False

    def synchronize(self) -> None:
        self._device.run_until(lambda: self.come)


class EmulatedStream:
    """Work is done when somebody waits for it, not before, and that of several streams in a drawn order."""

    handle = 0

    def __init__(self, device: EmulatedDevice) -> None:
        self._device = device
        self.work: deque[tuple[Work, EmulatedEvent | None]] = deque()

    def put(self, work: Work, after: EmulatedEvent | None = None) -> None:
        self._device.check()
        if self._device.recording is not None:
            self._device.recording.append(work)
        else:
            self.work.append((work, after))

    def record(self) -> EmulatedEvent:
        event = EmulatedEvent(self._device)
        self.put(lambda: setattr(event, "come", True))
        return event

    def wait(self, event: Event) -> None:
        assert isinstance(event, EmulatedEvent)
        self.put(lambda: None, event)


def queue(stream: Stream) -> EmulatedStream:
    assert isinstance(stream, EmulatedStream)
    return stream


class EmulatedMemory:
    def __init__(self, device: EmulatedDevice, nbytes: int) -> None:
        self._device, self.nbytes = device, nbytes
        memory = device.random.integers(0, 256, nbytes + ALIGNMENT, dtype=np.uint8)
        self.address = (memory.ctypes.data + ALIGNMENT - 1) // ALIGNMENT * ALIGNMENT
        device.memory[self.address] = memory

    def free(self) -> None:
        del self._device.memory[self.address]


class EmulatedGraph:
    def __init__(self, work: list[Work]) -> None:
        self._work = work

    def launch(self, on: Stream) -> None:
        for work in self._work:
            queue(on).put(work)


class EmulatedDevice:
    """kernels.device.Device on this processor; new memory is filled with garbage."""

    gpu = Gpu("emulated", 90, 13000, 1 << 40, "none")

    def __init__(self, seed: int = 0, source: Path = HERE / "emulator.cc") -> None:
        self._launch = ctypes.CDLL(str(library(source))).launch
        self._launch.restype = ctypes.c_char_p
        self.random = np.random.default_rng(seed)
        self.memory: dict[int, NDArray[np.uint8]] = {}
        self.recording: list[Work] | None = None
        self.fault: str | None = None  # what every further call fails with
        self.launched: list[str] = []
        self.copies = 0
        self._streams: list[EmulatedStream] = []

    def check(self) -> None:
        if self.fault is not None:
            raise DeviceFaultError(self.fault)

    def allocate(self, nbytes: int) -> EmulatedMemory:
        return EmulatedMemory(self, nbytes)

    def pinned(self, nbytes: int) -> NDArray[np.uint8]:
        return self.random.integers(0, 256, nbytes, dtype=np.uint8)

    def stream(self) -> EmulatedStream:
        self._streams.append(EmulatedStream(self))
        return self._streams[-1]

    def upload(self, to: int, data: NDArray[np.uint8], on: Stream) -> None:
        queue(on).put(lambda: self._copy(to, data.ctypes.data, data.nbytes))

    def download(self, to: NDArray[np.uint8], source: int, on: Stream) -> None:
        queue(on).put(lambda: self._copy(to.ctypes.data, source, to.nbytes))

    def _copy(self, to: int, source: int, nbytes: int) -> None:
        ctypes.memmove(to, source, nbytes)
        self.copies += 1

    def launch(self, kernel: str, grid: Grid, threads: int, arguments: Sequence[Argument], on: Stream) -> None:
        held = [np.ascontiguousarray(a).copy() for a in arguments]
        queue(on).put(lambda: self._run(kernel, grid, threads, held))

    def _run(self, kernel: str, grid: Grid, threads: int, held: list[NDArray[np.generic]]) -> None:
        pointers = (ctypes.c_void_p * len(held))(*(a.ctypes.data for a in held))
        seed = ctypes.c_uint(int(self.random.integers(2**32)))
        fault = self._launch(kernel.encode(), (ctypes.c_uint * 3)(*grid), threads, pointers, seed)
        assert fault is None, fault
        self.launched.append(kernel)

    def capture(self, enqueue: Work, on: Stream) -> EmulatedGraph | None:
        self.recording = []
        enqueue()
        work, self.recording = self.recording, None
        return EmulatedGraph(work)

    def run_until(self, done: Callable[[], bool]) -> None:
        self.check()
        while not done():
            ready = [s for s in self._streams if s.work and (s.work[0][1] is None or s.work[0][1].come)]
            assert ready, "streams wait for each other"
            ready[int(self.random.integers(len(ready)))].work.popleft()[0]()

    def synchronize(self) -> None:
        self.run_until(lambda: not any(s.work for s in self._streams))
