"""Build an inspector and let it through the golden gate before it may decide anything."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from engines.bundle import Bundle, GoldenFrame
from engines.choice import EngineChoice, Target
from engines.cpu_inspector import CpuInspector
from engines.errors import EngineError, GoldenGateError
from engines.inspector import Inspection, Inspector
from kernels import IMAGE_SIDE

DEFAULT = EngineChoice()
Progress = Callable[[str, str, int, int], None]  # role, phase, step, steps
# Of one network by itself; wide enough for another precision, far too narrow for another network.
P_TOLERANCE, LEVEL_TOLERANCE, M_ALPHA_TOLERANCE = 0.3, 1.0, 0.5
SMALL_S = 0.14  # on every pixel: an M_alpha below that of such a map is not measured more finely


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
    bundle: Bundle, choice: EngineChoice = DEFAULT, *, cache: Path | None = None, progress: Progress | None = None,
    runs: Path | None = None,
) -> Inspector:  # fmt: skip
    """Compile a bundle's engines, or find them compiled, and check them against its golden frames.

    Args:
        bundle: what to run.
        choice: on what, and in which arithmetic.
        cache: folder for compiled engines, or None to keep none.
        progress: told what a build on a GPU is doing.
        runs: as gpu_inspector, for target tensorrt.

    Raises:
        EngineUnavailableError: this machine has no GPU, or lacks a package, that the choice wants.
        EngineBuildError: an engine cannot be built.
        GoldenGateError: the engine measures otherwise than the bundle promises.
    """
    inspector: Inspector
    if choice.target is Target.OPENVINO:
        inspector = CpuInspector(bundle, precision=choice.arithmetic, cache=cache, threads=choice.threads)
    else:
        from engines.gpu import gpu_inspector

        inspector = gpu_inspector(bundle, choice, cache=cache, progress=progress, runs=runs)
    try:
        check_golden(inspector)
    except EngineError:
        inspector.close()
        raise
    return inspector


def _alike(found: Inspection, m_alpha: float, expected: GoldenFrame, alpha: float) -> bool:
    """Whether each network by itself says what it said when the bundle was packed, precisions' differences aside."""
    return (
        max(abs(a - b) for a, b in zip(found.p, expected.p, strict=True)) <= P_TOLERANCE
        and abs(found.level - expected.level) <= LEVEL_TOLERANCE
        and abs(m_alpha - expected.m_alpha) <= M_ALPHA_TOLERANCE * max(expected.m_alpha, IMAGE_SIDE**2 * SMALL_S**alpha)
    )


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
    # On a GPU often enough that full batches go through both slots, first step by step, then as captured graphs.
    rounds = 1 if inspector.batch == 1 else -(-4 * inspector.batch // len(golden))
    for measured, expected in zip(inspector.measure([g.frame for g in golden] * rounds), golden * rounds, strict=True):
        if measured.inspection is None:
            raise GoldenGateError(f"{here}: a golden frame is not measured: {measured.refused}")
        if measured.unseen is None or not _alike(measured.inspection, measured.unseen.m_alpha, expected, bundle.alpha):
            raise GoldenGateError(f"{here}: a golden frame measures otherwise: {measured.inspection}, wanted {expected.p}, "
                                  f"level {expected.level:.2f}, m_alpha {expected.m_alpha:.0f}")  # fmt: skip
        score = measured.inspection.score
        largest = max(largest, abs(score - expected.score))
        flips += (score > bundle.spec) != (expected.score > bundle.spec)
    if not largest <= bundle.score_tolerance or flips:
        raise GoldenGateError(
            f"{here}: golden scores differ by up to {largest:.4f} with {flips} verdict flips, "
            f"wanted at most {bundle.score_tolerance} and none"
        )
    return GateReport(len(golden), largest, flips)
