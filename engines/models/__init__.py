"""The three networks of a bundle, as torch modules (the `train` extra); a station runs their ONNX without torch."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from engines.models.resnet_d import ResNetD, resnet18_d, resnet101_d
from engines.models.unet import UNet

__all__ = ["ROLES", "ForImages", "ResNetD", "UNet", "build", "resnet18_d", "resnet101_d"]

ROLES = ("classifier", "regressor", "unseen")
# The image is 1/2 +- asinh(z); this brings clean noise to an SD near 1.
INPUT_GAIN = 16.0
# The regressor's raw output is (level - 5) / 5, so that it starts in the middle and moves by about 1.
LEVEL_MIDDLE, LEVEL_SPAN = 5.0, 5.0


class ForImages(nn.Module):
    """A network as the bundle holds it: images in [0, 1] in, logits or levels out.

    Args:
        role: classifier ((n, 4) logits), regressor ((n, 1) levels) or unseen ((n, 2, h, w) logits).
        network: the bare network.
    """

    def __init__(self, role: str, network: nn.Module) -> None:
        super().__init__()
        self.role, self.network = role, network

    def forward(self, image: Tensor) -> Tensor:
        """(n, 1, h, w) float in [0, 1] -> the role's output."""
        out: Tensor = self.network((image - 0.5) * INPUT_GAIN)
        return out * LEVEL_SPAN + LEVEL_MIDDLE if self.role == "regressor" else out


def build(role: str, *, seed: int = 0) -> ForImages:
    """A fresh network of a role.

    Raises:
        ValueError: an unknown role.
    """
    torch.manual_seed(seed)
    if role == "classifier":
        return ForImages(role, resnet101_d(4))
    if role == "regressor":
        return ForImages(role, resnet18_d(1))
    if role == "unseen":
        return ForImages(role, UNet())
    raise ValueError(f"role {role!r}: wanted one of {', '.join(ROLES)}")
