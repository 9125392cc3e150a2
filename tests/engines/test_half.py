"""Models for a GPU: the same answers without quantisation and in half precision."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from engines import bundle
from engines.half import to_half, without_quantisation
from engines.models import UNet, build
from engines.openvino import outputs_of
from engines.training.quantize import export
from kernels import Stretcher

STARTER = bundle.load(bundle.SHIPPED / "starter")


def images() -> NDArray[np.float32]:
    """(n, 1, 224, 224): the golden frames, stretched."""
    golden = STARTER.golden()
    out = np.empty((len(golden), 1, 224, 224), np.float32)
    for image, expected in zip(out, golden, strict=True):
        Stretcher(STARTER.stretch).stretch(expected.frame, image[0])
    return out


def run(model: onnx.ModelProto, x: NDArray[np.float32]) -> NDArray[np.float32]:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    found: NDArray[np.float32] = session.run(None, {"image": x})[0]
    return found


def ranges(outputs: NDArray[np.float32]) -> float:
    return float(outputs.max() - outputs.min())


@pytest.mark.parametrize("role", list(bundle.MODEL_FILES))
def test_the_shipped_models(role: str) -> None:
    stored = onnx.load(STARTER.model(role))
    single = without_quantisation(stored)
    half = to_half(single)
    for model in (single, half):
        onnx.checker.check_model(model, full_check=True)
        assert not {n.op_type for n in model.graph.node} & {"QuantizeLinear", "DequantizeLinear"}
    by_precision = {t.name: t.data_type for t in half.graph.initializer}
    convolutions = [n for n in half.graph.node if n.op_type == "Conv"]
    assert all(by_precision[name] == TensorProto.FLOAT16 for n in convolutions for name in n.input[1:])
    x = images()
    exact, rounded = run(single, x), run(half, x)
    assert rounded.dtype == np.float32
    # Half precision keeps 11 bits: errors of many layers stay under a hundredth of what the outputs range over.
    assert np.abs(rounded - exact).max() <= 0.01 * ranges(exact)


@pytest.mark.parametrize("role", list(bundle.MODEL_FILES))
def test_without_quantisation_it_is_what_openvino_runs_in_f32(role: str, tmp_path: Path) -> None:
    single = without_quantisation(onnx.load(STARTER.model(role)))
    onnx.save(single, tmp_path / "model.onnx")
    shown = np.rint(images()[:, 0] * 255).astype(np.uint8)
    exact = run(single, (shown[:, None] / np.float32(255)).astype(np.float32))
    assert outputs_of(tmp_path / "model.onnx", shown) == pytest.approx(exact, abs=1e-3 * ranges(exact))


def test_what_tells_the_familiar_stays_in_single(tmp_path: Path) -> None:
    model = build("unseen").eval()
    assert isinstance(model.network, UNet)
    rng = np.random.default_rng(0)
    known = model.network.familiarity
    known.known.copy_(torch.from_numpy(rng.normal(0, 1, known.known.shape)))
    known.start.fill_(3.0)
    known.fitted = True
    export(model, tmp_path / "unseen.onnx")
    single = onnx.load(tmp_path / "unseen.onnx")
    half = to_half(single)
    onnx.checker.check_model(half, full_check=True)
    [search] = [n for n in half.graph.node if n.op_type == "TopK"]
    before = {o for n in half.graph.node if n.op_type == "Cast" for o in n.output}
    leading = {search.input[0]}
    for node in reversed(half.graph.node):
        if not leading.isdisjoint(node.output):
            leading.update(node.input)
    assert len(leading) > 20
    assert leading.isdisjoint(before)
    x = images()
    exact, rounded = run(single, x), run(half, x)
    assert ranges(exact) > 0.1
    assert np.abs(rounded - exact).max() <= 0.01 * ranges(exact)


def small(weight: float) -> onnx.ModelProto:
    """image -> Conv -> Relu -> maps, with one weight."""
    nodes = [
        helper.make_node("Conv", ["image", "w"], ["c"], name="conv"),
        helper.make_node("Relu", ["c"], ["maps"], name="relu"),
    ]
    value = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["n", 1, 8, 8]) for n in ("image", "maps")]
    weights = numpy_helper.from_array(np.full((1, 1, 1, 1), weight, np.float32), "w")
    graph = helper.make_graph(nodes, "small", value[:1], value[1:], [weights])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def test_an_output_in_half_is_given_in_single() -> None:
    x = np.random.default_rng(0).normal(0, 1, (2, 1, 8, 8)).astype(np.float32)
    found = run(to_half(small(0.5)), x)
    assert found.dtype == np.float32
    assert found == pytest.approx(np.maximum(x * 0.5, 0), abs=1e-3)


def test_a_weight_beyond_half_precision_is_named() -> None:
    with pytest.raises(ValueError, match=r"w: 7e\+04 is beyond half precision"):
        to_half(small(70_000.0))


def test_quantisation_that_is_not_a_pair_is_named() -> None:
    model = small(1.0)
    model.graph.node.insert(0, helper.make_node("DequantizeLinear", ["image", "w"], ["d"], name="odd"))
    with pytest.raises(ValueError, match="odd: reads image, which is neither stored nor quantised"):
        without_quantisation(model)
