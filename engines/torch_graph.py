"""An ONNX file as a torch module, for GPUs where torch is installed and TensorRT is not: the operators our models use."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn
from torch.nn import functional

from engines.errors import EngineBuildError

Attributes = dict[str, Any]
Operator = Callable[[list[Any], Attributes], Tensor]
_DTYPES = {TensorProto.FLOAT: torch.float32, TensorProto.FLOAT16: torch.float16}


def _padding(a: Attributes) -> list[int]:
    """ONNX's begins and ends, which must be alike -> torch's."""
    pads = a.get("pads", [0, 0, 0, 0])
    if pads[:2] != pads[2:] or a.get("auto_pad", b"NOTSET") != b"NOTSET":
        raise EngineBuildError(f"pads {pads}: wanted the same on both sides")
    return list(pads[:2])


def _conv(x: list[Any], a: Attributes) -> Tensor:
    bias = x[2] if len(x) > 2 else None
    top, left, bottom, right = a.get("pads", [0, 0, 0, 0])
    image, padding = x[0], [top, left]
    if (top, left) != (bottom, right):
        image, padding = functional.pad(image, [left, right, top, bottom]), [0, 0]
    return functional.conv2d(
        image, x[1], bias, a.get("strides", [1, 1]), padding, a.get("dilations", [1, 1]), a.get("group", 1)
    )


def _conv_transpose(x: list[Any], a: Attributes) -> Tensor:
    extra = a.get("output_padding", [0, 0])
    return functional.conv_transpose2d(
        x[0], x[1], x[2], a.get("strides", [1, 1]), _padding(a), extra, a.get("group", 1)
    )


def _average_pool(x: list[Any], a: Attributes) -> Tensor:
    ceil, count = bool(a.get("ceil_mode", 0)), bool(a.get("count_include_pad", 0))
    return functional.avg_pool2d(x[0], a["kernel_shape"], a.get("strides", [1, 1]), _padding(a), ceil, count)


def _max_pool(x: list[Any], a: Attributes) -> Tensor:
    ceil = bool(a.get("ceil_mode", 0))
    return functional.max_pool2d(
        x[0], a["kernel_shape"], a.get("strides", [1, 1]), _padding(a), a.get("dilations", 1), ceil
    )


def _plain(operation: Callable[..., Tensor]) -> Operator:
    """An operator without attributes."""
    return lambda x, _: operation(*x)


def _axes(x: list[Any]) -> list[int] | None:
    return [int(v) for v in x[1]] if len(x) > 1 else None


def _pad(x: list[Any], a: Attributes) -> Tensor:
    pads = [int(v) for v in x[1]]
    n = len(pads) // 2
    if a.get("mode", b"constant") != b"reflect" or any(pads[: n - 2]) or any(pads[n : 2 * n - 2]):
        raise EngineBuildError(f"Pad {a} by {pads}: only reflections of the two last axes are known")
    return functional.pad(x[0], [pads[n - 1], pads[-1], pads[n - 2], pads[-2]], "reflect")


def _resize(x: list[Any], a: Attributes) -> Tensor:
    if (a["mode"], a["coordinate_transformation_mode"], a.get("antialias", 0)) != (b"linear", b"half_pixel", 0):
        raise EngineBuildError(f"Resize {a}: only linear, half_pixel, without antialiasing is known")
    scales = [float(v) for v in x[2]]
    return functional.interpolate(x[0], scale_factor=scales[2:], mode="bilinear", align_corners=False)


def _slice(x: list[Any], _: Attributes) -> Tensor:
    starts, ends, axes, steps = ([int(v) for v in part] for part in x[1:5])
    where = [slice(None)] * x[0].ndim
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        where[axis] = slice(start, end, step)
    taken: Tensor = x[0][tuple(where)]
    return taken


def _gemm(x: list[Any], a: Attributes) -> Tensor:
    if (a.get("alpha", 1.0), a.get("beta", 1.0), a.get("transA", 0), a.get("transB", 0)) != (1.0, 1.0, 0, 1):
        raise EngineBuildError(f"Gemm {a}: only x B' + c is known")
    return functional.linear(x[0], x[1], x[2] if len(x) > 2 else None)


def _top_k(x: list[Any], a: Attributes) -> Tensor:
    return torch.topk(x[0], int(x[1][0]), dim=a["axis"], largest=bool(a["largest"])).values


OPERATORS: dict[str, Operator] = {
    "Add": _plain(torch.add),
    "AveragePool": _average_pool,
    "Cast": lambda x, a: x[0].to(_DTYPES[a["to"]]),
    "Clip": _plain(torch.clamp),
    "Concat": lambda x, a: torch.cat(x, a["axis"]),
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "Div": _plain(torch.div),
    "Exp": _plain(torch.exp),
    "Gemm": _gemm,
    "Log": _plain(torch.log),
    "MatMul": _plain(torch.matmul),
    "MaxPool": _max_pool,
    "Mul": _plain(torch.mul),
    "Neg": _plain(torch.neg),
    "Pad": _pad,
    "Pow": _plain(torch.pow),
    "ReduceMax": lambda x, a: x[0].amax(_axes(x), bool(a.get("keepdims", 1))),
    "ReduceMean": lambda x, a: x[0].mean(_axes(x), bool(a.get("keepdims", 1))),
    "ReduceSum": lambda x, a: x[0].sum(_axes(x), bool(a.get("keepdims", 1))),
    "Relu": _plain(torch.relu),
    "Reshape": _plain(lambda x, shape: x.reshape([int(v) for v in shape])),
    "Resize": _resize,
    "Slice": _slice,
    "Sqrt": _plain(torch.sqrt),
    "Sub": _plain(torch.sub),
    "Tanh": _plain(torch.tanh),
    "TopK": _top_k,
    "Transpose": lambda x, a: x[0].permute(a["perm"]),
}


class OnnxModule(nn.Module):
    """A model with one input and one output, run operator by operator.

    Args:
        model: of OPERATORS alone, without quantisation.
        role: for errors.

    Raises:
        EngineBuildError: it has other operators.
    """

    def __init__(self, model: onnx.ModelProto, role: str) -> None:
        super().__init__()
        graph = model.graph
        if strangers := sorted({n.op_type for n in graph.node} - OPERATORS.keys()):
            raise EngineBuildError(f"{role}: torch_cuda knows no operator {', '.join(strangers)}")
        self._input, self._output = graph.input[0].name, graph.output[0].name
        self._nodes = [
            (OPERATORS[n.op_type], list(n.input), n.output[0],
             {a.name: helper.get_attribute_value(a) for a in n.attribute})
            for n in graph.node
        ]  # fmt: skip
        self._buffer_of: dict[str, str] = {}
        self._numbers: dict[str, Any] = {}  # shapes, axes and scales: they stay on the host
        for i, tensor in enumerate(graph.initializer):
            values = numpy_helper.to_array(tensor)
            if values.dtype.kind == "f" and not self._is_setting(graph, tensor.name):
                self._buffer_of[tensor.name] = f"stored_{i}"
                self.register_buffer(f"stored_{i}", torch.from_numpy(np.array(values)))
            else:
                self._numbers[tensor.name] = values
        last_reader = {name: k for k, (_, inputs, _, _) in enumerate(self._nodes) for name in inputs}
        self._done_after = [
            [n for n in inputs if last_reader[n] == k] for k, (_, inputs, _, _) in enumerate(self._nodes)
        ]

    @staticmethod
    def _is_setting(graph: onnx.GraphProto, name: str) -> bool:
        return any(n.op_type == "Resize" and name in list(n.input)[1:] for n in graph.node)

    def forward(self, image: Tensor) -> Tensor:
        """(n, 1, 224, 224) float32 -> the output, float32."""
        values: dict[str, Any] = {self._input: image, "": None}
        for (operator, inputs, output, attributes), done in zip(self._nodes, self._done_after, strict=True):
            values[output] = operator([self._value(name, values) for name in inputs], attributes)
            for name in done:
                if name not in ("", self._output):
                    values.pop(name, None)
        out: Tensor = values[self._output]
        return out

    def _value(self, name: str, values: dict[str, Any]) -> Any:
        if name in self._buffer_of:
            return getattr(self, self._buffer_of[name])
        return self._numbers[name] if name in self._numbers else values[name]
