"""The three networks compiled for the CPU by OpenVINO: int8 by default, bf16 and f32 from the same files."""

from __future__ import annotations

import hashlib
import os
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from engines.bundle import HASH_DIGITS, MODEL_FILES, Bundle
from engines.choice import Precision
from engines.errors import EngineBuildError, EngineFaultError
from kernels import IMAGE_SIDE

# `import openvino` sends an event through this package; without it OpenVINO uses its own silent stand-in.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
import openvino as ov  # noqa: E402
import openvino.opset13 as opset  # noqa: E402

GRAPH = 2  # counts the ways in which this module has changed what OpenVINO is given: part of an engine's identity

OUTPUT_SHAPES = {"classifier": (1, 4), "regressor": (1, 1), "unseen": (1, 2, IMAGE_SIDE, IMAGE_SIDE)}


@dataclass(frozen=True, slots=True)
class Outputs:
    """What the three networks say of one image.

    Attributes:
        class_logits: (4,) float32.
        level: regressor's output, before clamping.
        maps: (2, 224, 224) float32 logits: background, labeled object.
    """

    class_logits: NDArray[np.float32]
    level: float
    maps: NDArray[np.float32]


class OpenVinoEngines:
    """Three compiled networks, run one after another on all cores; for one thread at a time.

    Args:
        bundle: where the ONNX files are.
        precision: int8 as quantised; bf16 and f32 drop the quantisation of activations.
        cache: folder for compiled blobs, or None.
        threads: cores used; 0 for all.

    Raises:
        EngineBuildError: a model cannot be compiled, or has other inputs or outputs than its role.
    """

    def __init__(
        self, bundle: Bundle, *, precision: Precision = Precision.INT8, cache: Path | None = None, threads: int = 0
    ) -> None:
        self.precision = precision
        core = ov.Core()
        config: dict[str, str | int] = {
            "PERFORMANCE_HINT": "LATENCY",
            # Left alone it silently picks bf16 where the processor has it.
            "INFERENCE_PRECISION_HINT": "bf16" if precision is Precision.BF16 else "f32",
            "INFERENCE_NUM_THREADS": threads or os.cpu_count() or 1,
        }
        if cache is not None:
            core.set_property({"CACHE_DIR": str(cache)})
        self._requests = {role: _compile(core, bundle, role, precision, config) for role in MODEL_FILES}
        device = (
            f"{core.get_property('CPU', 'FULL_DEVICE_NAME')}|{core.get_property('CPU', 'OPTIMIZATION_CAPABILITIES')}"
        )
        key = f"{bundle.digest}|{GRAPH}|{ov.get_version()}|{precision}|{device}"
        self.identity = f"openvino-{precision}@{hashlib.sha256(key.encode()).hexdigest()[:HASH_DIGITS]}"

    def infer(self, image: NDArray[np.float32]) -> Outputs:
        """Run the three networks on one image.

        Args:
            image: (224, 224) float32 in [0, 1].

        Raises:
            EngineFaultError: OpenVINO failed.
        """
        tensor = ov.Tensor(image.reshape(1, 1, IMAGE_SIDE, IMAGE_SIDE))
        try:
            found = {role: self._run(role, tensor) for role in MODEL_FILES}
        except RuntimeError as error:
            raise EngineFaultError(f"engine {self.identity}: {error}") from error
        return Outputs(found["classifier"][0], float(found["regressor"][0, 0]), found["unseen"][0])

    def _run(self, role: str, tensor: ov.Tensor) -> NDArray[np.float32]:
        request = self._requests[role]
        request.set_input_tensor(tensor)
        request.infer()
        out: NDArray[np.float32] = np.array(request.get_output_tensor().data, np.float32)
        return out


def _compile(
    core: ov.Core, bundle: Bundle, role: str, precision: Precision, config: dict[str, str | int]
) -> ov.InferRequest:
    path = bundle.model(role)
    try:
        model = core.read_model(path)
        if precision is Precision.INT8:
            join_activation_quantisation(model)
        else:
            drop_activation_quantisation(model)
        model.reshape({model.input(0): [1, 1, IMAGE_SIDE, IMAGE_SIDE]})
        shape = tuple(model.output(0).get_shape())
        if len(model.outputs) != 1 or shape != OUTPUT_SHAPES[role]:
            raise EngineBuildError(f"bundle {bundle.name}: {path.name} gives {shape}, wanted {OUTPUT_SHAPES[role]}")
        return core.compile_model(model, "CPU", config).create_infer_request()
    except (RuntimeError, ValueError) as error:
        raise EngineBuildError(f"bundle {bundle.name}: {path.name} does not compile: {error}") from error


def drop_activation_quantisation(model: ov.Model) -> None:
    """Take out every quantise-dequantise pair on activations, in place; weights stay as stored."""
    for pair in _quantised_activations(model):
        pair.dequantised.replace(pair.quantise.input_value(0))


def join_activation_quantisation(model: ov.Model) -> None:
    """Make every quantise-dequantise pair on activations one FakeQuantize from real values to real values, in place.

    It says the same. But of a pair behind a Concat, OpenVINO (2026.0 to 2026.4, on processors without AMX) rounds what
    goes into the Concat to whole numbers instead of to the pair's steps.
    """
    for pair in _quantised_activations(model):
        low, high = ((pair.quantise.input_value(i).get_node().get_data() - pair.zero) * pair.scale for i in (3, 4))
        joined = opset.fake_quantize(
            pair.quantise.input_value(0), pair.quantise.input_value(1), pair.quantise.input_value(2),
            opset.constant(low.astype(np.float32)), opset.constant(high.astype(np.float32)),
            pair.quantise.get_attributes()["levels"],
        )  # fmt: skip
        pair.dequantised.replace(joined.output(0))


@dataclass(frozen=True, slots=True)
class _Pair:
    """QuantizeLinear and DequantizeLinear of activations, as OpenVINO reads them: the first as FakeQuantize, the second
    as Convert, Subtract, Multiply.

    Attributes:
        quantise: the FakeQuantize; its output is whole numbers.
        zero, scale: real value = (whole number - zero) * scale.
        dequantised: the real values.
    """

    quantise: ov.Node
    zero: float
    scale: float
    dequantised: ov.Output


def _quantised_activations(model: ov.Model) -> list[_Pair]:
    pairs = []
    for quantise in [op for op in model.get_ops() if op.get_type_name() == "FakeQuantize"]:
        node, zero = quantise, 0.0
        while node.get_type_name() != "Multiply":
            [user] = node.output(0).get_target_inputs()
            node = user.get_node()
            if node.get_type_name() == "Subtract":
                zero = _constant(node.input_value(1))
        pairs.append(_Pair(quantise, zero, _constant(node.input_value(1)), node.output(0)))
    return pairs


def _constant(output: ov.Output) -> float:
    """The one number of a constant, whatever type it is stored as."""
    node = output.get_node()
    while node.get_type_name() == "Convert":
        node = node.input_value(0).get_node()
    return float(node.get_data().item())


def outputs_of(path: Path, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """What an ONNX file gives for (n, 224, 224) uint8 images (image times 255), one by one, as stored."""
    core = ov.Core()
    model = core.read_model(path)
    join_activation_quantisation(model)
    model.reshape({model.input(0): [1, 1, IMAGE_SIDE, IMAGE_SIDE]})
    request = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"}).create_infer_request()
    parts = []
    for image in images:
        request.infer({0: (image[None, None] / np.float32(255)).astype(np.float32)})
        parts.append(np.array(request.get_output_tensor().data[0], np.float32))
    return np.stack(parts)
