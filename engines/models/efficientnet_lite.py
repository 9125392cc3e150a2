"""EfficientNet-Lite0 (Tan and Le 2019, section 3; "Lite": ReLU6, no squeeze-and-excitation), read at eight depths.

With weights that learnt photographs it tells pictures apart of which there are a few hundred; a ResNet-D would learn them
from nothing. The last layer and the deeper blocks are taught; the first blocks and what the norms subtract stay.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional

STEM, HEAD = 32, 1280
STAGES = (  # expansion, kernel, stride, blocks, channels
    (1, 3, 1, 1, 16), (6, 3, 2, 2, 24), (6, 5, 2, 2, 40), (6, 3, 2, 3, 80), (6, 5, 1, 3, 112), (6, 5, 2, 4, 192),
    (6, 3, 1, 1, 320),
)  # fmt: skip
CELL_STAGES = range(2, len(STAGES))  # that cells of 8x8 pixels are described by: none is finer
KEPT_STAGES = 3  # not taught: edges and textures are the same everywhere
DEPTHS = tuple(sum(stage[3] for stage in STAGES[: k + 1]) - 1 for k in range(len(STAGES)))  # the last block of each
FEATURES = 3 * (sum(stage[4] for stage in STAGES) + HEAD)
# The image's asinh curve at ForImages' gain, brought to the -1 to 1 of a photograph: the noise of a clean frame is small
# beside it, what stands out by eight of its standard deviations is white.
CONTRAST = 0.5
CELL_CONTRAST = 0.4  # the same for cells: two and a half standard deviations of the set either way are told apart
FEATURE_SPREAD = 10.0  # of all features of an image together, so that the last layer learns as quickly as the rest
NORM_EPS = 1e-3


class _ConvNorm(nn.Sequential):
    """Convolution, norm and ReLU6, or no ReLU; padded as TensorFlow's SAME does: an odd pixel more below and to the right."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int = 1, stride: int = 1, *, groups: int = 1, bare: bool = False
    ) -> None:
        before = (kernel - stride) // 2
        super().__init__(
            OrderedDict(
                pad=nn.ZeroPad2d((before, kernel - stride - before) * 2),
                conv=nn.Conv2d(inputs, outputs, kernel, stride, groups=groups, bias=False),
                norm=nn.BatchNorm2d(outputs, NORM_EPS),
                act=nn.Identity() if bare else nn.ReLU6(inplace=True),
            )
        )


class InvertedBottleneck(nn.Module):
    """Widened by a 1x1 convolution, filtered channel by channel, narrowed; with a shortcut where the shape stays."""

    def __init__(self, inputs: int, outputs: int, *, expansion: int, kernel: int, stride: int) -> None:
        super().__init__()
        wide = inputs * expansion
        self.expand = _ConvNorm(inputs, wide) if expansion > 1 else nn.Identity()
        self.filter = _ConvNorm(wide, wide, kernel, stride, groups=wide)
        self.project = _ConvNorm(wide, outputs, bare=True)
        self.shortcut = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """(n, inputs, h, w) -> (n, outputs, h / stride, w / stride)."""
        y: Tensor = self.project(self.filter(self.expand(x)))
        return y + x if self.shortcut else y


def _pooled(x: Tensor) -> Tensor:
    """Mean, largest and standard deviation of each channel: (n, c, h, w) -> (n, 3 c)."""
    mean = x.mean((2, 3), keepdim=True)
    deviation = ((x - mean).square().mean((2, 3)) + 1e-6).sqrt()
    return torch.cat([mean.flatten(1), x.amax((2, 3)), deviation], 1)


class Trunk(nn.Module):
    """The first blocks of EfficientNet-Lite0 over one-channel images; its norms keep the statistics of photographs.

    Args:
        stages: of STAGES that it has.
    """

    def __init__(self, stages: int) -> None:
        super().__init__()
        self.stem = _ConvNorm(1, STEM, 3, 2)
        blocks, inputs = [], STEM
        for expansion, kernel, stride, count, channels in STAGES[:stages]:
            for k in range(count):
                step = 1 if k else stride
                blocks.append(InvertedBottleneck(inputs, channels, expansion=expansion, kernel=kernel, stride=step))
                inputs = channels
        self.blocks = nn.ModuleList(blocks)

    def train(self, mode: bool = True) -> Self:
        """As of any module, but the norms stay: the statistics of a few pictures are worth less than those they have."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        return self

    def maps(self, x: Tensor, stages: int = len(STAGES)) -> list[Tensor]:
        """(n, 1, h, w) in -1 to 1 -> what the last block of each stage gives, (n, channels, h / 2 to 32, w / 2 to 32).

        Args:
            x: images.
            stages: the first ones, that are asked for.
        """
        x = self.stem(x)
        found: list[Tensor] = []
        for number, block in enumerate(self.blocks):
            if len(found) == stages:
                break
            x = block(x)
            if number in DEPTHS:
                found.append(x)
        return found


class EfficientNetLite0(Trunk):
    """EfficientNet-Lite0 over one-channel images, its features standardised, a last layer `fc` over them.

    Args:
        outputs: values a frame gets.
        bounded: whether they are drawn into -1 to 1 by tanh, as levels are that crowd at both ends of their scale.
    """

    feature_mean: Tensor
    feature_scale: Tensor

    def __init__(self, outputs: int, *, bounded: bool = False) -> None:
        super().__init__(len(STAGES))
        self.head = _ConvNorm(STAGES[-1][-1], HEAD)
        self.register_buffer("feature_mean", torch.zeros(FEATURES))
        self.register_buffer("feature_scale", torch.ones(FEATURES))
        self.fc = nn.Linear(FEATURES, outputs)
        nn.init.zeros_(self.fc.weight)
        nn.init.zeros_(self.fc.bias)
        self.bounded = bounded
        kept = [self.stem, *self.blocks[: DEPTHS[KEPT_STAGES - 1] + 1]]
        for parameter in (p for module in kept for p in module.parameters()):
            parameter.requires_grad_(False)

    def features(self, x: Tensor) -> Tensor:
        """(n, 1, h, w) float -> (n, 6192) float32, as they are."""
        maps = self.maps((x * CONTRAST).clamp(-1.0, 1.0))
        return torch.cat([_pooled(one.float()) for one in (*maps, self.head(maps[-1]))], 1)

    @torch.no_grad()
    def standardise(self, features: Tensor) -> None:
        """Take the mean and spread of each feature over (n, 6192) of them: from now on they are told in these."""
        mean, deviation = features.mean(0), features.std(0) + 1e-3
        self.feature_mean.copy_(mean)
        self.feature_scale.copy_(FEATURE_SPREAD / (deviation * FEATURES**0.5))

    def forward(self, x: Tensor) -> Tensor:
        """(n, 1, h, w) float -> (n, outputs)."""
        out: Tensor = self.fc((self.features(x) - self.feature_mean) * self.feature_scale)
        return torch.tanh(out) if self.bounded else out


class PhotographCells(Trunk):
    """What each cell of 8x8 pixels looks like to EfficientNet-Lite0, at the ends of its third to last stage; never taught."""

    channels = sum(STAGES[stage][4] for stage in CELL_STAGES)
    components = 256  # principal ones that are asked: as good as all 744, for a third of the time
    whitening = 0.5  # power of the variances that principal components are divided by: all count alike
    reach = 6.0  # as of `Filters`; these see much that is new and not strange, and the UNet over them doubts by itself

    def __init__(self) -> None:
        super().__init__(len(STAGES))
        self.requires_grad_(False)

    def maps_of(self, x: Tensor, stages: int = len(STAGES)) -> list[Tensor]:
        """(n, 1, h, w) in SD of the set, sides multiples of 32 -> what its first stages end with, finest first."""
        return self.maps((x * CELL_CONTRAST).clamp(-1.0, 1.0), stages)

    def cells(self, maps: Sequence[Tensor]) -> Tensor:
        """What maps_of gives -> (n, 744, h / 8, w / 8)."""
        finest, *coarser = (functional.avg_pool2d(maps[stage], 3, 1, 1) for stage in CELL_STAGES)
        side = finest.shape[-1]
        return torch.cat([finest, *(
            functional.interpolate(one, scale_factor=side // one.shape[-1], mode="bilinear") for one in coarser
        )], 1)  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        """(n, 1, h, w) in SD of the set, sides multiples of 32 -> (n, 744, h / 8, w / 8)."""
        return self.cells(self.maps_of(x))
