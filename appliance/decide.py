"""A measurement and a limit -> PASS, FAIL or RETEST. PASS must be earned."""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass

from appliance.frame import Frame
from engines import Measurement


class Verdict(enum.StrEnum):
    """What line control acts on."""

    PASS = "PASS"  # noqa: S105  (no password)
    FAIL = "FAIL"
    RETEST = "RETEST"

    @property
    def hard_bin(self) -> int:
        """1 pass, 2 fail, 3 retest."""
        return {"PASS": 1, "FAIL": 2, "RETEST": 3}[self.value]


@dataclass(frozen=True, slots=True)
class Decision:
    """A verdict with its ground.

    Attributes:
        verdict: PASS, FAIL or RETEST.
        reason: why not PASS; None for PASS.
        spec: the limit applied, in (0, 1].
    """

    verdict: Verdict
    reason: str | None
    spec: float


def decide(  # noqa: PLR0911  (one return a ground, in order)
    frame: Frame, measurement: Measurement | None, *, spec: float, capture_failed: str
) -> Decision:
    """Judge one frame.

    RETEST where anything is missing or not finite; class Error by `capture_failed`; FAIL where score > spec.

    Args:
        frame: with its samples or why it has none.
        measurement: None where the frame was not measured.
        spec: limit on the score.
        capture_failed: "retest" or "fail", the verdict of class Error.
    """
    if frame.unreadable is not None or measurement is None:
        return Decision(Verdict.RETEST, f"unreadable: {frame.unreadable or 'not measured'}", spec)
    if measurement.refused is not None:
        return Decision(Verdict.RETEST, measurement.refused, spec)
    inspection = measurement.inspection
    if inspection is None or not measurement.complete:
        return Decision(Verdict.RETEST, "not everything was measured", spec)
    if not all(math.isfinite(v) for v in (*inspection.p, inspection.level, inspection.score)):
        return Decision(Verdict.RETEST, "a number is not finite", spec)
    if inspection.class_name == "Error":
        verdict = Verdict.FAIL if capture_failed == "fail" else Verdict.RETEST
        return Decision(verdict, f"capture failed: class Error with P {inspection.p[3]:.3f}", spec)
    if inspection.score > spec:
        return Decision(Verdict.FAIL, f"score {inspection.score:.3f} above the limit {spec:g}", spec)
    return Decision(Verdict.PASS, None, spec)
