"""What this project uses of TensorRT 11, typed; `tensorrt` and `tensorrt_rtx` bring no types of their own.

A test compares every member here with the bindings themselves.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol


class Dims(Protocol):
    """A shape; -1 where it is dynamic."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> int: ...


class ITensor(Protocol):
    """An input or output of a network."""

    name: str
    shape: Dims
    dtype: object


class INetworkDefinition(Protocol):
    """A network that is being built."""

    num_inputs: int
    num_outputs: int

    def get_input(self, index: int) -> ITensor: ...
    def get_output(self, index: int) -> ITensor: ...


class IHostMemory(Protocol):
    """Bytes that TensorRT made; `bytes()` copies them."""

    nbytes: int

    def __buffer__(self, flags: int, /) -> memoryview: ...


class ITimingCache(Protocol):
    """What a builder measured."""

    def serialize(self) -> IHostMemory: ...


class IOptimizationProfile(Protocol):
    """The range of shapes that an engine is built for."""

    def set_shape(self, input: str, min: Sequence[int], opt: Sequence[int], max: Sequence[int]) -> None: ...


class IBuilderConfig(Protocol):
    """How a network is built."""

    progress_monitor: object
    num_compute_capabilities: int

    def add_optimization_profile(self, profile: IOptimizationProfile) -> int: ...
    def create_timing_cache(self, serialized_timing_cache: bytes) -> ITimingCache: ...
    def set_timing_cache(self, cache: ITimingCache, ignore_mismatch: bool) -> bool: ...


class IBuilderConfigRtx(IBuilderConfig, Protocol):
    """Only in `tensorrt_rtx`: the GPUs to build for."""

    def set_flag(self, flag: object) -> None: ...
    def set_compute_capability(self, compute_capability: object, index: int) -> bool: ...


class Builder(Protocol):
    """Makes plans of networks."""

    def create_network(self, flags: int = 0) -> INetworkDefinition: ...
    def create_builder_config(self) -> IBuilderConfig: ...
    def create_optimization_profile(self) -> IOptimizationProfile: ...
    def build_serialized_network(self, network: INetworkDefinition, config: IBuilderConfig) -> IHostMemory | None: ...


class ParserError(Protocol):
    """Why a model was not taken."""

    def desc(self) -> str: ...
    def node_name(self) -> str: ...


class OnnxParser(Protocol):
    """Reads a model into a network."""

    num_errors: int

    def parse(self, model: bytes) -> bool: ...
    def get_error(self, index: int) -> ParserError: ...


class IExecutionContext(Protocol):
    """An engine that runs, on one stream at a time."""

    def set_device_memory(self, memory: int, size: int) -> None: ...
    def set_input_shape(self, name: str, shape: Sequence[int]) -> bool: ...
    def set_tensor_address(self, name: str, memory: int) -> bool: ...
    def execute_async_v3(self, stream_handle: int) -> bool: ...


class IRuntimeConfig(Protocol):
    """How a context runs."""

    def set_execution_context_allocation_strategy(self, strategy: object) -> None: ...


class IRuntimeConfigRtx(IRuntimeConfig, Protocol):
    """Only in `tensorrt_rtx`: when its kernels are compiled."""

    dynamic_shapes_kernel_specialization_strategy: object


class ICudaEngine(Protocol):
    """A plan in device memory."""

    num_io_tensors: int
    device_memory_size_v2: int

    def get_tensor_name(self, index: int) -> str: ...
    def get_tensor_mode(self, name: str) -> object: ...
    def get_tensor_dtype(self, name: str) -> object: ...
    def get_tensor_shape(self, name: str) -> Dims: ...
    def get_tensor_profile_shape(self, name: str, profile_index: int) -> Sequence[Dims]: ...
    def create_runtime_config(self) -> IRuntimeConfig | None: ...
    def create_execution_context(self, runtime_config: IRuntimeConfig) -> IExecutionContext | None: ...


class Runtime(Protocol):
    """Reads plans."""

    def deserialize_cuda_engine(self, serialized_engine: bytes) -> ICudaEngine | None: ...


class DataType(Protocol):
    """Types of elements."""

    FLOAT: object


class TensorIOMode(Protocol):
    """Directions of tensors."""

    INPUT: object
    OUTPUT: object


class ExecutionContextAllocationStrategy(Protocol):
    """Who gives a context its working memory."""

    USER_MANAGED: object


class TensorRt(Protocol):
    """The module. ILogger and IProgressMonitor are classes to derive from."""

    __version__: str
    ILogger: Any
    IProgressMonitor: Any
    DataType: DataType
    TensorIOMode: TensorIOMode
    ExecutionContextAllocationStrategy: ExecutionContextAllocationStrategy

    def Builder(self, logger: object) -> Builder: ...  # noqa: N802
    def OnnxParser(self, network: INetworkDefinition, logger: object) -> OnnxParser: ...  # noqa: N802
    def Runtime(self, logger: object) -> Runtime: ...  # noqa: N802


class TensorRtRtx(TensorRt, Protocol):
    """The module `tensorrt_rtx`."""

    ComputeCapability: Any
    BuilderFlag: Any
    DynamicShapesKernelSpecializationStrategy: Any
