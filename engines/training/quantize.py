"""Weights -> ONNX -> symmetric QDQ ONNX: one file that OpenVINO runs as int8 and TensorRT parses."""

from __future__ import annotations

import logging
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from engines.models import ForImages, build
from engines.training.data import ImageSet
from kernels import IMAGE_SIDE

OPSET = 20
OUTPUT_NAMES = {"classifier": "logits", "regressor": "level", "unseen": "maps"}
CALIBRATION_IMAGES = 160
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


def quantize(model: ForImages, calibration: ImageSet, path: Path, *, seed: int = 0) -> None:
    """Export a network and write its int8 QDQ form: per-channel symmetric weights, symmetric activations.

    Args:
        model: with its final weights.
        calibration: images whose activations set the ranges; at most 160 are drawn.
        path: of the .onnx file.
        seed: of the draw.
    """
    count = min(CALIBRATION_IMAGES, len(calibration))
    chosen = np.sort(np.random.default_rng(seed).choice(len(calibration), count, replace=False))
    with tempfile.TemporaryDirectory() as scratch:
        plain, prepared = Path(scratch, "plain.onnx"), Path(scratch, "prepared.onnx")
        export(model, plain)
        quant_pre_process(str(plain), str(prepared), skip_symbolic_shape=True)
        quantize_static(
            str(prepared), str(path), _Images(calibration.images[chosen]),
            quant_format=QuantFormat.QDQ, per_channel=True, activation_type=QuantType.QInt8,
            weight_type=QuantType.QInt8, calibrate_method=CalibrationMethod.MinMax, extra_options=QUANTIZE_OPTIONS,
        )  # fmt: skip
    strip_notes(path)
    onnx.checker.check_model(str(path))
