"""The networks on a GPU where TensorRT is not installed: torch, on the stream that the inspector computes on."""

from __future__ import annotations

import hashlib
from functools import cache
from typing import Any

import onnx
import torch
from torch import Tensor

from engines.bundle import HASH_DIGITS, MODEL_FILES, Bundle
from engines.errors import EngineBuildError
from engines.half import to_half, without_quantisation
from engines.openvino import OUTPUT_SHAPES
from engines.torch_graph import OnnxModule
from kernels import IMAGE_SIDE
from kernels.device import Device, Stream
from kernels.errors import DeviceFaultError


@cache
def _side_stream() -> torch.cuda.Stream:
    """One for all that is tried before it is captured."""
    return torch.cuda.Stream()  # type: ignore[no-untyped-call]


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
        EngineBuildError: a model has an operator that is not known, or torch has no CUDA or no room.
    """

    def __init__(self, bundle: Bundle, device: Device, *, max_batch: int) -> None:
        self.max_batch = max_batch
        self._graphs: dict[tuple[int, int], tuple[torch.cuda.CUDAGraph, dict[str, Tensor]]] = {}
        self._networks: dict[str, OnnxModule] = {}
        try:
            for role in MODEL_FILES:
                network = OnnxModule(to_half(without_quantisation(onnx.load(bundle.model(role)))), role)
                network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # as half convolutions are fast
                self._networks[role] = network.to("cuda").eval()
        except (AssertionError, RuntimeError, ValueError) as error:  # torch without CUDA asserts
            raise EngineBuildError(f"torch_cuda: {error}") from error
        key = f"{bundle.digest}|{torch.__version__}|{device.gpu.name}|{device.gpu.driver}|{max_batch}"
        self.identity = f"torch_cuda-fp16@{hashlib.sha256(key.encode()).hexdigest()[:HASH_DIGITS]}"

    def reset(self) -> None:
        """As engines.cuda_inspector.GpuEngines."""
        self._graphs.clear()

    def close(self) -> None:
        """As engines.cuda_inspector.GpuEngines."""
        self.reset()
        self._networks.clear()
        torch.cuda.empty_cache()

    @torch.inference_mode()
    def enqueue(self, images: int, count: int, *, logits: int, levels: int, maps: int, on: Stream) -> None:
        """As engines.cuda_inspector.GpuEngines."""
        stream = torch.cuda.ExternalStream(on.handle)  # type: ignore[no-untyped-call]
        try:
            with torch.cuda.stream(stream):
                if (images, count) not in self._graphs:
                    self._graphs[images, count] = self._captured(images, count)
                graph, found = self._graphs[images, count]
                graph.replay()
                for role, address in (("classifier", logits), ("regressor", levels), ("unseen", maps)):
                    shape = (count, *OUTPUT_SHAPES[role][1:])
                    torch.as_tensor(_DeviceArray(address, shape), device="cuda").copy_(found[role])
        except RuntimeError as error:
            raise DeviceFaultError(f"torch: {error}") from error

    def _captured(self, images: int, count: int) -> tuple[torch.cuda.CUDAGraph, dict[str, Tensor]]:
        """The networks on `count` images at an address, as one graph in a pool of torch's own, and their outputs."""
        given = torch.as_tensor(_DeviceArray(images, (count, 1, IMAGE_SIDE, IMAGE_SIDE)), device="cuda")
        here = torch.cuda.current_stream()
        side = _side_stream()
        side.wait_stream(here)
        with torch.cuda.stream(side):  # as they are first: libraries choose their ways
            for _ in range(3):
                self._run(given)
        here.wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        # torch keeps a workspace of cuBLAS for every stream that it ever ran on: none may be of another graph's memory, which
        # goes with that graph, and none is given back by itself.
        torch._C._cuda_clearCublasWorkspaces()
        with torch.cuda.graph(graph):
            found = self._run(given)
        torch._C._cuda_clearCublasWorkspaces()
        return graph, found

    def _run(self, given: Tensor) -> dict[str, Tensor]:
        images = given.contiguous(memory_format=torch.channels_last)
        return {role: network(images).contiguous() for role, network in self._networks.items()}
