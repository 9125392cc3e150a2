"""Raw frames -> measurements: stretch, three networks, reduce, on one device (docs/math.md, eq. 1-9)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from engines.bundle import Bundle
from engines.classes import CLASSES, probabilities
from engines.regions import Region, find_regions
from kernels import IMAGE_SIDE, Noise, NonFiniteMapError, RawFrame, UnseenMetrics

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


class Inspector(Protocol):
    """Measures frames with one bundle on one device; for one thread at a time.

    Attributes:
        bundle: what it runs.
        engine: what runs it, as verdicts carry it: kind-precision@hash12.
        batch: frames that it measures at once, at most; more in one call overlap their copies with it.
    """

    @property
    def bundle(self) -> Bundle: ...  # noqa: D102
    @property
    def engine(self) -> str: ...  # noqa: D102
    @property
    def batch(self) -> int: ...  # noqa: D102

    def measure(self, frames: Sequence[RawFrame]) -> list[Measurement]:
        """One measurement a frame, in order; a frame that cannot be judged says why in `refused`.

        Raises:
            EngineFaultError: an engine or its device failed.
        """

    def close(self) -> None:
        """Give back what the engines hold; the last thing that is asked of it."""


def worth_together(inspector: Inspector) -> int:
    """Frames that are worth handing over in one call: two batches, of which one goes up while the other is measured."""
    return 1 if inspector.batch == 1 else 2 * inspector.batch


def too_small(frame: RawFrame) -> str | None:
    """Why a frame is refused before it is looked at, or None."""
    if min(frame.width, frame.height) >= SMALLEST_SIDE:
        return None
    wanted = f"{SMALLEST_SIDE}x{SMALLEST_SIDE}"
    return f"too small to judge: {frame.width}x{frame.height} pixels, wanted at least {wanted}"


@dataclass(frozen=True, slots=True)
class Author:
    """What measures: a bundle on an engine; writes the measurements.

    Attributes:
        bundle: with the threshold that regions are found by.
        engine: as verdicts carry it.
    """

    bundle: Bundle
    engine: str

    def refuse(self, reason: str, *, noise: Noise | None = None, image: NDArray[np.uint8] | None = None) -> Measurement:
        """A frame that cannot be judged, with what was measured before that was known."""
        return Measurement(reason, noise, None, None, (), image, self.bundle.identity, self.engine)

    def conclude(
        self, noise: Noise, image: NDArray[np.uint8], class_logits: NDArray[np.float32], level: float, *,
        maps_speak: bool, unseen: Callable[[], UnseenMetrics],
    ) -> Measurement:  # fmt: skip
        """A frame that went through the networks.

        Args:
            noise, image: of the stretch; image (224, 224) uint8.
            class_logits: (4,).
            level: regressor's output, before clamping.
            maps_speak: whether any logit of the two maps is other than 0.
            unseen: the reduction of the maps; asked for where the outputs may be believed.
        """
        if (fault := fault_of(class_logits, level, maps_speak=maps_speak)) is not None:
            return self.refuse(fault, noise=noise, image=image)
        try:
            metrics = unseen()
        except NonFiniteMapError as error:
            return self.refuse(str(error), noise=noise, image=image)
        regions = find_regions(metrics.map, threshold=self.bundle.threshold)
        found = inspect(class_logits, level)
        return Measurement(None, noise, found, metrics, tuple(regions), image, self.bundle.identity, self.engine)


class Authored:
    """What every inspector says of itself."""

    def __init__(self, bundle: Bundle, engine: str) -> None:
        self._author = Author(bundle, engine)

    @property
    def bundle(self) -> Bundle:
        """What it runs."""
        return self._author.bundle

    @property
    def engine(self) -> str:
        """What runs it, as verdicts carry it."""
        return self._author.engine


def fault_of(class_logits: NDArray[np.float32], level: float, *, maps_speak: bool) -> str | None:
    """Why outputs must not be believed: not finite, or all zero; None where they may be."""
    for name, values in (("classifier", class_logits), ("regressor", np.float32(level))):
        if not np.isfinite(values).all():
            return f"{name} gave a value that is not finite"
    if not class_logits.any() or not maps_speak or level == 0.0:
        return "an engine gave zeros only"
    return None


def inspect(class_logits: NDArray[np.float32], level: float) -> Inspection:
    """Softmax and clamp: finite outputs -> probabilities and level."""
    p = probabilities(class_logits)
    return Inspection((p[0], p[1], p[2], p[3]), min(HIGHEST_LEVEL, max(0.0, level)))
