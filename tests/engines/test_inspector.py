"""What the inspector measures, refuses and repeats."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from engines import Bundle, CpuInspector, EngineBuildError, Inspector, Precision
from engines.inspector import fault_of, inspect
from engines.openvino import OpenVinoEngines
from engines.regions import find_regions
from engines.simulation import SENSORS, Plan, simulate
from kernels import RawFrame
from tests.conftest import dark


def raw(class_name: str, level: float, sensor: str = "D", seed: int = 0) -> RawFrame:
    small = SENSORS[sensor].resized(640, 512)
    return RawFrame.from_samples(simulate(small, Plan(class_name, level), seed=(99, seed)).samples, bits=small.bits)


def test_clear_cases_are_told_apart(inspector: Inspector) -> None:
    for seed in range(4):
        clean, spot, band, broken = inspector.measure(
            [
                raw("OK", 0.0, seed=seed),
                raw("Spot", 8.0, seed=seed),
                raw("Diagonal", 8.0, seed=seed),
                raw("Error", 10.0, seed=seed),
            ]
        )
        assert [m.inspection.class_name for m in (clean, spot, band)] == ["OK", "Spot", "Diagonal"]  # type: ignore[union-attr]
        assert clean.inspection.score < 0.1  # type: ignore[union-attr]
        assert spot.inspection.score > 0.4  # type: ignore[union-attr]
        assert broken.refused or broken.inspection.score > 0.4  # type: ignore[union-attr]


def test_measuring_twice_or_in_company_gives_the_same_bits(inspector: Inspector) -> None:
    frames = [raw("Spot", 6.0, seed=s) for s in range(3)]
    alone = [inspector.measure([f])[0] for f in frames]
    together = inspector.measure(frames)
    for a, b in zip(alone, together, strict=True):
        assert a.inspection == b.inspection
        assert a.unseen is not None
        assert b.unseen is not None
        assert a.unseen.m_alpha == b.unseen.m_alpha
        np.testing.assert_array_equal(a.unseen.map, b.unseen.map)


@pytest.mark.parametrize(
    ("samples", "reason"),
    [
        (np.full((300, 300), 64, np.uint16), "no noise: not a dark frame"),
        (dark(100, 400), "too small to judge: 400x100 pixels"),
        (np.zeros((300, 300), np.uint16), "no noise"),
    ],
)
def test_what_cannot_be_judged_says_why_and_measures_nothing(
    inspector: Inspector, samples: NDArray[np.generic], reason: str
) -> None:
    [m] = inspector.measure([RawFrame.from_samples(samples, bits=12)])
    assert m.refused is not None
    assert m.refused.startswith(reason)
    assert (m.inspection, m.unseen, m.complete) == (None, None, False)


def test_no_frames_no_measurements(inspector: Inspector) -> None:
    assert inspector.measure([]) == []


@pytest.mark.parametrize(
    ("logits", "level", "maps_speak", "fault"),
    [
        ([1, np.nan, 0, 0], 1.0, True, "classifier gave a value that is not finite"),
        ([1, 0, 0, 0], float("inf"), True, "regressor gave a value that is not finite"),
        ([0, 0, 0, 0], 1.0, True, "an engine gave zeros only"),
        ([1, 0, 0, 0], 1.0, False, "an engine gave zeros only"),
        ([-9, 9, 0, 0], 0.0, True, "an engine gave zeros only"),
        ([1, 0, 0, 0], 1.0, True, None),
    ],
)
def test_broken_outputs_are_not_believed(
    logits: list[float], level: float, maps_speak: bool, fault: str | None
) -> None:
    assert fault_of(np.array(logits, np.float32), level, maps_speak=maps_speak) == fault


def test_score_is_probability_times_intensity() -> None:
    found = inspect(np.log(np.array([0.4, 0.3, 0.2, 0.1], np.float32)), 7.5)
    assert found.p == pytest.approx((0.4, 0.3, 0.2, 0.1))
    assert found.p_ng == pytest.approx(0.6)
    assert found.score == pytest.approx(0.45)
    assert inspect(np.zeros(4, np.float32) + 1, 12.0).level == 10.0
    assert inspect(np.zeros(4, np.float32) + 1, -3.0).level == 0.0


def test_shading_and_glow_are_no_defects(inspector: Inspector) -> None:
    """At three times the nominal strength, all six sensors: one false alarm in 24 would be 4 %."""
    frames = [
        RawFrame.from_samples(
            simulate(SENSORS[name].resized(640, 480), Plan("OK", 0.0), seed=(seed, 31), shading=3.0).samples,
            bits=SENSORS[name].bits,
        )
        for name in SENSORS
        for seed in range(4)
    ]
    found = [m.inspection for m in inspector.measure(frames)]
    assert sum(i is None or i.class_name != "OK" for i in found) == 0
    assert max(i.score for i in found if i) <= inspector.bundle.spec


def test_int8_agrees_with_f32(starter: Bundle, inspector: Inspector) -> None:
    exact = CpuInspector(starter, precision=Precision.F32)
    frames = [
        raw(c, v, seed=s) for s, (c, v) in enumerate([("OK", 0.0), ("Spot", 5.0), ("Spot", 8.0), ("Diagonal", 6.0)])
    ]
    for a, b in zip(inspector.measure(frames), exact.measure(frames), strict=True):
        assert a.inspection is not None
        assert b.inspection is not None
        assert a.inspection.score == pytest.approx(b.inspection.score, abs=0.08)
    assert exact.engine.startswith("openvino-f32@")


def test_a_model_of_another_shape_is_refused(starter: Bundle, tmp_path: object) -> None:
    import dataclasses
    import shutil
    from pathlib import Path

    folder = Path(str(tmp_path))
    for role, other in (("classifier", "regressor"), ("regressor", "regressor"), ("unseen", "unseen")):
        shutil.copyfile(starter.model(other), folder / f"{role}.onnx")
    with pytest.raises(EngineBuildError, match=r"classifier.onnx gives \(1, 1\), wanted \(1, 4\)"):
        OpenVinoEngines(dataclasses.replace(starter, folder=folder))


def test_regions_join_what_belongs_together() -> None:
    unseen = np.zeros((224, 224), np.uint8)
    unseen[10:20, 10:14] = 200
    unseen[10:20, 17:21] = 200  # three pixels apart: closed
    unseen[100:110, 100:110] = 255
    unseen[200, 200] = 255  # one pixel is noise
    regions = find_regions(unseen, threshold=0.5)
    assert [r.box for r in regions] == [(100, 100, 110, 110), (10, 10, 21, 20)]
    assert regions[0].score == pytest.approx(100)
    assert regions[1].peak == pytest.approx(200 / 255)
    assert find_regions(np.zeros((224, 224), np.uint8), threshold=0.5) == []
