"""Stretch and reduce beside numpy, OpenCV and one read of the bytes."""

from __future__ import annotations

import cv2
import numpy as np

from benchmarks.harness import Report
from kernels import Layout, RawFrame, Reducer, Stretcher, StretchParams, _native
from kernels.packing import reference as packing_reference
from kernels.reduce import reference as reduce_reference
from kernels.stretch import IMAGE_SIDE
from kernels.stretch import reference as stretch_reference

HEIGHT, WIDTH = 3000, 4000
ROTATION = 6  # 144 MB of frames: past any cache


def bench_stretch() -> Report:
    """12 MP frames of every layout."""
    report = Report(f"stretch, 12 MP, {_native.isa()}")
    rng = np.random.default_rng(0)
    frames = [np.clip(rng.normal(64, 9, (HEIGHT, WIDTH)), 0, 1023).astype(np.uint16) for _ in range(ROTATION)]
    out = np.empty((IMAGE_SIDE, IMAGE_SIDE), np.float32)
    stretcher = Stretcher(StretchParams())
    raw = [RawFrame.from_samples(f, bits=10) for f in frames]
    stretcher.stretch(raw[0], out)
    expected, _ = stretch_reference.stretch(frames[0], StretchParams())
    np.testing.assert_allclose(out, expected, atol=4e-6)

    read = report.time(
        "read the bytes once (sum of 64-bit words)", lambda i: frames[i % ROTATION].view(np.uint64).sum()
    )
    ours = report.time("stretch u16", lambda i: stretcher.stretch(raw[i % ROTATION], out))
    for layout in (Layout.U8, Layout.RAW10, Layout.RAW12, Layout.RAW14):
        top = 255 if layout is Layout.U8 else 1023
        packed = [packing_reference.pack(np.minimum(f, top).astype(np.uint16), layout) for f in frames[:3]]
        report.time(f"stretch {layout.name.lower()}", lambda i, p=packed: stretcher.stretch(p[i % 3], out))  # type: ignore[misc]
    numpy_ms = report.time(
        "numpy reference", lambda i: stretch_reference.stretch(frames[i % ROTATION], StretchParams()), samples=3
    )
    cv_ms = report.time("OpenCV: median blur 3x3, area resize", lambda i: cv2.resize(
        cv2.medianBlur(frames[i % ROTATION], 3), (IMAGE_SIDE, IMAGE_SIDE), interpolation=cv2.INTER_AREA), samples=10)  # fmt: skip
    percentile_ms = report.time("percentile stretch and resize", lambda i: _percentile(frames[i % ROTATION]), samples=5)
    report.ratio("stretch u16 / read once (goal <= 1.5)", ours / read)
    report.ratio("numpy reference / stretch u16", numpy_ms / ours)
    report.ratio("OpenCV / stretch u16", cv_ms / ours)
    report.ratio("percentile / stretch u16", percentile_ms / ours)
    return report


def _percentile(frame: np.ndarray[tuple[int, ...], np.dtype[np.uint16]]) -> object:
    low, high = np.percentile(frame, [0.5, 99.5])
    stretched = np.clip((frame - low) / (high - low), 0, 1).astype(np.float32)
    return cv2.resize(stretched, (IMAGE_SIDE, IMAGE_SIDE), interpolation=cv2.INTER_AREA)


def bench_reduce() -> Report:
    """A pair of 224x224 maps."""
    report = Report(f"reduce, 224x224 pair, {_native.isa()}")
    rng = np.random.default_rng(0)
    pairs = [rng.normal(0, 2, (2, IMAGE_SIDE, IMAGE_SIDE)).astype(np.float32) for _ in range(64)]
    reducer = Reducer(threshold=0.5, alpha=2.0)
    got = reducer.reduce(pairs[0])
    m_thresh, m_alpha, _ = reduce_reference.metrics(reduce_reference.unseen_map(pairs[0]), threshold=0.5, alpha=2.0)
    if abs(got.m_thresh - m_thresh) > 2 or abs(got.m_alpha - m_alpha) > 1e-3 * m_alpha:
        raise AssertionError((got.m_thresh, m_thresh, got.m_alpha, m_alpha))
    ours = report.time("reduce", lambda i: reducer.reduce(pairs[i % 64]), samples=300)

    def plain(i: int) -> object:
        s = reduce_reference.unseen_map(pairs[i % 64])
        return reduce_reference.metrics(s, threshold=0.5, alpha=2.0)

    numpy_ms = report.time("numpy reference", plain, samples=50)
    report.ratio("numpy / reduce", numpy_ms / ours)
    report.facts["microseconds (goal <= 30)"] = round(ours * 1e3, 1)
    return report
