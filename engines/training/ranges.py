"""The range of each activation that int8 spans, out of histograms of what flows into each convolution."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

BINS = 4096
NEVER_TAUGHT = ".familiarity.looks."  # in the names of weights that no training changes
STEPS = 127  # of symmetric int8 on either side of 0


@dataclass(frozen=True, slots=True)
class Magnitudes:
    """What magnitudes a tensor has over calibration images.

    Attributes:
        largest: the largest.
        counts: (BINS,) of evenly wide bins from 0 to the largest.
    """

    largest: float
    counts: NDArray[np.int64]

    def quantile(self, share: float) -> float:
        """The upper edge of the bin below which at least `share` of the values lie."""
        reached = np.searchsorted(np.cumsum(self.counts), share * self.counts.sum())
        return float(self.largest * min(reached + 1, BINS) / BINS)

    def least_square_error(self) -> float:
        """The range whose rounding and clipping errors have the least sum of squares."""
        middle = (np.arange(BINS) + 0.5) * self.largest / BINS
        limits = self.largest * np.arange(2, 101) / 100
        errors = [
            (self.counts * np.where(middle <= limit, (limit / STEPS) ** 2 / 12, (middle - limit) ** 2)).sum()
            for limit in limits
        ]
        return float(limits[int(np.argmin(errors))])


CHOICES: dict[str, Callable[[Magnitudes], float]] = {
    "least square error": Magnitudes.least_square_error,
    "99.9 %": lambda m: m.quantile(0.999),
    "99.99 %": lambda m: m.quantile(0.9999),
    "99.999 %": lambda m: m.quantile(0.99999),
    "largest": lambda m: m.largest,
}


def taught_convolutions(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    """The convolutions of an exported network whose weights training made: parameters keep their names, constants have none."""
    found = [n for n in model.graph.node if n.op_type in ("Conv", "ConvTranspose") and n.input[1].endswith(".weight")]
    return [n for n in found if NEVER_TAUGHT not in n.input[1]]


def magnitudes(path: Path, images: NDArray[np.uint8]) -> dict[str, Magnitudes]:
    """Magnitudes of the input of every taught convolution of a float32 ONNX file, by tensor; the images are read twice.

    Args:
        path: of a file whose one input is `image`.
        images: (n, 224, 224) uint8, image times 255.
    """
    model = onnx.load(path)
    names = sorted({node.input[0] for node in taught_convolutions(model)} - {i.name for i in model.graph.input})
    model.graph.output.extend(onnx.helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, None) for n in names)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])

    def tensors(image: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
        values = session.run(names, {"image": (image[None, None] / np.float32(255)).astype(np.float32)})
        return dict(zip(names, map(np.abs, values), strict=True))

    largest = dict.fromkeys(names, 1e-9)
    for image in images:
        for name, value in tensors(image).items():
            largest[name] = max(largest[name], float(value.max()))
    counts = {name: np.zeros(BINS, np.int64) for name in names}
    for image in images:
        for name, value in tensors(image).items():
            bins = np.minimum((value.ravel() * np.float32(BINS / largest[name])).astype(np.int32), BINS - 1)
            counts[name] += np.bincount(bins, minlength=BINS)
    return {name: Magnitudes(largest[name], counts[name]) for name in names}
