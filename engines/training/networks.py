"""What trained networks give for images, from a bundle's ONNX files or from training runs."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from engines.bundle import Bundle
from engines.classes import probabilities
from engines.errors import TrainingError
from engines.models import ForImages
from engines.openvino import outputs_of
from engines.training.data import Pictures
from engines.training.evaluate import JUDGES
from engines.training.fit import predict
from engines.training.quantize import load_weights

Outputs = Callable[[NDArray[np.uint8]], NDArray[np.float32]]


def _decided(role: str, raw: NDArray[np.float32]) -> NDArray[np.float32]:
    """Softmax of logits, or levels: (n, 4) or (n,)."""
    if role == "regressor":
        return raw[:, 0]
    return probabilities(raw).astype(np.float32)


def _bundled(images: NDArray[np.uint8], *, role: str, file: Path) -> NDArray[np.float32]:
    return _decided(role, outputs_of(file, images))


def _trained(images: NDArray[np.uint8], *, role: str, model: ForImages) -> NDArray[np.float32]:
    return _decided(role, predict(model, images, model.side, exact=True))


def seen_from_all_sides(outputs: Outputs, pictures: Pictures) -> Outputs:
    """The mean of what a network gives for each picture mirrored and turned by quarters: eight views; upright, by halves: four.

    For pictures without a direction of read-out, which training shows from these sides too.
    """
    quarters = (0, 2) if pictures is Pictures.UPRIGHT else (0, 1, 2, 3)

    def mean(images: NDArray[np.uint8]) -> NDArray[np.float32]:
        views = (np.rot90(images[:, :, ::mirror], quarter, (1, 2)) for mirror in (1, -1) for quarter in quarters)
        return np.asarray(np.mean([outputs(np.ascontiguousarray(view)) for view in views], axis=0))

    return mean


def of_bundle(bundle: Bundle) -> dict[str, Outputs]:
    """Classifier and regressor of a bundle as stored: (n, 224, 224) uint8 images -> P of the classes, or levels."""
    return {role: partial(_bundled, role=role, file=bundle.model(role)) for role in JUDGES}


def of_runs(runs: Path) -> dict[str, Outputs]:
    """The same of RUNS/classifier/weights.pt and RUNS/regressor/weights.pt, or of one of them, in float32.

    Raises:
        TrainingError: neither is there.
    """
    files = {role: runs / role / "weights.pt" for role in JUDGES}
    found = {
        role: partial(_trained, role=role, model=load_weights(role, file))
        for role, file in files.items()
        if file.exists()
    }
    if not found:
        raise TrainingError(f"{runs}: neither classifier/weights.pt nor regressor/weights.pt there")
    return dict(found)
