"""kernels.device on an NVIDIA GPU: pycuda for memory, streams and kernels, cuda-bindings for graphs."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from kernels import fatbin
from kernels.device import Argument, Event, Grid, Stream
from kernels.driver import Gpu, probe
from kernels.errors import DeviceFaultError, NoGpuError

EXTRAS = "'umbra[gpu]' (or umbra[rtx], umbra[torch-gpu], which have it too)"
_NON_BLOCKING = 1  # CU_STREAM_NON_BLOCKING: waits for no other stream of its own accord


def _import(module: str, package: str) -> Any:
    """A package of the extras for a GPU.

    Raises:
        NoGpuError: it is not installed, or does not load; names the extra.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise NoGpuError(f"{package} is not installed: pip install {EXTRAS}") from error
    except ImportError as error:
        raise NoGpuError(f"{module} does not load: {error}") from error


class PycudaEvent:
    """A kernels.device.Event."""

    def __init__(self, device: PycudaDevice, event: Any) -> None:
        self._device, self.event = device, event

    def synchronize(self) -> None:
        """As kernels.device.Event."""
        with self._device.guarded("a batch"):
            self.event.synchronize()


class PycudaStream:
    """A kernels.device.Stream."""

    def __init__(self, device: PycudaDevice, stream: Any) -> None:
        self._device, self.stream = device, stream
        self.handle: int = stream.handle

    def record(self) -> PycudaEvent:
        """As kernels.device.Stream."""
        with self._device.guarded("recording an event"):
            driver = self._device.driver
            event = driver.Event(driver.event_flags.DISABLE_TIMING)
            event.record(self.stream)
            return PycudaEvent(self._device, event)

    def wait(self, event: Event) -> None:
        """As kernels.device.Stream."""
        with self._device.guarded("waiting for an event"):
            self.stream.wait_for_event(event.event)  # type: ignore[attr-defined]


class PycudaMemory:
    """A kernels.device.Memory."""

    def __init__(self, device: PycudaDevice, allocation: Any, nbytes: int) -> None:
        self._device, self._allocation, self.nbytes = device, allocation, nbytes
        self.address = int(allocation)

    def free(self) -> None:
        """As kernels.device.Memory."""
        with self._device.guarded("giving memory back"):
            self._allocation.free()


class PycudaGraph:
    """A kernels.device.Graph."""

    def __init__(self, device: PycudaDevice, cuda: Any, executable: Any) -> None:
        self._device, self._cuda, self._executable = device, cuda, executable

    def launch(self, on: Stream) -> None:
        """As kernels.device.Graph."""
        self._device.checked("cuGraphLaunch", self._cuda.cuGraphLaunch(self._executable, on.handle))

    def __del__(self) -> None:
        """Give the graph back with the object."""
        self._cuda.cuGraphExecDestroy(self._executable)


class PycudaDevice:
    """A kernels.device.Device: the GPU's primary context, which TensorRT and torch use too. For the thread that makes it.

    Everything but making it wants `with device:`. pycuda ends the process where a thread ends inside of a context.

    Args:
        ordinal: which GPU.

    Raises:
        NoGpuError: no driver or GPU, a package missing, or no code for this GPU in the fatbins.
        FatbinError: the CUDA kernels were not built.
        DeviceFaultError: the GPU gives no context, or does not take the kernels.
    """

    def __init__(self, ordinal: int = 0) -> None:
        self.gpu: Gpu = probe(ordinal)
        if not fatbin.fits(self.gpu.capability):
            have = sorted({code.capability for kernel in fatbin.KERNELS for code in fatbin.contents(kernel)})
            raise NoGpuError(f"{self.gpu.name}: compute capability {self.gpu.capability / 10:.1f}, and the CUDA kernels "
                             f"are built for {', '.join(f'{c / 10:.1f}' for c in have)}")  # fmt: skip
        self.driver: Any = _import("pycuda.driver", "pycuda")
        self._cuda: Any = _import("cuda.bindings.driver", "cuda-bindings")
        self._functions: dict[str, Any] = {}
        with self.guarded("its context"):
            self.driver.init()
            self._context = self.driver.Device(ordinal).retain_primary_context()
        with self, self.guarded("its kernels"):
            modules = [self.driver.module_from_file(str(fatbin.path_of(kernel))) for kernel in fatbin.KERNELS]
        self._modules = dict(zip(fatbin.KERNELS, modules, strict=True))

    def __enter__(self) -> Self:
        """Make the context this thread's."""
        with self.guarded("its context"):
            self._context.push()
        return self

    def __exit__(self, *_: object) -> None:
        """Leave the context."""
        self._context.pop()

    def close(self) -> None:
        """Give the context back; outside of `with`, the last thing that is asked of it."""
        self._functions.clear()
        self._modules.clear()
        self._context.detach()

    @contextmanager
    def guarded(self, what: str) -> Iterator[None]:
        """Turn pycuda's errors into DeviceFaultError."""
        try:
            yield
        except self.driver.Error as error:
            raise DeviceFaultError(f"{self.gpu.name}: {what}: {error}") from error

    def checked(self, call: str, answer: Sequence[Any]) -> Any:
        """What a function of cuda-bindings gave beside its error code.

        Raises:
            DeviceFaultError: the code says so.
        """
        code, *values = answer
        if int(code):
            raise DeviceFaultError(f"{self.gpu.name}: {call}: {code}")
        return values[0] if values else None

    def allocate(self, nbytes: int) -> PycudaMemory:
        """As kernels.device.Device."""
        with self.guarded(f"{nbytes} bytes of device memory"):
            return PycudaMemory(self, self.driver.mem_alloc(nbytes), nbytes)

    def pinned(self, nbytes: int) -> NDArray[np.uint8]:
        """As kernels.device.Device."""
        with self.guarded(f"{nbytes} bytes of page-locked memory"):
            memory: NDArray[np.uint8] = self.driver.pagelocked_empty(nbytes, np.uint8)
            return memory

    def stream(self) -> PycudaStream:
        """As kernels.device.Device."""
        with self.guarded("a stream"):
            return PycudaStream(self, self.driver.Stream(_NON_BLOCKING))

    def upload(self, to: int, data: NDArray[np.uint8], on: Stream) -> None:
        """As kernels.device.Device."""
        with self.guarded("a copy to the device"):
            self.driver.memcpy_htod_async(to, data, on.stream)  # type: ignore[attr-defined]

    def download(self, to: NDArray[np.uint8], source: int, on: Stream) -> None:
        """As kernels.device.Device."""
        with self.guarded("a copy from the device"):
            self.driver.memcpy_dtoh_async(to, source, on.stream)  # type: ignore[attr-defined]

    def launch(self, kernel: str, grid: Grid, threads: int, arguments: Sequence[Argument], on: Stream) -> None:
        """As kernels.device.Device."""
        with self.guarded(kernel):
            if kernel not in self._functions:
                self._functions[kernel] = self._modules[kernel.partition("_")[0]].get_function(kernel)
            values = [a[()] if isinstance(a, np.ndarray) else a for a in arguments]  # records as np.void: by value
            self._functions[kernel](*values, grid=grid, block=(threads, 1, 1), stream=on.stream)  # type: ignore[attr-defined]

    def capture(self, enqueue: Callable[[], None], on: Stream) -> PycudaGraph | None:
        """As kernels.device.Device."""
        cuda = self._cuda
        mode = cuda.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
        self.checked("cuStreamBeginCapture", cuda.cuStreamBeginCapture(on.handle, mode))
        taken = False
        try:
            enqueue()
            taken = True
        except DeviceFaultError:
            pass  # something in it cannot be captured; a fault of the device shows at the next call
        finally:
            code, graph = cuda.cuStreamEndCapture(on.handle)
        if int(code):
            return None
        try:
            if not taken:
                return None
            code, executable = cuda.cuGraphInstantiate(graph, 0)
            return None if int(code) else PycudaGraph(self, cuda, executable)
        finally:
            cuda.cuGraphDestroy(graph)

    def synchronize(self) -> None:
        """As kernels.device.Device."""
        with self.guarded("waiting for the device"):
            self._context.synchronize()
