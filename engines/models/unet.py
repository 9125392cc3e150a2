"""UNet (Ronneberger et al. 2015) with two independent outputs: background and labeled object."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from engines.models.efficientnet_lite import PhotographCells
from engines.models.familiarity import Familiarity, gated


def _double_conv(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
        nn.Conv2d(outputs, outputs, 3, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


class UNet(nn.Module):
    """UNet whose two logit maps go through two sigmoids, not a softmax, so that both may be low (eq. 4).

    Args:
        base: channels of the first stage; doubled at each of `depth` poolings.
        depth: poolings; sides of the input must be a multiple of 2^depth.
        looks: what familiarity describes places by; default simple filters.
    """

    def __init__(self, *, base: int = 16, depth: int = 4, looks: PhotographCells | None = None) -> None:
        super().__init__()
        widths = [base * 2**level for level in range(depth + 1)]
        self.encoder = nn.ModuleList(
            _double_conv(inputs, outputs) for inputs, outputs in zip([1, *widths[:-2]], widths[:-1], strict=True)
        )
        self.bottom = _double_conv(widths[-2], widths[-1])
        upwards = list(range(depth - 1, -1, -1))
        self.up = nn.ModuleList(nn.ConvTranspose2d(widths[k + 1], widths[k], 2, 2) for k in upwards)
        self.decoder = nn.ModuleList(_double_conv(2 * widths[k], widths[k]) for k in upwards)
        self.head = nn.Conv2d(base, 2, 1)
        self.familiarity = Familiarity(looks=looks)

    def forward(self, x: Tensor) -> Tensor:
        """(n, 1, h, w) float -> (n, 2, h, w) logits: background, labeled object; lowered where nothing is familiar."""
        image, skips = x, []
        for stage in self.encoder:
            x = stage(x)
            skips.append(x)
            x = functional.max_pool2d(x, 2)
        x = self.bottom(x)
        for up, stage in zip(self.up, self.decoder, strict=True):
            x = stage(torch.cat([skips.pop(), up(x)], 1))
        out: Tensor = self.head(x)
        return gated(out, self.familiarity(image)) if self.familiarity.fitted and not self.training else out
