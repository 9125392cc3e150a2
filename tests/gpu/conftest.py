"""A GPU or a loud skip."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from engines import EngineChoice, Target, gpu_state
from kernels.errors import FatbinError, NoGpuError
from kernels.pycuda_device import PycudaDevice, PycudaMemory


class Bench:
    """A GPU as tests of kernels use it: arrays put there and got back; what was put stays until the end."""

    def __init__(self, device: PycudaDevice) -> None:
        self.device = device
        self.main = device.stream()
        self._held: list[PycudaMemory] = []

    def allocate(self, nbytes: int) -> PycudaMemory:
        self._held.append(self.device.allocate(nbytes))
        return self._held[-1]

    def put(self, array: NDArray[Any], *, beyond: int = 0) -> int:
        memory = self.allocate(array.nbytes + beyond)
        host = self.device.pinned(array.nbytes)
        host[:] = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        self.device.upload(memory.address, host, self.main)
        self.device.synchronize()
        return memory.address

    def get(self, at: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
        host = self.device.pinned(dtype.itemsize * int(np.prod(shape)))
        self.device.download(host, at, self.main)
        self.device.synchronize()
        found: NDArray[Any] = np.array(host).view(dtype).reshape(shape)
        return found

    def free(self) -> None:
        self.device.synchronize()
        for memory in self._held:
            memory.free()
        self._held = []


@pytest.fixture(scope="session")
def gpu_device() -> Iterator[PycudaDevice]:
    try:
        device = PycudaDevice()
    except (NoGpuError, FatbinError) as error:
        pytest.skip(f"NO GPU, nothing of it was tested: {error}")
    with device:
        yield device
    device.close()


@pytest.fixture
def bench(gpu_device: PycudaDevice) -> Iterator[Bench]:
    made = Bench(gpu_device)
    yield made
    made.free()


@pytest.fixture(params=[t for t in Target if t is not Target.OPENVINO])
def choice(request: pytest.FixtureRequest) -> EngineChoice:
    """Each target that this machine has."""
    if (why := gpu_state.look().why_off(request.param)) is not None:
        pytest.skip(f"NOT TESTED: {request.param}: {why}")
    return EngineChoice(target=request.param, max_batch=16)
