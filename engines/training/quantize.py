"""Weights -> ONNX -> symmetric QDQ ONNX: one file that OpenVINO runs as int8 and TensorRT parses."""

from __future__ import annotations

import logging
import shutil
import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process
from torch import nn

from engines.classes import p_ng
from engines.errors import TrainingError
from engines.models import ForImages, ResNetD, build, knows_photographs
from engines.openvino import outputs_of
from engines.training.data import ImageSet
from engines.training.equalize import equalize
from engines.training.ranges import CHOICES, NEVER_TAUGHT, magnitudes, taught_convolutions
from engines.training.unseen import unseen_maps
from kernels import IMAGE_SIDE

OPSET = 20
OUTPUT_NAMES = {"classifier": "logits", "regressor": "level", "unseen": "maps"}
CALIBRATION_IMAGES, CHECK_IMAGES = 48, 160
# int32 biases are refused by TensorRT's parser; asymmetric activations too.
# A convolution's output is rounded where the next one reads it, after ReLU or the sum, and not once more before.
QUANTIZED = ["Conv", "ConvTranspose"]
QUANTIZE_OPTIONS = {
    "ActivationSymmetric": True, "WeightSymmetric": True, "QuantizeBias": False,
    "OpTypesToExcludeOutputQuantization": QUANTIZED,
}  # fmt: skip


def load_weights(role: str, weights: Path) -> ForImages:
    """A network with the weights that training wrote, in evaluation mode.

    Raises:
        TrainingError: the file is none of this role's.
    """
    try:
        state = torch.load(weights, weights_only=True)
        model = build(role, photographs=knows_photographs(state))
        model.load_state_dict(state)
    except (RuntimeError, OSError, UnpicklingError) as error:
        raise TrainingError(f"{weights}: no weights of the role {role}: {str(error).splitlines()[0]}") from error
    return model.eval()


def export(model: ForImages, path: Path) -> None:
    """Write a float32 ONNX file with a dynamic batch: input `image` (n, 1, 224, 224) in [0, 1]."""
    example = torch.rand(2, 1, IMAGE_SIDE, IMAGE_SIDE)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own deprecations
        program = torch.onnx.export(
            model.eval(), (example,), dynamo=True, opset_version=OPSET, verbose=False,
            input_names=["image"], output_names=[OUTPUT_NAMES[model.role]],
            dynamic_shapes=({0: torch.export.Dim("n", min=1, max=4096)},),
        )  # fmt: skip
    if program is None:
        raise RuntimeError(f"{model.role}: torch.onnx.export gave no program")
    program.save(str(path))


def strip_notes(path: Path) -> None:
    """Take the exporter's stack traces and shape notes out of an ONNX file; they are a megabyte of nothing."""
    model = onnx.load(path)
    del model.metadata_props[:], model.graph.metadata_props[:], model.graph.value_info[:]
    for node in model.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    onnx.save(model, path)


class _Images(CalibrationDataReader):  # type: ignore[misc]
    """One image: the ranges are given, but the quantiser wants to see data."""

    def __init__(self) -> None:
        self._rows = iter([np.full((1, 1, IMAGE_SIDE, IMAGE_SIDE), 0.5, np.float32)])

    def get_next(self) -> dict[str, NDArray[np.float32]] | None:
        image = next(self._rows, None)
        return None if image is None else {"image": image}


@dataclass(frozen=True, slots=True)
class Fidelity:
    """How far a quantised network is from its float32 form on check images.

    Attributes:
        equalized: whether its channels were evened out first.
        range: how the ranges of activations were found; a key of CHOICES.
        error: mean absolute difference of P(NG), of levels, or of S.
        shift: mean difference of the same.
    """

    equalized: bool
    range: str
    error: float
    shift: float


def quantize(model: ForImages, calibration: ImageSet, check: ImageSet, path: Path, *, seed: int = 0) -> Fidelity:
    """Export a network and write its int8 QDQ form: per-channel symmetric weights, symmetric activations.

    What convolutions read is quantised and nothing else: sums are made in float32 (of rounded branches where a
    convolution reads the branch too), as is the last layer, at no cost on OpenVINO. How
    the range of each activation is found, and whether channels are evened out before (`equalize`), is what has the
    least error on the check images.

    Args:
        model: with its final weights, in evaluation mode; a classifier or regressor comes back equalised.
        calibration: images whose activations set the ranges; at most 48 are drawn.
        check: images that choose; at most 160 are drawn.
        path: of the .onnx file.
        seed: of the draws.
    """
    images = _draw(calibration, CALIBRATION_IMAGES, seed)
    checks = _draw(check, CHECK_IMAGES, seed + 1)
    tried: list[tuple[Fidelity, Path]] = []
    with tempfile.TemporaryDirectory() as scratch:
        for equalized in (False, True) if isinstance(model.network, ResNetD) else (False,):
            if equalized:
                equalize(model, images)
            plain, prepared = Path(scratch, "plain.onnx"), Path(scratch, "prepared.onnx")
            export(model, plain)
            quant_pre_process(str(plain), str(prepared), skip_symbolic_shape=True)
            layers = sum(
                isinstance(m, (nn.Conv2d, nn.ConvTranspose2d)) and NEVER_TAUGHT not in n
                for n, m in model.named_modules()
            )
            if len(taught_convolutions(onnx.load(prepared))) != layers:
                raise RuntimeError(
                    f"{model.role}: the exported file does not name the weights of {layers} convolutions"
                )
            exact = decisive(model.role, outputs_of(prepared, checks))
            found = magnitudes(prepared, images)
            for name, choose in CHOICES.items():
                candidate = Path(scratch, f"{equalized}-{name}.onnx")
                _quantize_with(prepared, {tensor: choose(m) for tensor, m in found.items()}, candidate)
                difference = decisive(model.role, outputs_of(candidate, checks)) - exact
                error, shift = float(np.abs(difference).mean()), float(difference.mean())
                tried.append((Fidelity(equalized, name, error, shift), candidate))
        best, file = min(tried, key=lambda pair: pair[0].error)
        shutil.copyfile(file, path)
    strip_notes(path)
    onnx.checker.check_model(str(path))
    return best


def _draw(images: ImageSet, count: int, seed: int) -> NDArray[np.uint8]:
    chosen = np.random.default_rng(seed).choice(len(images), min(count, len(images)), replace=False)
    return np.array(images.images[np.sort(chosen)])


def _quantize_with(prepared: Path, ranges: dict[str, float], path: Path) -> None:
    given = {
        tensor: [{"quant_type": QuantType.QInt8, "rmin": np.float32(-limit), "rmax": np.float32(limit)}]
        for tensor, limit in ranges.items()
    }
    model = onnx.load(prepared)
    taught = {node.name for node in taught_convolutions(model)}
    fixed = [node.name for node in model.graph.node if node.op_type in QUANTIZED and node.name not in taught]
    quantize_static(
        str(prepared), str(path), _Images(), quant_format=QuantFormat.QDQ, per_channel=True,
        op_types_to_quantize=QUANTIZED, nodes_to_exclude=fixed, activation_type=QuantType.QInt8, weight_type=QuantType.QInt8,
        extra_options=QUANTIZE_OPTIONS | {"TensorQuantOverrides": given},
    )  # fmt: skip
    if fixed:
        _read_unrounded(path, fixed)


def _read_unrounded(path: Path, fixed: Sequence[str]) -> None:
    """Let filters that were never taught, and what leads to them, read in float32 what taught ones read rounded."""
    model = onnx.load(path)
    makers = {output: node for node in model.graph.node for output in node.output}
    waiting = [node for node in model.graph.node if node.name in fixed]
    seen: set[str] = set()
    while waiting:
        node = waiting.pop()
        seen.add(node.name)
        for i, name in enumerate(node.input):
            maker = makers.get(name)
            if maker is not None and maker.op_type == "DequantizeLinear" and maker.input[0] in makers:
                node.input[i] = makers[maker.input[0]].input[0]
                maker = makers.get(node.input[i])
            if maker is not None and maker.name not in seen:
                waiting.append(maker)
    onnx.save(model, path)


def decisive(role: str, outputs: NDArray[np.float32]) -> NDArray[np.float32]:
    """The number of a role that verdicts and rankings rest on: P(NG), level or S."""
    if role == "classifier":
        return p_ng(outputs).astype(np.float32)
    return np.clip(outputs, 0, 10) if role == "regressor" else unseen_maps(outputs)
