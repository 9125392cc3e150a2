"""The CUDA kernels, run on this processor, against the CPU's: the same image, noise and refusals, bit by bit."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from kernels import KernelError, Layout, NonFiniteMapError, RawFrame, StretchParams, Tone
from kernels.cuda import FRAME, StretchKernels
from kernels.packing.reference import pack
from tests.kernels.emulated import EmulatedDevice
from tests.kernels.parity import (
    SIDE,
    Bench,
    Told,
    assert_same_reduction,
    assert_same_stretch,
    assert_told_alike,
    on_gpu,
    reduced_on_gpu,
)
from tests.kernels.test_stretch import dark


def plain(samples: NDArray[np.uint16]) -> RawFrame:
    return RawFrame.from_samples(samples, bits=16)


def assert_same(frames: list[RawFrame], params: StretchParams | None = None) -> list[Told]:
    return assert_same_stretch(Bench(EmulatedDevice()), frames, params)


@pytest.mark.parametrize("layout", list(Layout))
def test_every_layout_at_any_stride(layout: Layout) -> None:
    bits = layout.storage_bits
    frames = []
    for height, width, padding in ((230, 236, 0), (227, 252, 3), (224, 268, 7)):
        samples = np.minimum(dark(height, width, sigma=2.0 ** (bits - 6), pedestal=2.0 ** (bits - 3)), 2**bits - 1)
        frames.append(pack(samples, layout, stride=layout.row_bytes(width) + padding, padding=0xA5))
    assert_same(frames)


@pytest.mark.parametrize(
    "params",
    [
        StretchParams(k=0.5, z_range=3.0, tone=Tone.LINEAR),
        StretchParams(k=6.0, z_range=16.0, tone=Tone.MIDTONES, tone_parameter=0.2),
        StretchParams(k=100.0, z_range=500.0, tone=Tone.ASINH, tone_parameter=0.5),
    ],
    ids=["linear", "midtones", "asinh"],
)
def test_every_tone(params: StretchParams) -> None:
    assert_same([plain(dark(260, 300)), plain(dark(331, 225, sigma=0.2, seed=1))], params)


def test_noise_of_every_width() -> None:
    full = np.random.default_rng(3).integers(0, 65536, (240, 248)).astype(np.uint16)
    mosaic = dark(250, 262, sigma=3)
    mosaic[::2, ::2] += 300
    mosaic[1::2, ::2] += 900
    hot = dark(300, 224)
    hot[7::31, 5::17] = 65535
    ramp = (dark(300, 260).astype(np.int64) + np.arange(260) * 40).astype(np.uint16)
    three_codes = np.random.default_rng(4).integers(255, 258, (256, 320)).astype(np.uint16)
    half = dark(448, 448, sigma=700, pedestal=9000)
    frames = [full, mosaic, hot, ramp, three_codes, half]
    found = assert_same([plain(f) for f in frames])
    assert not any(isinstance(told, str) for told in found)


def test_faults_are_the_same() -> None:
    constant = np.full((230, 240), 77, np.uint16)
    low, high = dark(230, 240), dark(230, 240)
    low[:150], high[:150] = 3, 4095
    stuck = (dark(260, 250, sigma=20, pedestal=100) | 4).astype(np.uint16)
    rows = dark(300, 260)
    rows[200:240] = rows[20:60]
    columns = dark(260, 320)
    columns[:, 100:150] = columns[:, 10:60]
    few = dark(300, 260)
    few[200:210] = few[20:30]  # ten rows: fewer than make a tile
    flat = np.full((300, 260), 50, np.uint16)
    flat[:, ::2] = dark(300, 130, seed=2)  # every other column is flat
    quiet = dark(300, 260, sigma=0.05, seed=5)  # most rows and columns are the same code
    frames = [constant, low, high, stuck, rows, columns, few, flat, quiet]
    found = assert_same([plain(f) for f in frames])
    words = ("no noise", "lowest code", "highest code", "stuck bit", "rows", "columns")
    for told, word in zip(found, words, strict=False):
        assert word in str(told)
    assert not isinstance(found[6], str)


def test_frames_beyond_what_is_sorted_in_shared_memory() -> None:
    wide, tall = dark(226, 4400), dark(4300, 228)
    repeated_wide, repeated_tall = wide.copy(), tall.copy()
    repeated_wide[:, 4200:4300] = repeated_wide[:, 100:200]
    repeated_tall[4200:4250] = repeated_tall[300:350]
    found = assert_same([plain(f) for f in (wide, tall, repeated_wide, repeated_tall)])
    assert "columns from 100" in str(found[2])
    assert "rows from 300" in str(found[3])


def test_the_order_of_threads_and_blocks_changes_nothing() -> None:
    frames = [plain(dark(300, 290)), plain(dark(260, 4096 + 300, seed=1))]
    first, second = (on_gpu(Bench(EmulatedDevice(seed)), frames, StretchParams()) for seed in (1, 2))
    for a, b in zip(first, second, strict=True):
        assert_told_alike(a, b)


@pytest.mark.parametrize(("threshold", "alpha"), [(0.5, 2.0), (0.2, 0.7), (0.9, 5.0)])
def test_reduction(threshold: float, alpha: float) -> None:
    rng = np.random.default_rng(5)
    logits = np.stack([
        rng.normal(-1, 3, (2, SIDE, SIDE)), rng.normal(-60, 30, (2, SIDE, SIDE)), np.full((2, SIDE, SIDE), 9.0),
        np.full((2, SIDE, SIDE), -9.0), np.zeros((2, SIDE, SIDE)),
    ]).astype(np.float32)  # fmt: skip
    assert_same_reduction(Bench(EmulatedDevice()), logits, threshold=threshold, alpha=alpha)


def test_a_map_with_a_hole_is_refused() -> None:
    logits = np.zeros((1, 2, SIDE, SIDE), np.float32)
    logits[0, 1, 3, 4], logits[0, 0, 9, 9] = np.nan, np.inf
    with pytest.raises(NonFiniteMapError, match="2 of 50176 pixels"):
        reduced_on_gpu(Bench(EmulatedDevice()), logits, threshold=0.5, alpha=2.0)


def test_a_side_without_buffers_is_refused() -> None:
    with pytest.raises(KernelError, match="side 40000"):
        StretchKernels(EmulatedDevice(), StretchParams(), frames=1, side=40_000)
    assert FRAME.itemsize == 32


MISSING_BARRIER = """
#include "cuda_on_cpu.h"
#include "gpu.cuh"
__global__ void turn(uint32_t* out) {
  __shared__ uint32_t held[64];
  held[threadIdx.x] = threadIdx.x;
  BARRIER;
  out[threadIdx.x] = held[63 - threadIdx.x];
}
extern "C" char __start_emulated_shared[], __stop_emulated_shared[];
extern "C" const char* launch(const char*, const unsigned*, unsigned threads, const void* const* arguments, unsigned seed) {
  std::mt19937 random(seed);
  blockDim = {threads, 1, 1};
  for (char* p = __start_emulated_shared; p < __stop_emulated_shared; ++p) *p = 7;
  emulator::block.body = [](void* to) { turn(*static_cast<uint32_t* const*>(to)); };
  emulator::block.argument = const_cast<void*>(arguments[0]);
  emulator::run_block(threads, random);
  return nullptr;
}
"""


@pytest.mark.parametrize(("barrier", "right"), [("__syncthreads()", True), ("(void)0", False)])
def test_the_emulator_shows_a_missing_barrier(barrier: str, right: bool, tmp_path: Path) -> None:
    source = tmp_path / "turn.cc"
    source.write_text(MISSING_BARRIER.replace("BARRIER", barrier))
    device = EmulatedDevice(source=source)
    bench = Bench(device)
    out = bench.allocate(4 * 64)
    device.launch("turn", (1, 1, 1), 64, (np.uint64(out),), bench.main)
    assert np.array_equal(bench.get(out, (64,), np.dtype("u4")), np.arange(63, -1, -1)) is right
