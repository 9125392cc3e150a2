"""The networks on a GPU where TensorRT is not installed: torch, on the stream that the inspector computes on."""

from __future__ import annotations

import hashlib
from typing import Any

import onnx
import torch

from engines.bundle import HASH_DIGITS, MODEL_FILES, Bundle
from engines.half import to_half, without_quantisation
from engines.openvino import OUTPUT_SHAPES
from engines.torch_graph import OnnxModule
from kernels import IMAGE_SIDE
from kernels.device import Device, Stream


class _DeviceArray:
    """Device memory as torch takes it over: float32, contiguous."""

    def __init__(self, address: int, shape: tuple[int, ...]) -> None:
        self.__cuda_array_interface__: dict[str, Any] = {
            "shape": shape, "typestr": "<f4", "data": (address, False), "version": 3, "strides": None,
        }  # fmt: skip


class TorchCudaEngines:
    """An engines.cuda_inspector.GpuEngines in half precision.

    Args:
        bundle: whose networks.
        device: where; torch uses the same primary context.
        max_batch: images at once, at most.

    Raises:
        EngineBuildError: a model has an operator that is not known.
    """

    def __init__(self, bundle: Bundle, device: Device, *, max_batch: int) -> None:
        self.max_batch = max_batch
        self._networks = {
            role: OnnxModule(to_half(without_quantisation(onnx.load(bundle.model(role)))), role).to("cuda").eval()
            for role in MODEL_FILES
        }
        key = f"{bundle.digest}|{torch.__version__}|{device.gpu.name}|{device.gpu.driver}|{max_batch}"
        self.identity = f"torch_cuda-fp16@{hashlib.sha256(key.encode()).hexdigest()[:HASH_DIGITS]}"

    @torch.inference_mode()
    def enqueue(self, images: int, count: int, *, logits: int, levels: int, maps: int, on: Stream) -> None:
        """As engines.cuda_inspector.GpuEngines."""
        stream = torch.cuda.ExternalStream(on.handle)  # type: ignore[no-untyped-call]
        with torch.cuda.stream(stream):
            given = torch.as_tensor(_DeviceArray(images, (count, 1, IMAGE_SIDE, IMAGE_SIDE)), device="cuda")
            given = given.contiguous(memory_format=torch.channels_last)
            for role, address in (("classifier", logits), ("regressor", levels), ("unseen", maps)):
                shape = (count, *OUTPUT_SHAPES[role][1:])
                torch.as_tensor(_DeviceArray(address, shape), device="cuda").copy_(self._networks[role](given))
