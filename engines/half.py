"""A bundle's ONNX for a GPU: quantisation taken out, and weights and arithmetic in half precision where that is safe."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

# Arithmetic that half precision bears: products are summed in single by the hardware. A network's first and last steps
# stay in single precision, and so does all that leads to a search for nearest neighbours, whose distances are small
# differences of large sums.
HALF_OPERATORS = frozenset({"Conv", "ConvTranspose", "Relu", "Add", "Concat", "MaxPool", "AveragePool", "Clip"})
NEIGHBOUR_SEARCH = "TopK"


def without_quantisation(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy with weights folded to single precision and every quantise-dequantise pair on activations taken out.

    Args:
        model: as `umbra bundle pack` writes it: DequantizeLinear of stored int8 weights, QuantizeLinear and
            DequantizeLinear around activations.

    Raises:
        ValueError: a DequantizeLinear reads neither a stored tensor nor a QuantizeLinear.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    graph = copy.graph
    stored = {t.name: t for t in graph.initializer}
    made_by = {out: node for node in graph.node for out in node.output}
    same_as: dict[str, str] = {}
    folded: list[TensorProto] = []
    for node in graph.node:
        if node.op_type != "DequantizeLinear":
            continue
        source, out = node.input[0], node.output[0]
        if source in stored:
            folded.append(numpy_helper.from_array(_dequantised(node, stored), out))
        elif source in made_by and made_by[source].op_type == "QuantizeLinear":
            same_as[out] = made_by[source].input[0]
        else:
            raise ValueError(f"{node.name}: reads {source}, which is neither stored nor quantised here")
    kept = [node for node in graph.node if node.op_type not in ("QuantizeLinear", "DequantizeLinear")]
    for node in kept:
        for i, name in enumerate(node.input):
            node.input[i] = _followed(name, same_as)
    outputs = {_followed(o.name, same_as) for o in graph.output}
    if outputs != {o.name for o in graph.output}:
        raise ValueError(f"an output is quantised: {sorted(outputs)}")
    _replace(graph, kept, [*graph.initializer, *folded])
    return copy


def _followed(name: str, same_as: dict[str, str]) -> str:
    while name in same_as:
        name = same_as[name]
    return name


def _dequantised(node: onnx.NodeProto, stored: dict[str, TensorProto]) -> NDArray[np.float32]:
    values, scale = (numpy_helper.to_array(stored[name]) for name in node.input[:2])
    zero = (
        numpy_helper.to_array(stored[node.input[2]]) if len(node.input) > 2 and node.input[2] else np.zeros_like(scale)
    )
    axis = next((a.i for a in node.attribute if a.name == "axis"), 1)
    if scale.ndim:
        shape = [1] * values.ndim
        shape[axis] = -1
        scale, zero = scale.reshape(shape), zero.reshape(shape)
    return np.asarray((values.astype(np.float32) - zero.astype(np.float32)) * scale, np.float32)


def _replace(graph: onnx.GraphProto, nodes: Iterable[onnx.NodeProto], tensors: Iterable[TensorProto]) -> None:
    """Put nodes and the tensors that they read in place of a graph's own."""
    nodes = [onnx.NodeProto.FromString(n.SerializeToString()) for n in nodes]
    read = {name for node in nodes for name in node.input}
    tensors = [onnx.TensorProto.FromString(t.SerializeToString()) for t in tensors if t.name in read]
    del graph.node[:], graph.initializer[:], graph.value_info[:]
    graph.node.extend(nodes)
    graph.initializer.extend(tensors)


def to_half(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy whose HALF_OPERATORS compute in half precision; inputs, outputs and all other arithmetic stay single.

    Args:
        model: without quantisation; opset 20 or newer, float32 in and out.

    Raises:
        ValueError: a weight is beyond half precision's range.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    graph = copy.graph
    stored = {t.name: t for t in graph.initializer}
    single = _leading_to(graph, NEIGHBOUR_SEARCH)
    in_half = [node.op_type in HALF_OPERATORS and single.isdisjoint(node.output) for node in graph.node]
    half = {out for node, yes in zip(graph.node, in_half, strict=True) if yes for out in node.output}
    casts: dict[tuple[str, int], str] = {}
    nodes: list[onnx.NodeProto] = []
    tensors = {t.name: t for t in graph.initializer}

    def as_half(name: str) -> str:
        if name in half:
            return name
        if name not in stored:
            return _cast(name, TensorProto.FLOAT16, casts, nodes)
        if stored[name].data_type != TensorProto.FLOAT:
            return name
        values = numpy_helper.to_array(stored[name])
        if np.abs(values).max(initial=0) > np.finfo(np.float16).max:
            raise ValueError(f"{name}: {np.abs(values).max():.3g} is beyond half precision")
        tensors[f"{name}/half"] = numpy_helper.from_array(values.astype(np.float16), f"{name}/half")
        return f"{name}/half"

    for node, yes in zip(graph.node, in_half, strict=True):
        for i, name in enumerate(node.input):
            if name and yes:
                node.input[i] = as_half(name)
            elif name in half:
                node.input[i] = _cast(name, TensorProto.FLOAT, casts, nodes)
        nodes.append(node)
    for output in graph.output:
        if output.name in half:
            _rename(nodes, output.name, f"{output.name}/half")
            nodes.append(helper.make_node("Cast", [f"{output.name}/half"], [output.name], to=TensorProto.FLOAT))
    _replace(graph, nodes, tensors.values())
    return copy


def _leading_to(graph: onnx.GraphProto, operator: str) -> set[str]:
    """Every tensor that goes into such an operator, directly or through others."""
    found = {name for node in graph.node if node.op_type == operator for name in node.input}
    for node in reversed(graph.node):  # a node stands after those that it reads
        if not found.isdisjoint(node.output):
            found.update(node.input)
    return found


def _cast(name: str, to: int, casts: dict[tuple[str, int], str], nodes: list[onnx.NodeProto]) -> str:
    """A tensor in another precision, cast once."""
    if (name, to) not in casts:
        casts[name, to] = f"{name}/{'half' if to == TensorProto.FLOAT16 else 'single'}"
        nodes.append(helper.make_node("Cast", [name], [casts[name, to]], to=to))
    return casts[name, to]


def _rename(nodes: list[onnx.NodeProto], old: str, new: str) -> None:
    for node in nodes:
        node.input[:] = [new if name == old else name for name in node.input]
        node.output[:] = [new if name == old else name for name in node.output]
