"""A GPU or a loud skip."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from engines import EngineChoice, Target, gpu_state
from kernels.errors import FatbinError, NoGpuError
from kernels.pycuda_device import PycudaDevice
from tests.kernels.parity import Bench


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
