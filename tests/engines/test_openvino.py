"""The int8 engines say what the ONNX files say, on whatever processor this is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from engines.bundle import MODEL_FILES, Bundle
from engines.openvino import OpenVinoEngines
from kernels import IMAGE_SIDE, Stretcher

MEAN_DIFFERENCE = 0.05  # of logits and levels: what rounding adds up to


@pytest.fixture(scope="module")
def images(starter: Bundle) -> list[np.ndarray]:
    stretcher = Stretcher(starter.stretch)
    made = [np.empty((IMAGE_SIDE, IMAGE_SIDE), np.float32) for _ in starter.golden()]
    for golden, image in zip(starter.golden(), made, strict=True):
        stretcher.stretch(golden.frame, image)
    return made


def reference(path: Path, images: list[np.ndarray]) -> list[np.ndarray]:
    """Every operation of the file as it stands there, none fused."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    [name] = (given.name for given in session.get_inputs())
    return [session.run(None, {name: image[None, None]})[0][0] for image in images]


def test_int8_engines_compute_what_the_files_say(starter: Bundle, engine_cache: Path, images: list[np.ndarray]) -> None:
    engines = OpenVinoEngines(starter, cache=engine_cache)
    wanted = {role: reference(starter.model(role), images) for role in MODEL_FILES}
    for number, image in enumerate(images):
        found = engines.infer(image)
        for role, told in (("classifier", found.class_logits), ("regressor", found.level), ("unseen", found.maps)):
            assert np.abs(told - wanted[role][number]).mean() < MEAN_DIFFERENCE, f"{role}, golden frame {number}"
