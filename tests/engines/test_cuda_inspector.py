"""The GPU's inspector on an emulated GPU: what the CPU's measures, whatever is under way at once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from engines import Bundle, EngineFaultError, Inspector, Measurement
from engines.build import check_golden
from engines.cuda_inspector import CudaInspector, Results, at_once
from engines.openvino import OpenVinoEngines
from kernels import Layout, RawFrame
from kernels.device import Stream
from kernels.packing.reference import pack
from tests.conftest import dark
from tests.kernels.emulated import EmulatedDevice, bytes_at, queue

PIXELS = 224 * 224


def floats_at(address: int, *shape: int) -> NDArray[np.float32]:
    found: NDArray[np.float32] = bytes_at(address, 4 * int(np.prod(shape))).view(np.float32).reshape(shape)
    return found


class HostEngines:
    """The CPU's engines, reading and writing the emulated GPU's memory."""

    identity = "host-int8@000000000000"

    def __init__(self, bundle: Bundle, *, max_batch: int, cache: Path | None) -> None:
        self.max_batch = max_batch
        self._networks = OpenVinoEngines(bundle, cache=cache)
        self.spoil: Callable[[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]], None] | None = None
        self.batches: list[int] = []
        self.resets, self.closed = 0, 0

    def reset(self) -> None:
        self.resets += 1

    def close(self) -> None:
        self.closed += 1

    def enqueue(self, images: int, count: int, *, logits: int, levels: int, maps: int, on: Stream) -> None:
        assert 1 <= count <= self.max_batch
        queue(on).put(lambda: self._run(images, count, logits, levels, maps))

    def _run(self, images: int, count: int, logits: int, levels: int, maps: int) -> None:
        self.batches.append(count)
        given = floats_at(images, count, 224, 224)
        to = floats_at(logits, count, 4), floats_at(levels, count), floats_at(maps, count, 2, 224, 224)
        for i in range(count):
            found = self._networks.infer(np.ascontiguousarray(given[i]))
            to[0][i], to[1][i], to[2][i] = found.class_logits, found.level, found.maps
        if self.spoil is not None:
            self.spoil(*to)


@pytest.fixture
def engines(starter: Bundle, engine_cache: Path) -> HostEngines:
    return HostEngines(starter, max_batch=4, cache=engine_cache)


def small_frames() -> list[RawFrame]:
    """Twelve frames of several layouts and sizes; the second, fifth and sixth cannot be judged."""
    plain = [RawFrame.from_samples(dark(230 + 8 * i, 260 - 4 * i, seed=i), bits=12) for i in range(8)]
    plain[1] = RawFrame.from_samples(np.full((240, 240), 9, np.uint16), bits=12)
    plain[4] = RawFrame.from_samples(dark(100, 300), bits=12)
    tile = dark(300, 280, seed=50)
    tile[200:250] = tile[10:60]
    plain[5] = RawFrame.from_samples(tile, bits=12)
    spotted = dark(256, 256, seed=70)
    spotted[100:140, 80:120] += 12
    packed = [pack(np.minimum(dark(240, 248, seed=80 + i), 1023), Layout.RAW10, stride=313 + i) for i in range(3)]
    return [*plain, RawFrame.from_samples(spotted, bits=12), *packed]


def assert_alike(found: list[Measurement], expected: list[Measurement]) -> None:
    assert len(found) == len(expected)
    for ours, theirs in zip(found, expected, strict=True):
        assert (ours.refused, ours.noise, ours.inspection) == (theirs.refused, theirs.noise, theirs.inspection)
        assert ours.regions == theirs.regions
        if theirs.image is not None:
            np.testing.assert_array_equal(ours.image, theirs.image)
        if theirs.unseen is not None:
            assert ours.unseen is not None
            assert ours.unseen.m_thresh == theirs.unseen.m_thresh
            assert ours.unseen.m_alpha == pytest.approx(theirs.unseen.m_alpha, rel=1e-6)
            np.testing.assert_array_equal(ours.unseen.histogram, theirs.unseen.histogram)
            np.testing.assert_array_equal(ours.unseen.map, theirs.unseen.map)


def test_it_measures_what_the_cpu_measures(starter: Bundle, inspector: Inspector, engines: HostEngines) -> None:
    device = EmulatedDevice(seed=1)
    gpu = CudaInspector(starter, engines, device)
    frames = small_frames()
    expected = inspector.measure(frames)
    refused = [m.refused.split(":")[0] if m.refused else None for m in expected]
    assert refused == [None, "no noise", None, None, "too small to judge", "repeated tile", *[None] * 6]
    assert_alike(gpu.measure(frames), expected)
    # The second time as graphs: 11 frames in batches of 4, 4 and 3, the last one filled up to 4.
    engines.batches.clear()
    device.copies = 0
    again = gpu.measure(frames)
    assert_alike(again, expected)
    assert engines.batches == [4, 4, 4]
    assert device.copies == 6  # for each batch one up, one down
    assert all(m.engine == "host-int8@000000000000" and m.bundle == starter.identity for m in again)


def test_nothing_to_measure(starter: Bundle, engines: HostEngines) -> None:
    gpu = CudaInspector(starter, engines, EmulatedDevice())
    assert gpu.measure([]) == []
    [m] = gpu.measure([RawFrame.from_samples(dark(100, 100), bits=12)])
    assert "too small" in str(m.refused)
    assert engines.batches == []


def test_batches_are_of_few_sizes(starter: Bundle, engines: HostEngines) -> None:
    gpu = CudaInspector(starter, engines, EmulatedDevice(), graphs=False)
    frame = RawFrame.from_samples(dark(230, 230), bits=12)
    for count in (1, 2, 3):
        assert len(gpu.measure([frame] * count)) == count
    assert engines.batches == [1, 2, 4]


def test_what_a_slot_does_not_take_goes_in_powers_of_two(
    starter: Bundle, inspector: Inspector, engines: HostEngines, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames = [RawFrame.from_samples(dark(230, 230, seed=i), bits=12) for i in range(7)]
    large = RawFrame.from_samples(dark(230, 300, seed=9), bits=12)
    monkeypatch.setattr("engines.cuda_inspector.UPLOAD_BYTES", 7 * frames[0].packed.nbytes // 2)
    assert [at_once(most, frames[0].packed.nbytes) for most in (1, 2, 3, 4, 64)] == [1, 2, 3, 2, 2]
    assert at_once(4, 1 << 40) == 1
    gpu = CudaInspector(starter, engines, EmulatedDevice(), graphs=False)
    assert_alike(gpu.measure(frames), inspector.measure(frames))
    assert engines.batches == [2, 2, 2, 1]
    engines.batches.clear()
    mixed = [frames[0], large, *frames[1:4]]  # two of the large one make a slot: it takes three of these, and two go
    assert_alike(gpu.measure(mixed), inspector.measure(mixed))
    assert engines.batches == [2, 2, 1]


def test_memory_is_flat_and_given_back(starter: Bundle, engines: HostEngines) -> None:
    device = EmulatedDevice()
    gpu = CudaInspector(starter, engines, device, graphs=False)
    frames = [RawFrame.from_samples(dark(230, 230, seed=i), bits=12) for i in range(3)]
    gpu.measure(frames)
    held = {at: m.nbytes for at, m in device.memory.items()}
    gpu.measure(frames)
    gpu.measure(frames[:1])
    assert {at: m.nbytes for at, m in device.memory.items()} == held
    assert engines.resets == 1  # addresses have stayed since the first room was made
    larger = RawFrame.from_samples(dark(226, 4200), bits=12)
    [m] = gpu.measure([larger])
    assert m.complete
    assert engines.resets == 2
    assert sum(m.nbytes for m in device.memory.values()) > sum(held.values())
    grown = len(device.memory)
    gpu.measure([*frames, larger])
    assert len(device.memory) == grown == len(held)
    gpu.close()
    assert device.memory == {}
    assert engines.closed == 1


def test_a_device_without_graphs_is_told_of(
    starter: Bundle, inspector: Inspector, engines: HostEngines, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = EmulatedDevice()
    monkeypatch.setattr(device, "capture", lambda enqueue, on: None)
    gpu = CudaInspector(starter, engines, device)
    frames = small_frames()[:4]
    with pytest.warns(RuntimeWarning, match="batches of 4 cannot be captured as one CUDA graph"):
        first = gpu.measure(frames)
    assert_alike(first, inspector.measure(frames))
    assert_alike(gpu.measure(frames), inspector.measure(frames))


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda logits, levels, maps: logits.fill(0), "an engine gave zeros only"),
        (lambda logits, levels, maps: levels.fill(0), "an engine gave zeros only"),
        (lambda logits, levels, maps: maps.fill(0), "an engine gave zeros only"),
        (lambda logits, levels, maps: logits.fill(np.nan), "classifier gave a value that is not finite"),
        (lambda logits, levels, maps: levels.fill(np.inf), "regressor gave a value that is not finite"),
        (lambda logits, levels, maps: maps[:, 1, 7].fill(np.nan), "unseen map: 224 of 50176 pixels"),
    ],
    ids=["no classes", "no level", "no maps", "classes NaN", "level infinite", "maps NaN"],
)
def test_outputs_that_must_not_be_believed(
    spoil: Callable[..., None], reason: str, starter: Bundle, engines: HostEngines
) -> None:
    engines.spoil = spoil
    [m] = CudaInspector(starter, engines, EmulatedDevice(), graphs=False).measure(small_frames()[:1])
    assert str(m.refused).startswith(reason)
    assert m.noise is not None
    assert (m.inspection, m.unseen, m.complete) == (None, None, False)


def test_a_fault_of_the_gpu_ends_it(starter: Bundle, engines: HostEngines) -> None:
    device = EmulatedDevice()
    gpu = CudaInspector(starter, engines, device, graphs=False)
    device.fault = "an illegal memory access was encountered"
    with pytest.raises(EngineFaultError, match="engine host-int8@000000000000: an illegal memory access"):
        gpu.measure(small_frames()[:2])


@pytest.mark.timeout(600)
def test_it_passes_the_golden_gate_as_its_networks_do_alone(
    starter: Bundle, engines: HostEngines, inspector: Inspector
) -> None:
    assert check_golden(CudaInspector(starter, engines, EmulatedDevice(), graphs=False)) == check_golden(inspector)


def test_results_lie_apart_and_in_one_piece() -> None:
    for count in (1, 3, 64):
        results = Results(count)
        end = 0
        for _, at, dtype, shape in results.parts():
            assert at >= end
            assert at % 256 == 0
            end = at + dtype.itemsize * int(np.prod(shape))
        assert results.nbytes == end
        assert end / count < 2 * PIXELS + 3000
