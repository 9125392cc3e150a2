"""Build an inspector and let it through the golden gate before it may decide anything."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from engines.bundle import Bundle
from engines.errors import GoldenGateError
from engines.inspector import Inspector
from engines.openvino import Precision


@dataclass(frozen=True, slots=True)
class GateReport:
    """How far an engine is from its bundle's golden measurements.

    Attributes:
        frames: golden frames measured.
        score_difference: the largest.
        flips: frames on the other side of the default spec.
    """

    frames: int
    score_difference: float
    flips: int


def build_inspector(
    bundle: Bundle, *, precision: Precision = Precision.INT8, cache: Path | None = None, threads: int = 0
) -> Inspector:
    """Compile a bundle's engines and check them against its golden frames.

    Raises:
        EngineBuildError: an engine cannot be built.
        GoldenGateError: the engine measures otherwise than the bundle promises.
    """
    inspector = Inspector(bundle, precision=precision, cache=cache, threads=threads)
    check_golden(inspector)
    return inspector


def check_golden(inspector: Inspector) -> GateReport:
    """Measure the golden frames and compare.

    Raises:
        GoldenGateError: a golden frame cannot be measured, a score differs by more than the tolerance, or a verdict
            flips.
    """
    bundle = inspector.bundle
    here = f"engine {inspector.engine} of bundle {bundle.identity}"
    golden = bundle.golden()
    if not golden:
        raise GoldenGateError(f"{here}: the bundle has no golden frames")
    largest, flips = 0.0, 0
    for measured, expected in zip(inspector.measure([g.frame for g in golden]), golden, strict=True):
        if measured.inspection is None:
            raise GoldenGateError(f"{here}: a golden frame is not measured: {measured.refused}")
        score = measured.inspection.score
        largest = max(largest, abs(score - expected.score))
        flips += (score > bundle.spec) != (expected.score > bundle.spec)
    if largest > bundle.score_tolerance or flips:
        raise GoldenGateError(
            f"{here}: golden scores differ by up to {largest:.4f} with {flips} verdict flips, "
            f"wanted at most {bundle.score_tolerance} and none"
        )
    return GateReport(len(golden), largest, flips)
