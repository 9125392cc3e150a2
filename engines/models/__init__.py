"""The three networks of a bundle, as torch modules (the `train` extra); a station runs their ONNX without torch."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from engines.models.efficientnet_lite import EfficientNetLite0, PhotographCells
from engines.models.resnet_d import ResNetD, resnet18_d, resnet101_d
from engines.models.unet import PhotographUNet, TwoMaps, UNet
from kernels import IMAGE_SIDE

__all__ = [
    "IMAGE_SIDE",
    "ROLES",
    "SIDES",
    "EfficientNetLite0",
    "ForImages",
    "PhotographCells",
    "PhotographUNet",
    "ResNetD",
    "TwoMaps",
    "UNet",
    "area_weights",
    "build",
    "knows_photographs",
    "resnet18_d",
    "resnet101_d",
]

ROLES = ("classifier", "regressor", "unseen")
# Pixels a side that a network works on. What classifier and regressor look for is broad: at 128 the noise has averaged
# down and a third of the operations is left (docs/decisions/0005-networks-at-128.md).
SIDES = {"classifier": 128, "regressor": 128, "unseen": IMAGE_SIDE}
# The image is 1/2 +- asinh(z); this brings clean noise to an SD near 1.
INPUT_GAIN = 16.0
# The regressor's raw output is (level - 5) / 5, so that it starts in the middle and moves by about 1.
LEVEL_MIDDLE, LEVEL_SPAN = 5.0, 5.0


def area_weights(side: int) -> Tensor:
    """(side, 224) float32: the share of each of 224 pixels in each of `side` equal parts of the image's side."""
    edges = torch.arange(side + 1) * (IMAGE_SIDE / side)
    pixels = torch.arange(IMAGE_SIDE)
    overlap = torch.minimum(edges[1:, None], pixels + 1) - torch.maximum(edges[:-1, None], pixels)
    return overlap.clamp_min(0) * (side / IMAGE_SIDE)


class ForImages(nn.Module):
    """A network as the bundle holds it: (n, 1, 224, 224) images in [0, 1] in, logits or levels out.

    Args:
        role: classifier ((n, 4) logits), regressor ((n, 1) levels) or unseen ((n, 2, h, w) logits).
        network: the bare network.
        side: pixels a side that the network works on, a multiple of 32, at most 224; kept in the state dict. Images of
            224 are area-averaged down to it; smaller ones are taken as they are.
    """

    def __init__(self, role: str, network: nn.Module, side: int) -> None:
        super().__init__()
        self.role, self.network, self.side = role, network, side

    def forward(self, image: Tensor) -> Tensor:
        """(n, 1, h, w) float in [0, 1] -> the role's output."""
        if image.shape[-1] == IMAGE_SIDE != self.side:
            weights = area_weights(self.side).to(image)
            image = weights @ image @ weights.T
        out: Tensor = self.network((image - 0.5) * INPUT_GAIN)
        return out * LEVEL_SPAN + LEVEL_MIDDLE if self.role == "regressor" else out

    def get_extra_state(self) -> int:
        """What the state dict holds beside weights: the side."""
        return self.side

    def set_extra_state(self, state: int) -> None:
        """Take the side from a state dict."""
        self.side = state


def build(role: str, *, seed: int = 0, photographs: bool = False) -> ForImages:
    """A fresh network of a role.

    Args:
        role: of the network.
        seed: of its weights.
        photographs: whether it is one that can begin with weights that learnt photographs.

    Raises:
        ValueError: an unknown role.
    """
    torch.manual_seed(seed)
    if role not in ROLES:
        raise ValueError(f"role {role!r}: wanted one of {', '.join(ROLES)}")
    network: nn.Module
    if role == "unseen":
        network = PhotographUNet() if photographs else UNet()
    elif photographs:
        network = EfficientNetLite0(1, bounded=True) if role == "regressor" else EfficientNetLite0(4)
        return ForImages(role, network, IMAGE_SIDE)
    else:
        network = resnet18_d(1) if role == "regressor" else resnet101_d(4)
    return ForImages(role, network, SIDES[role])


def knows_photographs(state: Mapping[str, object]) -> bool:
    """Whether a state dict is of a network of `build(role, photographs=True)`."""
    return any(key == "network.feature_mean" or ".looks." in key for key in state)
