"""The CUDA kernels on a GPU against the CPU's: random, edge-size and real frames, bit by bit."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from appliance.reading import read_frame
from appliance.settings import Settings
from kernels import Layout, RawFrame
from kernels.packing.reference import pack
from tests.conftest import dark
from tests.kernels.parity import SIDE, Bench, assert_same_reduction, assert_same_stretch

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(600)]


@pytest.mark.parametrize("layout", list(Layout))
def test_every_layout_and_stride(layout: Layout, bench: Bench) -> None:
    bits = layout.storage_bits
    frames = []
    for i, (height, width) in enumerate([(224, 224), (3040, 4056), (1080, 1920), (225, 4400), (5000, 228)]):
        samples = np.minimum(
            dark(height, width, sigma=2.0 ** (bits - 6), pedestal=2.0 ** (bits - 3), seed=i), 2**bits - 1
        )
        frames.append(pack(samples, layout, stride=layout.row_bytes(width) + 5 * i, padding=0xA5))
    assert_same_stretch(bench, frames)


@pytest.mark.parametrize("layout", list(Layout))
def test_small_frames_of_every_layout(layout: Layout, bench: Bench) -> None:
    """All that the kernels do, in the seconds that compute-sanitizer makes minutes of."""
    bits = layout.storage_bits
    frames = []
    for i, (height, width) in enumerate([(224, 224), (225, 231), (240, 2100)]):
        samples = np.minimum(
            dark(height, width, sigma=2.0 ** (bits - 6), pedestal=2.0 ** (bits - 3), seed=i), 2**bits - 1
        )
        frames.append(pack(samples, layout, stride=layout.row_bytes(width) + 3 * i, padding=0xA5))
    assert not any(isinstance(told, str) for told in assert_same_stretch(bench, frames))


def test_frames_that_are_refused(bench: Bench) -> None:
    tile, columns = dark(3000, 4000), dark(3000, 4000, seed=1)
    tile[2000:2100], columns[:, 3000:3100] = tile[100:200], columns[:, 200:300]
    stuck = (dark(1000, 1200, sigma=20, pedestal=100) | 4).astype(np.uint16)
    frames = [tile, columns, stuck, np.full((3000, 4000), 60, np.uint16), np.zeros((600, 800), np.uint16)]
    assert_same_stretch(bench, [RawFrame.from_samples(f, bits=16) for f in frames])


def test_a_frame_of_the_largest_side(bench: Bench) -> None:
    assert_same_stretch(
        bench, [RawFrame.from_samples(dark(256, 32768), bits=16), RawFrame.from_samples(dark(32768, 256), bits=16)]
    )


def test_real_dark_frames(bench: Bench, real_data: Path) -> None:
    files = sorted(
        p for p in (real_data / "dark_frames").rglob("*") if p.suffix in {".tif", ".tiff", ".png", ".fits", ".fit"}
    )
    frames = [read_frame(p, p.name, Settings()).raw for p in files[:40]]
    readable = [f for f in frames if f is not None and min(f.width, f.height) >= SIDE]
    assert readable
    for start in range(0, len(readable), 8):
        assert_same_stretch(bench, readable[start : start + 8])


@pytest.mark.parametrize(("threshold", "alpha"), [(0.5, 2.0), (0.2, 0.7), (0.9, 5.0)])
def test_the_reduction(threshold: float, alpha: float, bench: Bench) -> None:
    rng = np.random.default_rng(5)
    logits = np.stack([rng.normal(i % 7 - 4, 1 + i % 5, (2, SIDE, SIDE)) for i in range(64)]).astype(np.float32)
    assert_same_reduction(bench, logits, threshold=threshold, alpha=alpha)


ILLEGAL = """
from kernels.device import address
from kernels.errors import DeviceFaultError
from kernels.pycuda_device import PycudaDevice
device = PycudaDevice()
with device:
    try:
        device.launch("reduce_clear", (1, 1, 1), 256, (address(16),), device.stream())
        device.synchronize()
    except DeviceFaultError as error:
        print("told:", error, flush=True)
import os
os._exit(0)  # nothing of a device that failed can be given back
"""


def test_an_illegal_address_is_a_fault_of_the_device(bench: Bench) -> None:
    done = subprocess.run([sys.executable, "-c", ILLEGAL], capture_output=True, text=True, check=True, timeout=300)
    assert "illegal memory access" in done.stdout


def test_the_same_bits_on_every_run(bench: Bench) -> None:
    frames = [RawFrame.from_samples(dark(3000, 4000, seed=i), bits=16) for i in range(4)]
    for _ in range(5):
        assert_same_stretch(bench, frames)
