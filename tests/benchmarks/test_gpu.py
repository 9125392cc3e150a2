"""The GPU benchmark on an emulated GPU: it measures what it says it does; its numbers mean nothing here."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import cast

import cv2
import pytest

from benchmarks.gpu import bench_gpu
from benchmarks.gpu.bench_gpu import Stopwatch, inspector_row, kernels_alone
from benchmarks.gpu.picture import picture
from engines import Bundle, EngineChoice, Target
from engines.cuda_inspector import CudaInspector
from kernels import Layout
from tests.engines.test_cuda_inspector import HostEngines
from tests.kernels.emulated import EmulatedDevice

KERNELS = ["clear", "count_high", "count_low", "bits", "row_keys", "lags", "compare_rows", "area", "tone"]


class Watch:
    """A stopwatch that lets work run once and says a millisecond."""

    def __init__(self) -> None:
        self.device = EmulatedDevice()
        self.stream = self.device.stream()
        self.launched: list[str] = []

    def ms(self, work: Callable[[], None]) -> float:
        work()
        self.device.synchronize()
        return 1.0

    as_one_ms = ms


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> Stopwatch:
    small = {"12 MP u16": (230, 240, Layout.U16LE), "12 MP RAW10": (232, 248, Layout.RAW10)}
    monkeypatch.setattr(bench_gpu, "SIZES", small)
    monkeypatch.setattr(bench_gpu, "PAST_CACHES", 2 * 230 * 240 * 2)
    monkeypatch.setattr(bench_gpu, "KERNEL_BATCHES", (1, 2))
    monkeypatch.setattr(bench_gpu, "BATCHES", (1, 2))
    monkeypatch.setattr(bench_gpu, "LEAST_FRAMES", 4)
    monkeypatch.setattr(bench_gpu, "RUNS", 1)
    return cast("Stopwatch", Watch())


def test_the_kernels_alone(watch: Stopwatch) -> None:
    found = dict(kernels_alone(watch, copy=2.0))
    assert len(found) == 2 * 2 + 1
    row = found["stretch, 12 MP u16, batch 2"]
    assert list(row["steps_ms"]) == [f"stretch_{name}" for name in KERNELS]
    assert row["gb_s"] == pytest.approx(2 * 230 * 240 * 2 / 1e6)
    assert row["share_of_copy"] == row["gb_s"] / 2
    assert found["stretch, 12 MP u16, batch 1"]["ms"] == pytest.approx(1 / 2)  # two frames take turns
    assert not cast("EmulatedDevice", watch.device).memory


@pytest.mark.parametrize("most", [1, 2])
def test_an_inspector_beside_its_limits(
    most: int, watch: Stopwatch, starter: Bundle, engine_cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    engines = [HostEngines(starter, max_batch=most, cache=engine_cache) for _ in range(2)]
    monkeypatch.setattr(
        bench_gpu, "build_inspector", lambda *_, **__: CudaInspector(starter, engines[0], EmulatedDevice())
    )
    monkeypatch.setattr(bench_gpu, "engines_of", lambda *_: engines[1])
    monkeypatch.setattr(bench_gpu, "latency", lambda _work: {"p50_ms": 1.0})
    choice = EngineChoice(target=Target.TORCH_CUDA, max_batch=most)
    row = inspector_row(watch, starter, choice, "12 MP RAW10", tmp_path, eager=2.0)
    assert row["batch"] == most
    assert set(engines[0].batches) == {most}
    assert engines[1].batches == [most]
    turns = -(-bench_gpu.PAST_CACHES // (most * 232 * 248 * 10 // 8))  # of batches that take turns in a millisecond
    expected = dict.fromkeys(("upload", "networks", "reduce", "download"), 1 / most) | {"stretch": 1 / most / turns}
    assert row["alone_ms"] == pytest.approx(expected)
    assert row["share_of_limit"] == pytest.approx(1 / most / row["ms"])
    assert row["against_eager"] == row["frames_s"] / 2
    assert ("p50_ms" in row) == (most == 1)
    assert [one.closed for one in engines] == [1, 1]
    kernels = {"stretch": {"share_of_copy": 0.5, "steps_ms": {"stretch_area": 1.0, "stretch_tone": 0.5}}}
    found = {"gpu": "none", "kernels": kernels, "inspectors": {"a target": row}}
    picture(found, tmp_path / "gpu.png")
    drawn = cv2.imread(str(tmp_path / "gpu.png"))
    assert drawn is not None
    assert drawn.shape == (960, 1080, 3)
