"""The driver asked through its own library, against one that says what it is told to."""

import subprocess
from pathlib import Path

import pytest

from kernels import driver
from kernels.driver import Gpu
from kernels.errors import NoGpuError

DRIVER = r"""
#include <stddef.h>
#include <string.h>
int cuInit(unsigned flags) { return INIT; }
int cuDriverGetVersion(int* v) { *v = CUDA; return 0; }
int cuDeviceGetCount(int* n) { *n = 1; return 0; }
int cuDeviceGet(int* d, int i) { *d = 40 + i; return 0; }
int cuDeviceGetName(char* name, int size, int d) { strncpy(name, d == 40 ? "Test GPU" : "?", size); return 0; }
int cuDeviceTotalMem_v2(size_t* bytes, int d) { *bytes = 6000000000u; return 0; }
int cuDeviceGetAttribute(int* v, int attribute, int d) { *v = attribute == 75 ? 8 : attribute == 76 ? 9 : -1; return 0; }
int cuGetErrorString(int code, const char** text) { *text = code == 100 ? "no CUDA-capable device is detected" : NULL; return 0; }
"""


def library(folder: Path, *, init: int = 0, cuda: int = 13000) -> str:
    source, target = folder / "driver.c", folder / f"libcuda-{init}-{cuda}.so"
    source.write_text(DRIVER)
    subprocess.run(
        ["gcc", "-shared", "-fPIC", f"-DINIT={init}", f"-DCUDA={cuda}", str(source), "-o", str(target)], check=True
    )
    return str(target)


def test_a_gpu_is_described(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver, "driver_version", lambda: None)
    found = driver.probe(library=library(tmp_path))
    assert found == Gpu("Test GPU", 89, 13000, 6_000_000_000, "CUDA 13.0")
    assert found.cuda_version == "13.0"


@pytest.mark.parametrize(
    ("init", "cuda", "ordinal", "words"),
    [
        (100, 13000, 0, "cuInit failed: no CUDA-capable device is detected .CUDA error 100"),
        (999, 13000, 0, "cuInit failed: no description .CUDA error 999"),
        (0, 12080, 0, "the driver runs CUDA 12.8, wanted 13.0 .r580. or newer"),
        (0, 13000, 1, "no GPU 1: the driver knows 1"),
    ],
)
def test_why_there_is_none(init: int, cuda: int, ordinal: int, words: str, tmp_path: Path) -> None:
    with pytest.raises(NoGpuError, match=words):
        driver.probe(ordinal, library=library(tmp_path, init=init, cuda=cuda))


def test_no_driver_at_all(tmp_path: Path) -> None:
    with pytest.raises(NoGpuError, match=r"no NVIDIA driver: .*libnone"):
        driver.probe(library=str(tmp_path / "libnone.so"))


def test_the_driver_tells_its_version(tmp_path: Path) -> None:
    told = tmp_path / "version"
    assert driver.driver_version(told) is None
    told.write_text(
        "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.95.05  Release Build\nGCC version: 12.2.0\n"
    )
    assert driver.driver_version(told) == "580.95.05"
