"""Evens out the channels of a ResNet-D before it is quantised; it computes the same as before.

An int8 activation has one scale for all its channels, so that a channel a hundred times larger than the others takes
their resolution away. ReLU, pooling and sums of equally scaled branches commute with a positive factor
per channel: divided out of the layers that write a tensor and multiplied into those that read it, it changes nothing
in float32 (cross-layer equalisation, Nagel et al. 2019). Here the factor is the channel's own range, since weights
have a scale per output channel and bear the unevenness well.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from engines.models import ForImages, ResNetD
from engines.models.resnet_d import BasicBlock, Bottleneck
from engines.training.fit import to_images

BATCH = 8


@dataclass(slots=True)
class _Stream:
    """A tensor's channels: the norms that write them, one of them or a sum of all, and the layers that read them."""

    writers: list[nn.BatchNorm2d]
    readers: list[nn.Conv2d | nn.Linear] = field(default_factory=list)


def _streams(network: ResNetD) -> list[_Stream]:
    _, second, third = (layer for layer in network.conv1 if isinstance(layer, nn.Conv2d))
    norms = [layer for layer in network.conv1 if isinstance(layer, nn.BatchNorm2d)]
    found = [_Stream([norms[0]], [second]), _Stream([norms[1]], [third])]
    stream = _Stream([network.bn1])
    blocks = [m for m in network.modules() if isinstance(m, (BasicBlock, Bottleneck))]
    for block in blocks:
        found.append(_Stream([block.bn1], [block.conv2]))
        if isinstance(block, Bottleneck):
            found.append(_Stream([block.bn2], [block.conv3]))
        stream.readers.append(block.conv1)
        if block.downsample is None:
            stream.writers.append(block.last_norm)
        else:
            stream.readers += [m for m in block.downsample.children() if isinstance(m, nn.Conv2d)]
            found.append(stream)
            stream = _Stream([m for m in block.downsample.children() if isinstance(m, nn.BatchNorm2d)])
            stream.writers.append(block.last_norm)
    stream.readers.append(network.fc)
    return [*found, stream]


@torch.no_grad()
def equalize(model: ForImages, images: NDArray[np.uint8]) -> None:
    """Bring every channel of every tensor between two convolutions to the same range, in place.

    Args:
        model: a classifier or regressor in evaluation mode; its output stays what it was.
        images: (n, 224, 224) uint8 whose activations tell the range of each channel: its largest magnitude in an image,
            averaged over images.

    Raises:
        TypeError: the network is not a ResNet-D.
    """
    if not isinstance(model.network, ResNetD):
        raise TypeError(f"{model.role}: is {type(model.network).__name__}, wanted ResNetD")
    streams = _streams(model.network)
    ranges = _ranges(model, {layer for stream in streams for layer in stream.readers}, images)
    for stream in streams:
        factor = torch.stack([ranges[layer] for layer in stream.readers]).amax(0)
        factor[factor == 0] = 1
        for norm in stream.writers:
            norm.weight.div_(factor)
            norm.bias.div_(factor)
        for layer in stream.readers:
            layer.weight.mul_(factor.reshape(1, -1, *[1] * (layer.weight.ndim - 2)))


def _ranges(model: ForImages, layers: Iterable[nn.Module], images: NDArray[np.uint8]) -> dict[nn.Module, Tensor]:
    """(channels,) for each layer: the largest magnitude of each channel of its input, averaged over images."""
    sums: dict[nn.Module, Tensor] = {}

    def add(layer: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        x = arguments[0]
        sums[layer] = sums.get(layer, torch.zeros(())) + x.reshape(*x.shape[:2], -1).abs().amax(2).sum(0)

    handles = [layer.register_forward_pre_hook(add) for layer in layers]
    for start in range(0, len(images), BATCH):
        model(to_images(images[start : start + BATCH], model.side))
    for handle in handles:
        handle.remove()
    return {layer: total / len(images) for layer, total in sums.items()}
