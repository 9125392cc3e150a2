"""The inspector on a GPU: each target against the CPU, its memory over time, and its faults."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from engines import Bundle, CpuInspector, EngineChoice, Inspector, Precision, Target
from engines.build import build_inspector, check_golden
from engines.errors import EngineBuildError
from engines.simulation import SENSORS, simulate
from engines.simulation.plans import mixed_set
from kernels import RawFrame
from kernels.driver import probe
from kernels.pycuda_device import PycudaDevice
from tests.conftest import dark

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(3600)]
FRAMES, SCREENED, RELOADS = 600, 10_000, 100
FLAT_BYTES = 1 << 20


def listed(capability: int) -> bool:
    """Whether TensorRT for RTX says that it builds for a GPU."""
    from engines.tensorrt import Flavour, load

    return hasattr(load(Flavour.TENSORRT_RTX).ComputeCapability, f"SM{capability}")  # type: ignore[attr-defined]


def built(starter: Bundle, choice: EngineChoice, cache: Path) -> Inspector:
    """The inspector; where TensorRT for RTX does not list this GPU it may refuse it, in our words."""
    try:
        return build_inspector(starter, choice, cache=cache)
    except EngineBuildError as error:
        if choice.target is not Target.TENSORRT_RTX or listed(probe().capability):
            raise
        words = rf"cannot be built for {re.escape(probe().name)} \(compute capability|does not take this plan"
        if not re.search(words, str(error)):
            raise
        pytest.skip(f"NOT TESTED: refused, as it may be: {error}")


@pytest.fixture
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.getbasetemp() / "plans"


@pytest.fixture
def on_gpu(choice: EngineChoice, starter: Bundle, cache: Path) -> Iterator[Inspector]:
    made = built(starter, choice, cache)
    yield made
    made.close()


def free_bytes() -> int:
    """Of device memory, as the driver counts it."""
    found: int = importlib.import_module("pycuda.driver").mem_get_info()[0]
    return found


def simulated(count: int) -> list[RawFrame]:
    """Frames of all six sensors with all classes."""
    plans = mixed_set(list(SENSORS.values()), count, 7_000)
    made = [simulate(SENSORS[p.sensor], p.plan, seed=(7_000, i)) for i, p in enumerate(plans)]
    return [RawFrame.from_samples(m.samples, bits=m.sensor.bits) for m in made]


def test_600_frames_have_the_verdicts_of_the_cpu(
    on_gpu: Inspector, starter: Bundle, record_property: Callable[[str, object], None]
) -> None:
    cpu = CpuInspector(starter, precision=Precision.F32)
    frames = simulated(FRAMES)
    ours, theirs = on_gpu.measure(frames), cpu.measure(frames)
    flips, p, level = 0, 0.0, 0.0
    for a, b in zip(ours, theirs, strict=True):
        assert (a.refused, a.noise) == (b.refused, b.noise)
        if a.inspection is None or b.inspection is None:
            continue
        np.testing.assert_array_equal(a.image, b.image)
        flips += (a.inspection.score > starter.spec) != (b.inspection.score > starter.spec)
        p = max(p, *(abs(x - y) for x, y in zip(a.inspection.p, b.inspection.p, strict=True)))
        level = max(level, abs(a.inspection.level - b.inspection.level))
    record_property("found", f"{on_gpu.engine}: {flips} flips, P within {p:.4f}, level within {level:.4f}")
    assert flips == 0
    assert p <= 0.05
    assert level <= 0.1


def test_the_golden_gate(on_gpu: Inspector) -> None:
    assert check_golden(on_gpu).flips == 0


def test_10000_frames_in_flat_memory(on_gpu: Inspector, gpu_device: PycudaDevice) -> None:
    frames = [RawFrame.from_samples(dark(480, 640, seed=i), bits=12) for i in range(100)]
    for _ in range(2):  # the first time a graph is recorded, the second time it is launched
        on_gpu.measure(frames)
    before = free_bytes()
    for _ in range(SCREENED // len(frames)):
        assert all(m.complete for m in on_gpu.measure(frames))
    assert abs(free_bytes() - before) <= FLAT_BYTES


def test_100_reloads_in_flat_memory(
    choice: EngineChoice, starter: Bundle, cache: Path, gpu_device: PycudaDevice
) -> None:
    frames = [RawFrame.from_samples(dark(480, 640), bits=12)]

    def reload() -> None:
        inspector = built(starter, choice, cache)
        inspector.measure(frames)
        inspector.close()

    for _ in range(5):
        reload()
    before = free_bytes()
    for _ in range(RELOADS - 5):
        reload()
    assert abs(free_bytes() - before) <= FLAT_BYTES


def test_frames_of_all_sizes_follow_each_other(on_gpu: Inspector, starter: Bundle) -> None:
    cpu = CpuInspector(starter, precision=Precision.F32)
    sizes = [(300, 400), (3040, 4056), (100, 300), (224, 224), (2000, 6000)]
    frames = [RawFrame.from_samples(dark(h, w, seed=i), bits=12) for i, (h, w) in enumerate(sizes * 3)]
    for a, b in zip(on_gpu.measure(frames), cpu.measure(frames), strict=True):
        assert (a.refused, a.noise) == (b.refused, b.noise)


def test_the_driver_is_the_one_asked(gpu_device: PycudaDevice) -> None:
    assert gpu_device.gpu == probe()


def test_graphs_of_several_batch_sizes_take_turns(on_gpu: Inspector) -> None:
    frames = [RawFrame.from_samples(dark(480, 640, seed=i), bits=12) for i in range(16)]
    first = on_gpu.measure(frames)
    for count in (16, 1, 4, 16, 1, 3, 16, 8, 1, 16):
        for ours, theirs in zip(on_gpu.measure(frames[:count]), first, strict=False):
            assert ours.inspection is not None
            assert theirs.inspection is not None
            assert ours.inspection.p == pytest.approx(theirs.inspection.p, abs=0.01)
            assert ours.inspection.level == pytest.approx(theirs.inspection.level, abs=0.05)
