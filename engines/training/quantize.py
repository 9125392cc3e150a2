"""Weights -> ONNX -> symmetric QDQ ONNX: one file that OpenVINO runs as int8 and TensorRT parses."""

from __future__ import annotations

import logging
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from engines.models import LEVEL_SPAN, ForImages, build
from engines.openvino import outputs_of
from engines.training.data import ImageSet
from engines.training.unseen import unseen_maps
from kernels import IMAGE_SIDE

OPSET = 20
OUTPUT_NAMES = {"classifier": "logits", "regressor": "level", "unseen": "maps"}
CALIBRATION_IMAGES, CHECK_IMAGES = 48, 96
# How the range of an activation is found: a percentile of its values, or its extremes averaged over images.
RANGES: dict[str, tuple[CalibrationMethod, dict[str, float | bool]]] = {
    "percentile 99.9": (CalibrationMethod.Percentile, {"CalibPercentile": 99.9}),
    "percentile 99.97": (CalibrationMethod.Percentile, {"CalibPercentile": 99.97}),
    "percentile 99.99": (CalibrationMethod.Percentile, {"CalibPercentile": 99.99}),
    "mean extremes": (CalibrationMethod.MinMax, {"CalibMovingAverage": True, "CalibMovingAverageConstant": 0.03}),
}
# int32 biases are refused by TensorRT's parser; asymmetric activations too.
QUANTIZE_OPTIONS = {"ActivationSymmetric": True, "WeightSymmetric": True, "QuantizeBias": False}


def load_weights(role: str, weights: Path) -> ForImages:
    """A network with the weights that training wrote, in evaluation mode."""
    model = build(role)
    model.load_state_dict(torch.load(weights, weights_only=True))
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
    """Feeds calibration images one by one."""

    def __init__(self, images: NDArray[np.uint8]) -> None:
        self._rows: Iterator[NDArray[np.uint8]] = iter(images)

    def get_next(self) -> dict[str, NDArray[np.float32]] | None:
        image = next(self._rows, None)
        return None if image is None else {"image": (image[None, None] / np.float32(255)).astype(np.float32)}


@dataclass(frozen=True, slots=True)
class Fidelity:
    """How far a quantised network is from its float32 form on check images.

    Attributes:
        range: how the ranges of activations were found; a key of RANGES.
        error: mean absolute difference of P(NG), of levels, or of S.
        shift: mean difference of each raw output, taken back by the last bias.
    """

    range: str
    error: float
    shift: tuple[float, ...]


def quantize(model: ForImages, calibration: ImageSet, check: ImageSet, path: Path, *, seed: int = 0) -> Fidelity:
    """Export a network and write its int8 QDQ form: per-channel symmetric weights, symmetric activations.

    Convolutions alone are quantised: residual sums and the last layer stay in float32, at no cost on OpenVINO. The range
    of each activation leaves its extremes out, since a capture failure reaches far beyond all else; the way to find it
    is the one of four with the least error on the check images, and the mean shift that is left is taken back in the
    last bias.

    Args:
        model: with its final weights.
        calibration: images whose activations set the ranges; at most 48 are drawn.
        check: images that choose among RANGES; at most 96 are drawn.
        path: of the .onnx file.
        seed: of the draws.
    """
    with tempfile.TemporaryDirectory() as scratch:
        plain, prepared = Path(scratch, "plain.onnx"), Path(scratch, "prepared.onnx")
        export(model, plain)
        quant_pre_process(str(plain), str(prepared), skip_symbolic_shape=True)
        images = _draw(calibration, CALIBRATION_IMAGES, seed)
        checks = _draw(check, CHECK_IMAGES, seed + 1)
        exact = outputs_of(prepared, checks)
        tried = []
        for name in RANGES:
            candidate = Path(scratch, f"{name}.onnx")
            _quantize_with(prepared, images, candidate, name)
            shift = (outputs_of(candidate, checks) - exact).mean(axis=(0, *range(2, exact.ndim)))
            _shift_last_bias(candidate, model.role, -shift)
            error = np.abs(decisive(model.role, outputs_of(candidate, checks)) - decisive(model.role, exact)).mean()
            tried.append((Fidelity(name, float(error), tuple(shift.tolist())), candidate))
        best, file = min(tried, key=lambda pair: pair[0].error)
        shutil.copyfile(file, path)
    strip_notes(path)
    onnx.checker.check_model(str(path))
    return best


def _draw(images: ImageSet, count: int, seed: int) -> NDArray[np.uint8]:
    chosen = np.random.default_rng(seed).choice(len(images), min(count, len(images)), replace=False)
    return np.array(images.images[np.sort(chosen)])


def _quantize_with(prepared: Path, images: NDArray[np.uint8], path: Path, name: str) -> None:
    method, options = RANGES[name]
    quantize_static(
        str(prepared), str(path), _Images(images), quant_format=QuantFormat.QDQ, per_channel=True,
        op_types_to_quantize=["Conv", "ConvTranspose"], activation_type=QuantType.QInt8, weight_type=QuantType.QInt8,
        calibrate_method=method, extra_options=QUANTIZE_OPTIONS | options,
    )  # fmt: skip


def decisive(role: str, outputs: NDArray[np.float32]) -> NDArray[np.float32]:
    """The number of a role that verdicts and rankings rest on: P(NG), level or S."""
    if role == "classifier":
        p = np.exp(outputs - outputs.max(1, keepdims=True))
        return np.asarray(1 - p[:, 0] / p.sum(1))
    return outputs if role == "regressor" else unseen_maps(outputs)


def _shift_last_bias(path: Path, role: str, by: NDArray[np.floating]) -> None:
    """Add to the bias of the last layer, in place."""
    model = onnx.load(path)
    name = "network.head.bias" if role == "unseen" else "network.fc.bias"
    [bias] = [i for i in model.graph.initializer if i.name == name]
    scale = LEVEL_SPAN if role == "regressor" else 1.0
    moved = onnx.numpy_helper.to_array(bias) + (by / scale).astype(np.float32)
    bias.CopyFrom(onnx.numpy_helper.from_array(moved, name))
    onnx.save(model, path)
