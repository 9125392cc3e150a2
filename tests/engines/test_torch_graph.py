"""Models run by torch, operator by operator, as ONNX Runtime runs them."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from onnx import helper

from engines import bundle
from engines.errors import EngineBuildError
from engines.half import to_half, without_quantisation
from engines.models import TwoMaps, build
from engines.torch_graph import OnnxModule
from engines.training.quantize import export
from tests.engines.test_half import STARTER, images, ranges, run, small


def by_torch(model: onnx.ModelProto, x: NDArray[np.float32]) -> NDArray[np.float32]:
    with torch.inference_mode():
        found: NDArray[np.float32] = OnnxModule(model, "model")(torch.from_numpy(x)).numpy()
    return found


@pytest.mark.parametrize("role", list(bundle.MODEL_FILES))
def test_the_shipped_models(role: str) -> None:
    single = without_quantisation(onnx.load(STARTER.model(role)))
    x = images()[:3]
    exact = run(single, x)
    assert by_torch(single, x) == pytest.approx(exact, abs=1e-4 * ranges(exact))
    half = by_torch(to_half(single), x)
    assert half.dtype == np.float32
    assert np.abs(half - exact).max() <= 0.01 * ranges(exact)


@pytest.mark.parametrize("role", list(bundle.MODEL_FILES))
@pytest.mark.parametrize("photographs", [False, True])
def test_everything_that_training_makes(role: str, photographs: bool, tmp_path: Path) -> None:
    model = build(role, photographs=photographs).eval()
    if isinstance(model.network, TwoMaps):
        model.network.familiarity.known.normal_(generator=torch.Generator().manual_seed(0))
        model.network.familiarity.fitted = True
    export(model, tmp_path / "model.onnx")
    x = images()[:2]
    made = onnx.load(tmp_path / "model.onnx")
    exact = run(made, x)
    assert by_torch(made, x) == pytest.approx(exact, abs=1e-3 * max(ranges(exact), 1e-3))


def test_an_operator_that_is_not_known_is_named() -> None:
    model = small(1.0)
    model.graph.node[1].op_type = "Gelu"
    with pytest.raises(EngineBuildError, match="unseen: torch_cuda knows no operator Gelu"):
        OnnxModule(model, "unseen")


def test_a_variant_that_is_not_known_is_named() -> None:
    model = small(1.0)
    model.graph.node[1].op_type = "AveragePool"
    model.graph.node[0].attribute.append(helper.make_attribute("strides", [1, 1]))
    model.graph.node[1].attribute.extend(
        [helper.make_attribute("kernel_shape", [2, 2]), helper.make_attribute("pads", [0, 0, 1, 1])]
    )
    with pytest.raises(EngineBuildError, match=r"pads \[0, 0, 1, 1\]: wanted the same on both sides"):
        by_torch(model, np.zeros((1, 1, 8, 8), np.float32))
