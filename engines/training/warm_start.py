"""A bundle's ONNX weights put back into a torch network, so that training can go on where a bundle stands."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from torch import Tensor, nn

from engines.errors import TrainingError
from engines.models import ForImages
from engines.training.fit import to_images

START_IMAGES = 64  # enough to unfold from


def start_from(model: ForImages, path: Path, images: NDArray[np.uint8]) -> None:
    """Give a network the weights of a bundle's ONNX file, in place.

    Export folded each BatchNorm into the convolution before it. It is unfolded by giving the norm the mean and variance
    that the convolution's output has over `images`, with a scale and shift that undo them: the network computes what
    the file does at float32, and its norms normalise again. The weights go back to the spread they were initialised
    with, so that a step of the optimiser is as large beside them as it was.

    Args:
        model: of the file's role; its weights are overwritten.
        path: QDQ or float32 ONNX file as `quantize` or `export` write it.
        images: (n, 224, 224) uint8, some dozens of those that training will see.

    Raises:
        TrainingError: the file is of another network, or not one that this project exported.
    """
    stored = _float_weights(path)
    parameters = dict(model.named_parameters())
    layers = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)
    wanted = {name for name, module in model.named_modules() if isinstance(module, layers)}
    if missing := sorted(f"{name}.weight" for name in wanted if f"{name}.weight" not in stored):
        raise TrainingError(f"{path}: no {missing[0]}; wanted the weights of a {model.role} network")
    folded: dict[str, Folded] = {}
    with torch.no_grad():
        for name in sorted(wanted):
            _copy(parameters[f"{name}.weight"], stored[f"{name}.weight"], f"{path}: {name}.weight")
            bias = stored.get(f"{name}.weight_bias", stored.get(f"{name}.bias"))
            if bias is None:
                raise TrainingError(f"{path}: no bias beside {name}.weight")
            if f"{name}.bias" in parameters:
                _copy(parameters[f"{name}.bias"], bias, f"{path}: {name}.bias")
            else:
                folded[name] = Folded(_rescale(parameters[f"{name}.weight"]), torch.from_numpy(bias.copy()))
    _unfold(model, folded, to_images(images, model.side))


class Folded(NamedTuple):
    """What a convolution has of the BatchNorm that was folded into it, both (channels,)."""

    scale: Tensor
    bias: Tensor


def _rescale(weight: Tensor) -> Tensor:
    """Bring each output channel to the RMS of Kaiming's initialisation, in place; returns the factors."""
    rms = weight.square().mean(dim=(1, 2, 3)).sqrt().clamp_min(1e-8)
    usual = (2 / (weight.shape[0] * weight.shape[2] * weight.shape[3])) ** 0.5
    weight.mul_((usual / rms).reshape(-1, 1, 1, 1))
    return torch.div(usual, rms)


def _copy(parameter: Tensor, value: NDArray[np.float32], what: str) -> None:
    if tuple(parameter.shape) != value.shape:
        raise TrainingError(f"{what} has shape {value.shape}, wanted {tuple(parameter.shape)}")
    parameter.copy_(torch.from_numpy(value.copy()))


def _float_weights(path: Path) -> dict[str, NDArray[np.float32]]:
    """Every float32 initializer by name, int8 ones times their scale per channel under the name without suffix."""
    graph = onnx.load(path).graph
    stored = {i.name: numpy_helper.to_array(i) for i in graph.initializer}
    weights = {name: value for name, value in stored.items() if value.dtype == np.float32}
    for node in graph.node:
        if (
            node.op_type != "DequantizeLinear"
            or not node.input[0].endswith("_quantized")
            or node.input[0] not in stored
        ):
            continue
        whole, scale = stored[node.input[0]], stored[node.input[1]]
        axis = next((a.i for a in node.attribute if a.name == "axis"), 1)
        shape = [-1 if k == axis and scale.ndim else 1 for k in range(whole.ndim)]
        weights[node.input[0].removesuffix("_quantized")] = (whole * scale.reshape(shape)).astype(np.float32)
    return weights


@torch.no_grad()
def _unfold(model: ForImages, folded: dict[str, Folded], images: Tensor) -> None:
    """Set each BatchNorm, in the order they run, from the output of the convolution that ran just before it."""
    last: list[str] = []
    handles = []

    def remember(name: str) -> None:
        last[:] = [name]

    def settle(norm: nn.BatchNorm2d, arguments: tuple[Tensor, ...]) -> None:
        variance, mean = torch.var_mean(arguments[0], dim=(0, 2, 3), correction=0)
        norm.reset_running_stats()
        norm.get_buffer("running_mean").copy_(mean)
        norm.get_buffer("running_var").copy_(variance)
        scale, bias = folded[last[0]]
        norm.weight.copy_((variance + norm.eps).sqrt() / scale)
        norm.bias.copy_(bias + mean / scale)

    for name, module in model.named_modules():
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
            handles.append(module.register_forward_hook(lambda *_, name=name: remember(name)))
        elif isinstance(module, nn.BatchNorm2d):
            handles.append(module.register_forward_pre_hook(settle))
    model.eval()
    model(images)
    for handle in handles:
        handle.remove()
