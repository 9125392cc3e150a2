"""Raw frames -> measurements: stretch, three networks, reduce, on one device (docs/math.md, eq. 1-9)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from engines.bundle import Bundle
from engines.classes import CLASSES, probabilities
from engines.openvino import OpenVinoEngines, Outputs, Precision
from engines.regions import Region, find_regions
from kernels import (
    IMAGE_SIDE,
    FrameGeometryError,
    Noise,
    NonFiniteMapError,
    NotADarkFrameError,
    RawFrame,
    Reducer,
    Stretcher,
    UnseenMetrics,
)

HIGHEST_LEVEL = 10.0
SMALLEST_SIDE = IMAGE_SIDE  # below it the image would be made up between samples


@dataclass(frozen=True, slots=True)
class Inspection:
    """Eq. 1-3 of one frame.

    Attributes:
        p: probabilities of OK, Spot, Diagonal, Error; they sum to 1.
        level: visibility, clamped to 0..10.
    """

    p: tuple[float, float, float, float]
    level: float

    @property
    def class_name(self) -> str:
        """The most probable class."""
        return CLASSES[int(np.argmax(self.p))]

    @property
    def p_ng(self) -> float:
        """P(NG) = P(Spot) + P(Diagonal) + P(Error) (eq. 1)."""
        return float(sum(self.p[1:]))

    @property
    def score(self) -> float:
        """Score = P(NG) * level / 10 (eq. 2-3), in [0, 1]."""
        return self.p_ng * self.level / HIGHEST_LEVEL


@dataclass(frozen=True, slots=True)
class Measurement:
    """All numbers of one frame before the spec. What was not measured is None.

    Attributes:
        refused: why the frame cannot be judged, or None.
        noise: eq. 7.
        inspection: eq. 1-3.
        unseen: eq. 4-6 and 9.
        regions: of the unseen map, strongest first.
        image: (224, 224) uint8, the stretched image times 255.
        bundle, engine: what measured, as verdicts carry it.
    """

    refused: str | None
    noise: Noise | None
    inspection: Inspection | None
    unseen: UnseenMetrics | None
    regions: tuple[Region, ...]
    image: NDArray[np.uint8] | None
    bundle: str
    engine: str

    @property
    def complete(self) -> bool:
        """Whether everything was measured."""
        return self.refused is None and None not in (self.noise, self.inspection) and self.unseen is not None


class Inspector:
    """Measures frames with one bundle on the CPU; for one thread at a time.

    Args:
        bundle: what to run.
        precision: of the engines.
        cache: folder for compiled engines, or None.
        threads: cores used; 0 for all.

    Raises:
        EngineBuildError: an engine cannot be built.
    """

    def __init__(
        self, bundle: Bundle, *, precision: Precision = Precision.INT8, cache: Path | None = None, threads: int = 0
    ) -> None:
        self.bundle = bundle
        self._engines = OpenVinoEngines(bundle, precision=precision, cache=cache, threads=threads)
        self._stretcher = Stretcher(bundle.stretch)
        self._reducer = Reducer(threshold=bundle.threshold, alpha=bundle.alpha)
        self._image = np.empty((IMAGE_SIDE, IMAGE_SIDE), np.float32)

    @property
    def engine(self) -> str:
        """openvino-<precision>@hash12."""
        return self._engines.identity

    def measure(self, frames: Sequence[RawFrame]) -> list[Measurement]:
        """One measurement a frame, in order; a frame that cannot be judged says why in `refused`.

        Raises:
            EngineFaultError: an engine failed.
        """
        return [self._measure(frame) for frame in frames]

    def _measure(self, frame: RawFrame) -> Measurement:
        if min(frame.width, frame.height) < SMALLEST_SIDE:
            wanted = f"{SMALLEST_SIDE}x{SMALLEST_SIDE}"
            return self._refuse(f"too small to judge: {frame.width}x{frame.height} pixels, wanted at least {wanted}")
        try:
            noise = self._stretcher.stretch(frame, self._image)
        except (FrameGeometryError, NotADarkFrameError) as error:
            return self._refuse(str(error))
        image = np.rint(self._image * 255).astype(np.uint8)
        outputs = self._engines.infer(self._image)
        if (fault := fault_of(outputs)) is not None:
            return self._refuse(fault, noise=noise, image=image)
        try:
            unseen = self._reducer.reduce(outputs.maps)
        except NonFiniteMapError as error:
            return self._refuse(str(error), noise=noise, image=image)
        regions = find_regions(unseen.map, threshold=self.bundle.threshold)
        return Measurement(
            None, noise, inspect(outputs), unseen, tuple(regions), image, self.bundle.identity, self.engine
        )

    def _refuse(
        self, reason: str, *, noise: Noise | None = None, image: NDArray[np.uint8] | None = None
    ) -> Measurement:
        return Measurement(reason, noise, None, None, (), image, self.bundle.identity, self.engine)


def fault_of(outputs: Outputs) -> str | None:
    """Why outputs must not be believed: not finite, or all zero; None where they may be."""
    for name, values in (("classifier", outputs.class_logits), ("regressor", np.float32(outputs.level))):
        if not np.isfinite(values).all():
            return f"{name} gave a value that is not finite"
    if not outputs.class_logits.any() or not outputs.maps.any() or outputs.level == 0.0:
        return "an engine gave zeros only"
    return None


def inspect(outputs: Outputs) -> Inspection:
    """Softmax and clamp: finite outputs -> probabilities and level."""
    p = probabilities(outputs.class_logits)
    return Inspection((p[0], p[1], p[2], p[3]), min(HIGHEST_LEVEL, max(0.0, outputs.level)))
