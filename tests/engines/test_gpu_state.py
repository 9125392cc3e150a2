"""A machine whose way to the GPU is cut at one place or another: what is said, and that the CPU's is open."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from engines import Bundle, EngineChoice, Precision, Target, gpu, gpu_state
from engines.build import build_inspector
from engines.errors import EngineUnavailableError
from engines.gpu_state import look, packages_present
from kernels import driver, fatbin, pycuda_device
from kernels.driver import Gpu
from kernels.errors import NoGpuError

GPU = Gpu("Test GPU", 90, 13000, 80 << 30, "580.95.05")
GPU_TARGETS = [t for t in Target if t is not Target.OPENVINO]


def no_driver(_ordinal: int = 0) -> Gpu:
    raise NoGpuError("no NVIDIA driver: libcuda.so.1: cannot open shared object file")


@pytest.fixture
def gpu_there(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (gpu_state, pycuda_device):
        monkeypatch.setattr(module, "probe", lambda _ordinal=0: GPU)


@pytest.mark.parametrize("target", GPU_TARGETS)
def test_without_a_driver_that_is_the_reason(target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_state, "probe", no_driver)
    state = look()
    assert state.why_off(target) == "gpu: no NVIDIA driver: libcuda.so.1: cannot open shared object file"
    assert "r580" in state.gpu.advice
    assert state.kernels.missing is None


@pytest.mark.skipif(Path("/dev/nvidiactl").exists(), reason="a GPU is here")
@pytest.mark.parametrize("target", GPU_TARGETS)
def test_nothing_falls_back_to_the_cpu(target: Target, starter: Bundle, tmp_path: Path) -> None:
    """Here: no driver; TensorRT's bindings without its libraries."""
    with pytest.raises(EngineUnavailableError, match=rf"^{target}: "):
        build_inspector(starter, EngineChoice(target=target), cache=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_gpu_without_packages(gpu_there: None, monkeypatch: pytest.MonkeyPatch) -> None:
    for package in ("pycuda", "cuda.bindings"):
        monkeypatch.setitem(sys.modules, package, None)
    state = look()
    assert state.gpu.found == "Test GPU, 80 GiB, compute capability 9.0, driver 580.95.05, CUDA 13.0"
    assert str(state.why_off(Target.TENSORRT)).startswith("gpu packages: pycuda")
    assert state.packages.advice == f"pip install {pycuda_device.EXTRAS}"
    with pytest.raises(NoGpuError, match=r"pycuda is not installed: pip install 'umbra\[gpu\]' \(or umbra\[rtx\]"):
        pycuda_device.PycudaDevice()


@pytest.mark.skipif(Path("/dev/nvidiactl").exists(), reason="a GPU is here")
def test_packages_without_libraries(gpu_there: None, monkeypatch: pytest.MonkeyPatch) -> None:
    full = look().targets[Target.TENSORRT]
    assert full.found is None
    assert str(full.missing).startswith("its package is there, but does not load: libnv")
    assert look().targets[Target.TENSORRT_RTX].missing is None
    assert packages_present()
    monkeypatch.setattr(gpu_state, "_packages", lambda: gpu_state.Part("gpu packages", "pycuda"))
    assert gpu_state.without_importing() is None
    monkeypatch.setattr(
        gpu_state, "find_spec", lambda name: None if name.startswith("tensorrt_rtx") else find_spec(name)
    )
    assert (
        gpu_state.without_importing()
        == "tensorrt: its package is there, and its libraries are not: pip install 'umbra[gpu]'"
    )


def test_a_gpu_that_the_kernels_do_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    old = Gpu("Old GPU", 61, 13000, 8 << 30, "580.95.05")
    for module in (gpu_state, pycuda_device):
        monkeypatch.setattr(module, "probe", lambda _ordinal=0: old)
    assert look().kernels.missing == "not for compute capability 6.1"
    with pytest.raises(
        NoGpuError, match=r"Old GPU: compute capability 6\.1, and the CUDA kernels are built for 7\.5, 8\.0"
    ):
        pycuda_device.PycudaDevice()


def test_kernels_that_were_not_built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fatbin, "path_of", lambda kernel: tmp_path / f"{kernel}.fatbin")
    state = look()
    assert state.kernels.missing == "stretch.fatbin: not built; the build found no nvcc 13 or newer"
    assert "nvcc" in state.kernels.advice


def test_a_torch_for_the_cpu_is_told_from_one_for_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_state, "version", lambda _package: "2.13.0+cpu")
    assert look().targets[Target.TORCH_CUDA].missing == "this build of torch is for the CPU"
    monkeypatch.setattr(gpu_state, "version", lambda _package: "2.13.0+cu130")
    assert look().targets[Target.TORCH_CUDA].missing is None


@pytest.mark.parametrize(
    ("target", "precision", "words"),
    [
        (Target.OPENVINO, Precision.FP16, "openvino does not compute in fp16, wanted one of int8, bf16, f32"),
        (Target.TENSORRT_RTX, Precision.INT8, "tensorrt_rtx does not compute in int8, wanted one of fp16"),
        (Target.TORCH_CUDA, Precision.F32, "torch_cuda does not compute in f32, wanted one of fp16"),
    ],
)
def test_a_precision_that_the_target_lacks(target: Target, precision: Precision, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        EngineChoice(target=target, precision=precision)


def test_what_is_not_built_is_known_without_building_it(
    starter: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    choice = EngineChoice(target=Target.TENSORRT_RTX, max_batch=2)
    monkeypatch.setattr(gpu, "probe", lambda: Gpu("Test GPU", 89, 13000, 8 << 30, "580.95.05"))
    assert not gpu.built(starter, choice, tmp_path)
    plans = gpu.ready_plans(starter, choice, tmp_path, None)
    assert plans.key.gpu == "Test GPU"
    assert gpu.built(starter, choice, tmp_path)
    assert gpu.ready_plans(starter, choice, tmp_path, None) == plans
    monkeypatch.setattr(gpu, "probe", no_driver)
    with pytest.raises(EngineUnavailableError, match="tensorrt_rtx: no NVIDIA driver"):
        gpu.built(starter, choice, tmp_path)


def test_defaults_and_limits() -> None:
    assert [EngineChoice(target=t).arithmetic for t in Target] == ["int8", "fp16", "fp16", "fp16"]
    assert EngineChoice(target=Target.TENSORRT).on_cpu == "int8"
    assert EngineChoice(precision=Precision.F32).on_cpu == "f32"
    with pytest.raises(ValueError, match=r"max_batch 0: wanted .* 1\.\.1024"):
        EngineChoice(max_batch=0)
    assert driver.OLDEST_CUDA == 13000
