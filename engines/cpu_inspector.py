"""The inspector on the CPU: C++ kernels and OpenVINO, one frame at a time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from engines.bundle import Bundle
from engines.choice import Precision
from engines.inspector import Authored, Measurement, too_small
from engines.openvino import OpenVinoEngines
from kernels import IMAGE_SIDE, FrameGeometryError, NotADarkFrameError, RawFrame, Reducer, Stretcher


class CpuInspector(Authored):
    """An engines.Inspector.

    Args:
        bundle: what to run.
        precision: of the engines.
        cache: folder for compiled engines, or None.
        threads: cores used; 0 for all.

    Raises:
        EngineBuildError: an engine cannot be built.
    """

    batch = 1

    def __init__(
        self, bundle: Bundle, *, precision: Precision = Precision.INT8, cache: Path | None = None, threads: int = 0
    ) -> None:
        self._engines = OpenVinoEngines(bundle, precision=precision, cache=cache, threads=threads)
        super().__init__(bundle, self._engines.identity)
        self._stretcher = Stretcher(bundle.stretch)
        self._reducer = Reducer(threshold=bundle.threshold, alpha=bundle.alpha)
        self._image = np.empty((IMAGE_SIDE, IMAGE_SIDE), np.float32)

    def measure(self, frames: Sequence[RawFrame]) -> list[Measurement]:
        """As engines.Inspector."""
        return [self._measure(frame) for frame in frames]

    def close(self) -> None:
        """As engines.Inspector: memory goes with the object."""

    def _measure(self, frame: RawFrame) -> Measurement:
        if (small := too_small(frame)) is not None:
            return self._author.refuse(small)
        try:
            noise = self._stretcher.stretch(frame, self._image)
        except (FrameGeometryError, NotADarkFrameError) as error:
            return self._author.refuse(str(error))
        image = np.rint(self._image * 255).astype(np.uint8)
        outputs = self._engines.infer(self._image)
        return self._author.conclude(
            noise, image, outputs.class_logits, outputs.level,
            maps_speak=bool(outputs.maps.any()), unseen=lambda: self._reducer.reduce(outputs.maps),
        )  # fmt: skip
