"""UNets (Ronneberger et al. 2015) with two independent outputs: background and labeled object."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from engines.models.efficientnet_lite import STAGES, PhotographCells
from engines.models.familiarity import Familiarity, gated

# Channels of the decoder over an encoder that learnt photographs, finest first, and of what it begins with.
PHOTOGRAPH_WIDTHS, PHOTOGRAPH_BOTTOM = (16, 32, 48, 64), 96
PHOTOGRAPH_STAGES = 5  # of the encoder that the decoder takes from


def _double_conv(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
        nn.Conv2d(outputs, outputs, 3, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


class TwoMaps(nn.Module):
    """What every UNet here has: a decoder to two logit maps, and what is familiar beside them.

    The maps go through two sigmoids, not a softmax, so that both may be low (eq. 4).
    """

    familiarity: Familiarity

    def add_decoder(self, widths: Sequence[int], skips: Sequence[int], bottom: int) -> None:
        """Make what `decoded` asks.

        Args:
            widths: channels of its stages, finest first.
            skips: channels that each of them takes from the encoder, finest first.
            bottom: channels that it begins with.
        """
        coarser, upwards = (*widths[1:], bottom), range(len(widths) - 1, -1, -1)
        self.up = nn.ModuleList(nn.ConvTranspose2d(coarser[k], widths[k], 2, 2) for k in upwards)
        self.decoder = nn.ModuleList(_double_conv(widths[k] + skips[k], widths[k]) for k in upwards)
        self.head = nn.Conv2d(widths[0], 2, 1)

    def decoded(self, x: Tensor, skips: Sequence[Tensor]) -> Tensor:
        """What is coarsest, and what the encoder kept, finest first -> (n, 2, h, w) logits."""
        for up, stage, skip in zip(self.up, self.decoder, reversed(skips), strict=True):
            x = stage(torch.cat([skip, up(x)], 1))
        out: Tensor = self.head(x)
        return out

    @property
    def lowered(self) -> bool:
        """Whether maps are lowered where nothing is familiar; in training they never are."""
        return self.familiarity.fitted and not self.training


class UNet(TwoMaps):
    """UNet of which all is taught.

    Args:
        base: channels of the first stage; doubled at each of `depth` poolings.
        depth: poolings; sides of the input must be a multiple of 2^depth.
    """

    def __init__(self, *, base: int = 16, depth: int = 4) -> None:
        super().__init__()
        *widths, bottom = (base * 2**level for level in range(depth + 1))
        self.encoder = nn.ModuleList(
            _double_conv(inputs, outputs) for inputs, outputs in zip([1, *widths[:-1]], widths, strict=True)
        )
        self.bottom = _double_conv(widths[-1], bottom)
        self.add_decoder(widths, widths, bottom)
        self.familiarity = Familiarity()

    def forward(self, x: Tensor) -> Tensor:
        """(n, 1, h, w) float -> (n, 2, h, w) logits: background, labeled object; lowered where nothing is familiar."""
        image, skips = x, []
        for stage in self.encoder:
            x = stage(x)
            skips.append(x)
            x = functional.max_pool2d(x, 2)
        out = self.decoded(self.bottom(x), skips)
        return gated(out, self.familiarity(image)) if self.lowered else out


class PhotographUNet(TwoMaps):
    """UNet whose encoder learnt photographs and is taught nothing more; only a stage of the input's own size is.

    What the encoder sees says what is familiar, too. Sides of the input must be a multiple of 32.
    """

    def __init__(self) -> None:
        super().__init__()
        *kept, first, second = (stage[-1] for stage in STAGES[:PHOTOGRAPH_STAGES])  # the last two are of one size
        self.stem = _double_conv(1, PHOTOGRAPH_WIDTHS[0])
        self.bottom = _double_conv(first + second, PHOTOGRAPH_BOTTOM)
        self.add_decoder(PHOTOGRAPH_WIDTHS, (PHOTOGRAPH_WIDTHS[0], *kept), PHOTOGRAPH_BOTTOM)
        self.familiarity = Familiarity(looks=PhotographCells())

    @property
    def looks(self) -> PhotographCells:
        """The encoder."""
        return cast("PhotographCells", self.familiarity.looks)

    def forward(self, x: Tensor) -> Tensor:
        """As of UNet."""
        maps = self.looks.maps_of(x) if self.lowered else self.looks.maps_of(x, PHOTOGRAPH_STAGES)
        *kept, first, second = maps[:PHOTOGRAPH_STAGES]
        out = self.decoded(self.bottom(torch.cat([first, second], 1)), [self.stem(x), *kept])
        if not self.lowered:
            return out
        if torch.is_autocast_enabled(x.device.type):  # these maps are not in float32
            return gated(out, self.familiarity(x))
        return gated(out, self.familiarity.of_cells(self.looks.cells(maps)))
