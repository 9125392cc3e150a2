"""A GPU or a loud skip; where there is one, what it was to be tested with must be there too."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NoReturn

import pytest

from engines import EngineChoice, Target, gpu_state
from kernels.driver import probe
from kernels.errors import FatbinError, NoGpuError
from kernels.pycuda_device import PycudaDevice
from tests.kernels.parity import Bench


def skip(why: str) -> NoReturn:
    """A GPU that is here and not tested is no success."""
    try:
        gpu = probe()
    except NoGpuError as error:
        pytest.skip(f"NO GPU, nothing of it was tested: {error}")
    pytest.fail(f"{gpu.name} is here and was not tested: {why}")


@pytest.fixture(scope="session")
def gpu_device() -> Iterator[PycudaDevice]:
    try:
        device = PycudaDevice()
    except (NoGpuError, FatbinError) as error:
        skip(str(error))
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
    state = gpu_state.look()
    if (why := state.why_off(request.param)) is not None:
        if all(state.why_off(target) for target in Target if target is not Target.OPENVINO):
            skip(why)
        pytest.skip(f"NOT TESTED: {request.param}: {why}")
    return EngineChoice(target=request.param, max_batch=16)
