"""PASS must be earned: every way to miss it."""

from __future__ import annotations

import math

import numpy as np
import pytest

from appliance.decide import Verdict, decide
from appliance.frame import Frame, identify
from engines import Inspection, Measurement
from kernels import Noise, RawFrame, UnseenMetrics
from tests.conftest import dark

GOOD = Inspection((0.97, 0.01, 0.01, 0.01), 1.0)
BAD = Inspection((0.02, 0.95, 0.02, 0.01), 6.0)
FAILED = Inspection((0.1, 0.1, 0.1, 0.7), 9.9)


def frame(unreadable: str | None = None, *, size: int = 1) -> Frame:
    raw = None if unreadable else RawFrame.from_samples(dark(), bits=8)
    return Frame(
        identity=identify("P/L/a.tif"), sha256="0" * 64, file_bytes=size, raw=raw, unreadable=unreadable, decode_ms=1
    )


def measured(
    inspection: Inspection | None = GOOD, *, refused: str | None = None, noise: bool = True, unseen: bool = True
) -> Measurement:
    metrics = UnseenMetrics(0, 0.0, 0.0, np.zeros(256, np.uint32), np.zeros((224, 224), np.uint8))
    return Measurement(
        refused,
        Noise(64, 4, 50, 80) if noise else None,
        inspection,
        metrics if unseen else None,
        (),
        None,
        "b@1",
        "e@1",
    )


def verdict_of(
    measurement: Measurement | None, *, unreadable: str | None = None, capture_failed: str = "retest"
) -> tuple[Verdict, str | None]:
    decision = decide(frame(unreadable), measurement, spec=0.3, capture_failed=capture_failed)
    return decision.verdict, decision.reason


def test_a_clean_frame_passes_without_a_reason() -> None:
    assert verdict_of(measured()) == (Verdict.PASS, None)


def test_a_score_above_the_limit_fails_and_says_both_numbers() -> None:
    verdict, reason = verdict_of(measured(BAD))
    assert verdict is Verdict.FAIL
    assert reason == "score 0.588 above the limit 0.3"


def test_a_score_at_the_limit_passes() -> None:
    at_limit = Inspection((0.5, 0.5, 0.0, 0.0), 6.0)
    assert at_limit.score == pytest.approx(0.3)
    assert decide(frame(), measured(at_limit), spec=at_limit.score, capture_failed="retest").verdict is Verdict.PASS


@pytest.mark.parametrize(("setting", "verdict"), [("retest", Verdict.RETEST), ("fail", Verdict.FAIL)])
def test_a_capture_failure_follows_the_setting(setting: str, verdict: Verdict) -> None:
    found, reason = verdict_of(measured(FAILED), capture_failed=setting)
    assert found is verdict
    assert reason is not None
    assert reason.startswith("capture failed")


@pytest.mark.parametrize(
    ("measurement", "unreadable", "reason"),
    [
        (None, "TIFF: truncated", "unreadable: TIFF: truncated"),
        (None, None, "unreadable: not measured"),
        (measured(refused="no noise: not a dark frame"), None, "no noise: not a dark frame"),
        (measured(None), None, "not everything was measured"),
        (measured(noise=False), None, "not everything was measured"),
        (measured(unseen=False), None, "not everything was measured"),
        (measured(Inspection((math.nan, 0, 0, 0), 1.0)), None, "a number is not finite"),
        (measured(Inspection((1.0, 0, 0, 0), math.inf)), None, "a number is not finite"),
    ],
)
def test_whatever_is_missing_is_retest(measurement: Measurement | None, unreadable: str | None, reason: str) -> None:
    assert verdict_of(measurement, unreadable=unreadable) == (Verdict.RETEST, reason)


def test_hard_bins_are_one_two_three() -> None:
    assert [v.hard_bin for v in (Verdict.PASS, Verdict.FAIL, Verdict.RETEST)] == [1, 2, 3]
