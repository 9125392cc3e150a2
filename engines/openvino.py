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
        key = f"{bundle.digest}|{ov.get_version()}|{precision}|{device}"
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
        if precision is not Precision.INT8:
            drop_activation_quantisation(model)
        model.reshape({model.input(0): [1, 1, IMAGE_SIDE, IMAGE_SIDE]})
        shape = tuple(model.output(0).get_shape())
        if len(model.outputs) != 1 or shape != OUTPUT_SHAPES[role]:
            raise EngineBuildError(f"bundle {bundle.name}: {path.name} gives {shape}, wanted {OUTPUT_SHAPES[role]}")
        return core.compile_model(model, "CPU", config).create_infer_request()
    except (RuntimeError, ValueError) as error:
        raise EngineBuildError(f"bundle {bundle.name}: {path.name} does not compile: {error}") from error


def drop_activation_quantisation(model: ov.Model) -> None:
    """Take out every quantise-dequantise pair on activations, in place; weights stay as stored.

    OpenVINO reads QuantizeLinear as FakeQuantize and DequantizeLinear as Convert, Subtract, Multiply.
    """
    for quantize in [op for op in model.get_ops() if op.get_type_name() == "FakeQuantize"]:
        node = quantize
        while node.get_type_name() != "Multiply":
            [user] = node.output(0).get_target_inputs()
            node = user.get_node()
        node.output(0).replace(quantize.input_value(0))


def outputs_of(path: Path, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """What an ONNX file gives for (n, 224, 224) uint8 images (image times 255), one by one, as stored."""
    core = ov.Core()
    model = core.read_model(path)
    model.reshape({model.input(0): [1, 1, IMAGE_SIDE, IMAGE_SIDE]})
    request = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"}).create_infer_request()
    parts = []
    for image in images:
        request.infer({0: (image[None, None] / np.float32(255)).astype(np.float32)})
        parts.append(np.array(request.get_output_tensor().data[0], np.float32))
    return np.stack(parts)
