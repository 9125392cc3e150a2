"""pycuda and cuda-bindings themselves, on a driver that is none; run by test_pycuda.py in a process of its own."""

from __future__ import annotations

import numpy as np
import pytest

from engines import CpuInspector, bundle, gpu
from engines.cuda_inspector import CudaInspector
from kernels import RawFrame, StretchParams
from kernels.cuda import IMAGE_PIXELS
from kernels.driver import probe
from kernels.errors import DeviceFaultError
from kernels.pycuda_device import PycudaDevice
from tests.conftest import dark
from tests.engines.test_cuda_inspector import HostEngines, assert_alike
from tests.kernels.parity import Bench, StretchBatch, assert_told_alike, on_cpu


def kernels_and_graphs(device: PycudaDevice) -> None:
    """Launches, arguments by value, copies, and the same launches as one graph."""
    bench = Bench(device)
    frames = [RawFrame.from_samples(dark(230, 300, seed=i), bits=12) for i in range(2)]
    batch = StretchBatch(bench, frames, StretchParams())

    def check() -> None:
        for frame, ours in zip(frames, batch.told(), strict=True):
            assert not isinstance(ours, str)
            assert_told_alike(ours, on_cpu(frame, StretchParams()))

    batch.enqueue()
    check()
    graph = device.capture(batch.enqueue, bench.main)
    assert graph is not None
    blank = device.pinned(4 * 2 * IMAGE_PIXELS)
    blank[:] = 0
    device.upload(batch.images, blank, bench.main)
    assert not bench.get(batch.images, (2, 224, 224), np.dtype("f4")).any()
    graph.launch(bench.main)
    check()
    batch.free()
    bench.free()


def inspector(device: PycudaDevice) -> None:
    """Batches over two slots, and what is left of device memory afterwards."""
    starter = bundle.load(bundle.find("starter"))
    cpu = CpuInspector(starter)
    before = free(device)
    ours = CudaInspector(starter, OnHost(), device, graphs=False)
    frames = [RawFrame.from_samples(dark(230 + 4 * i, 240, seed=i), bits=12) for i in range(5)]
    assert_alike(ours.measure(frames), cpu.measure(frames))
    held = free(device)
    assert held < before
    assert_alike(ours.measure(frames), cpu.measure(frames))
    assert free(device) == held
    ours.close()
    assert free(device) == before


class OnHost(HostEngines):
    """The CPU's engines; this driver has done all that was enqueued before."""

    def __init__(self) -> None:
        super().__init__(bundle.load(bundle.find("starter")), max_batch=2, cache=None)

    def enqueue(self, images: int, count: int, *, logits: int, levels: int, maps: int, on: object) -> None:
        """As GpuEngines."""
        self._run(images, count, logits, levels, maps)


def free(device: PycudaDevice) -> int:
    """Bytes of device memory."""
    found: int = device.driver.mem_get_info()[0]
    return found


def faults(device: PycudaDevice) -> None:
    """What the driver refuses is told as DeviceFaultError."""
    with pytest.raises(DeviceFaultError, match=r"Emulated GPU: 1099511627776 bytes of device memory: .*out of memory"):
        device.allocate(1 << 40)
    with pytest.raises(DeviceFaultError, match="stretch_area"):  # without its other argument
        device.launch("stretch_area", (1, 1, 1), 256, (np.uint64(0),), device.stream())


def on_the_thread_of_the_gpu() -> None:
    """As the daemon does: made, used and left on a thread of its own, which ends with the process."""
    starter = bundle.load(bundle.find("starter"))
    bound = gpu.ThreadBound(gpu._on_gpu_thread(lambda device: CudaInspector(starter, OnHost(), device, graphs=False)))
    frames = [RawFrame.from_samples(dark(230, 240), bits=12)]
    assert_alike(bound.measure(frames), CpuInspector(starter).measure(frames))
    bound.close()


def main() -> None:
    """All of it."""
    with PycudaDevice() as device:
        assert device.gpu == probe()
        assert device.gpu.name == "Emulated GPU"
        kernels_and_graphs(device)
        inspector(device)
        faults(device)
    device.close()
    on_the_thread_of_the_gpu()


if __name__ == "__main__":
    main()
