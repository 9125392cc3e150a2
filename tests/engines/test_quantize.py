"""Quantisation: what is rounded, what equalising keeps, how ranges are found."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper
from torch import nn

from engines.bundle import find, load
from engines.models import build, resnet101_d
from engines.models.resnet_d import Bottleneck, ResNetD
from engines.training.equalize import equalize
from engines.training.pack import choose_spec, choose_threshold
from engines.training.ranges import BINS, Magnitudes, magnitudes

RNG = np.random.default_rng(5)


@pytest.fixture
def images() -> NDArray[np.uint8]:
    return RNG.integers(80, 180, (6, 224, 224)).astype(np.uint8)


def _settle(model: nn.Module) -> None:
    """Give every norm statistics, scale and shift of its own, some channels a hundred times larger than others."""
    for norm in (m for m in model.modules() if isinstance(m, nn.BatchNorm2d)):
        norm.weight.data = torch.from_numpy(10 ** RNG.uniform(-2, 0, norm.num_features)).float()
        norm.bias.data = torch.from_numpy(RNG.normal(0, 0.1, norm.num_features)).float()


@pytest.mark.parametrize("role", ["classifier", "regressor"])
def test_equalising_changes_no_output_and_evens_the_channels(role: str, images: NDArray[np.uint8]) -> None:
    model = build(role)
    if role == "classifier":
        model.network = ResNetD(Bottleneck, (1, 2, 1, 1), outputs=4)
    _settle(model)
    model.eval()
    x = torch.from_numpy(images[:2, None]).float() / 255
    ranges: list[torch.Tensor] = []

    def look(_layer: nn.Module, arguments: tuple[torch.Tensor, ...]) -> None:
        ranges.append(arguments[0].abs().amax((0, 2, 3)))

    network = model.network
    assert isinstance(network, ResNetD)
    network.get_submodule("layer3.0.conv2").register_forward_pre_hook(look)
    network.get_submodule("layer2.1.conv1").register_forward_pre_hook(look)
    with torch.no_grad():
        before = model(x)
        equalize(model, images)
        ranges.clear()
        after = model(x)
    torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-4)
    for found in ranges:
        alive = found[found > 0]
        assert alive.max() / alive.median() < 3


def test_only_a_resnet_is_equalised(images: NDArray[np.uint8]) -> None:
    with pytest.raises(TypeError, match="UNet"):
        equalize(build("unseen"), images)


def test_every_block_of_resnet101_is_equalised() -> None:
    from engines.training.equalize import _streams

    network = resnet101_d(4)
    readers = [layer for stream in _streams(network) for layer in stream.readers]
    layers = [m for m in network.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    assert set(readers) == set(layers) - {network.conv1[0]}
    writers = [norm for stream in _streams(network) for norm in stream.writers]
    assert set(writers) == {m for m in network.modules() if isinstance(m, nn.BatchNorm2d)}
    assert len(writers) == len(set(writers))


def test_the_least_square_range_clips_a_lone_outlier_but_not_a_crowd() -> None:
    crowd = np.zeros(BINS, np.int64)
    crowd[: BINS // 10] = 1000
    lone = crowd.copy()
    lone[-1] = 1
    assert Magnitudes(10.0, lone).least_square_error() < 4
    crowd[-1] = 100_000
    assert Magnitudes(10.0, crowd).least_square_error() > 9.5


def test_quantiles_of_magnitudes() -> None:
    counts = np.ones(BINS, np.int64)
    assert Magnitudes(8.0, counts).quantile(0.5) == pytest.approx(4, rel=1e-3)
    assert Magnitudes(8.0, counts).quantile(1.0) == 8


def test_magnitudes_are_those_of_what_convolutions_read(tmp_path: Path) -> None:
    """image -> x 3 -> Conv: the convolution reads up to 3. What filters of constants read is not asked."""
    weight, fixed = (numpy_helper.from_array(np.ones((1, 1, 1, 1), np.float32), n) for n in ("conv.weight", "constant"))
    three = numpy_helper.from_array(np.float32(3), "three")
    nodes = [
        onnx.helper.make_node(kind, inputs, outputs)
        for kind, inputs, outputs in (
            ("Mul", ["image", "three"], ["scaled"]),
            ("Conv", ["scaled", "conv.weight"], ["y"]),
            ("Relu", ["image"], ["positive"]),
            ("Conv", ["positive", "constant"], ["z"]),
        )
    ]
    graph = onnx.helper.make_graph(
        nodes, "g", [onnx.helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 1, 224, 224])],
        [onnx.helper.make_tensor_value_info("y", TensorProto.FLOAT, None)], [weight, fixed, three],
    )  # fmt: skip
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=10)
    onnx.save(model, tmp_path / "m.onnx")
    images = np.full((2, 224, 224), 51, np.uint8)
    images[1] = 255
    found = magnitudes(tmp_path / "m.onnx", images)
    assert list(found) == ["scaled"]
    assert found["scaled"].largest == pytest.approx(3)
    assert found["scaled"].counts.sum() == images.size
    assert found["scaled"].quantile(0.4) == pytest.approx(0.6, abs=3 / BINS)


@pytest.mark.parametrize("role", ["classifier", "regressor", "unseen"])
def test_shipped_networks_round_symmetrically_and_nothing_that_no_convolution_reads(role: str) -> None:
    graph = onnx.load(load(find("starter")).model(role)).graph
    stored = {i.name: numpy_helper.to_array(i) for i in graph.initializer}
    readers: dict[str, set[str]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, set()).add(node.op_type)
    quantizers = [node for node in graph.node if node.op_type == "QuantizeLinear"]
    assert quantizers
    for node in graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            zero = stored[node.input[2]]
            assert zero.dtype == np.int8
            assert not zero.any()
        if node.op_type == "DequantizeLinear":
            assert readers[node.output[0]] & {"Conv", "ConvTranspose"}, node.name


def test_one_clean_frame_in_a_hundred_shows_a_region_at_the_threshold() -> None:
    """Of 200 maps five peak at 0.9, 0.8, ... 0.5 on 8x8 pixels: two may, the third may not."""
    maps = np.zeros((200, 32, 32), np.float32)
    for number, peak in enumerate((0.9, 0.8, 0.7, 0.6, 0.5)):
        maps[number, 8:16, 8:16] = peak
    t = choose_threshold(maps)
    assert t * 256 % 4 == 0
    assert 0.7 - 4 / 256 < t < 0.72
    assert choose_threshold(maps[5:]) == 64 / 256
    assert choose_threshold(np.ones((3, 32, 32), np.float32)) == 252 / 256


def test_spec_lies_in_the_gap() -> None:
    """Equal F1 from 0.1 to 0.6: the middle, not an edge."""
    defective = np.array([False] * 50 + [True] * 50)
    p_ng = np.array([0.1] * 50 + [0.6] * 50)
    assert choose_spec(p_ng, np.full(100, 10.0), defective) == pytest.approx(0.35, abs=0.05)
