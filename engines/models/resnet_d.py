"""ResNet-D (He et al. 2019, "Bag of tricks"): deep stem, average-pooled shortcuts; state-dict names equal timm's."""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn


def _conv_bn(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    """Shortcut: 2x2 average pool, then a 1x1 convolution. `ceil_mode=False`: TensorRT has no converter for True."""
    pool = nn.AvgPool2d(2, stride, ceil_mode=False, count_include_pad=False) if stride > 1 else nn.Identity()
    return nn.Sequential(pool, nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut."""

    expansion = 1

    def __init__(self, inputs: int, planes: int, stride: int = 1, downsample: nn.Module | None = None) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, planes, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.act1 = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(planes, planes, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.act2 = nn.ReLU(inplace=True)
        self.downsample = downsample

    def forward(self, x: Tensor) -> Tensor:
        """(n, c, h, w) -> (n, planes, h / stride, w / stride)."""
        shortcut = x if self.downsample is None else self.downsample(x)
        y = self.act1(self.bn1(self.conv1(x)))
        out: Tensor = self.act2(self.bn2(self.conv2(y)) + shortcut)
        return out

    @property
    def last_norm(self) -> nn.BatchNorm2d:
        """The norm that ends the residual branch."""
        return self.bn2


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions and a shortcut."""

    expansion = 4

    def __init__(self, inputs: int, planes: int, stride: int = 1, downsample: nn.Module | None = None) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, planes, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.act1 = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(planes, planes, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.act2 = nn.ReLU(inplace=True)
        self.conv3 = nn.Conv2d(planes, planes * self.expansion, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(planes * self.expansion)
        self.act3 = nn.ReLU(inplace=True)
        self.downsample = downsample

    def forward(self, x: Tensor) -> Tensor:
        """(n, c, h, w) -> (n, 4 planes, h / stride, w / stride)."""
        shortcut = x if self.downsample is None else self.downsample(x)
        y = self.act1(self.bn1(self.conv1(x)))
        y = self.act2(self.bn2(self.conv2(y)))
        out: Tensor = self.act3(self.bn3(self.conv3(y)) + shortcut)
        return out

    @property
    def last_norm(self) -> nn.BatchNorm2d:
        """The norm that ends the residual branch."""
        return self.bn3


class ResNetD(nn.Module):
    """ResNet-D over one-channel images.

    Args:
        block: BasicBlock or Bottleneck.
        layers: blocks in each of the four stages.
        outputs: values a frame gets.
        stem_width: channels of the first convolution.
    """

    def __init__(
        self, block: type[BasicBlock] | type[Bottleneck], layers: tuple[int, int, int, int], *, outputs: int,
        stem_width: int = 32,
    ) -> None:  # fmt: skip
        super().__init__()
        self.conv1 = nn.Sequential(
            nn.Conv2d(1, stem_width, 3, 2, 1, bias=False),
            nn.BatchNorm2d(stem_width),
            nn.ReLU(inplace=True),
            nn.Conv2d(stem_width, stem_width, 3, 1, 1, bias=False),
            nn.BatchNorm2d(stem_width),
            nn.ReLU(inplace=True),
            nn.Conv2d(stem_width, 64, 3, 1, 1, bias=False),
        )
        self.bn1 = nn.BatchNorm2d(64)
        self.act1 = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        inputs = 64
        stages = []
        for planes, count, stride in zip((64, 128, 256, 512), layers, (1, 2, 2, 2), strict=True):
            stages.append(_stage(block, inputs, planes, count, stride))
            inputs = planes * block.expansion
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        self.global_pool = nn.Sequential(OrderedDict(pool=nn.AdaptiveAvgPool2d(1), flatten=nn.Flatten(1)))
        self.fc = nn.Linear(inputs, outputs)
        _initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        """(n, 1, h, w) float -> (n, outputs)."""
        x = self.maxpool(self.act1(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        out: Tensor = self.fc(self.global_pool(x))
        return out


def _stage(
    block: type[BasicBlock] | type[Bottleneck], inputs: int, planes: int, count: int, stride: int
) -> nn.Sequential:
    outputs = planes * block.expansion
    shortcut = _conv_bn(inputs, outputs, stride) if stride != 1 or inputs != outputs else None
    return nn.Sequential(block(inputs, planes, stride, shortcut), *(block(outputs, planes) for _ in range(count - 1)))


def _initialise(model: nn.Module) -> None:
    """Kaiming weights; each residual branch starts at zero, so that depth does not slow the first steps."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, (BasicBlock, Bottleneck)):
            nn.init.zeros_(module.last_norm.weight)


def resnet101_d(outputs: int) -> ResNetD:
    """ResNet101-D: the classifier."""
    return ResNetD(Bottleneck, (3, 4, 23, 3), outputs=outputs)


def resnet18_d(outputs: int) -> ResNetD:
    """ResNet18-D: the visibility regressor."""
    return ResNetD(BasicBlock, (2, 2, 2, 2), outputs=outputs)
