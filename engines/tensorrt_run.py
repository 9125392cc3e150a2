"""Plans in device memory, run by TensorRT: three networks side by side, each on its own stream."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import cast

from engines.bundle import MODEL_FILES
from engines.tensorrt import INPUT, Flavour, Plans, check_engine, deserialise, load
from engines.tensorrt_api import ICudaEngine, IExecutionContext, IRuntimeConfig, IRuntimeConfigRtx, TensorRtRtx
from kernels import IMAGE_SIDE
from kernels.device import Device, Memory, Stream
from kernels.errors import DeviceFaultError


@dataclass(frozen=True, slots=True)
class _Network:
    """One network.

    Attributes:
        engine: the plan in device memory.
        errors: what TensorRT said of it so far.
        output: the name of its output.
        stream: its own; None for the one that runs on the caller's.
        working: memory that its contexts share: they follow each other on one stream.
        contexts: one for each batch size and addresses, because a graph that was captured from a context goes on
            using it as it was then.
    """

    engine: ICudaEngine
    errors: list[str]
    output: str
    stream: Stream | None
    working: Memory
    contexts: dict[tuple[int, int, int], IExecutionContext] = field(default_factory=dict)

    @property
    def said(self) -> str:
        """The last that TensorRT said, for the end of a sentence; "" where it said nothing."""
        return f": {self.errors[-1]}" if self.errors else ""


class TensorRtEngines:
    """An engines.cuda_inspector.GpuEngines.

    Args:
        plans: built for this GPU, their hashes checked.
        device: where; its driver is initialised.

    Raises:
        EngineUnavailableError: TensorRT is not installed.
        EngineBuildError: a plan is not taken, or is not what it was built for.
    """

    def __init__(self, plans: Plans, device: Device) -> None:
        trt = self._trt = load(plans.key.flavour)
        self._flavour = plans.key.flavour
        self.identity, self.max_batch = plans.identity, plans.key.max_batch
        self._networks: dict[str, _Network] = {}
        for role in MODEL_FILES:
            engine, errors = deserialise(trt, plans.files[role].read_bytes(), plans.files[role].name)
            _, output = check_engine(trt, engine, role, self.max_batch)
            stream = device.stream() if self._networks else None
            working = device.allocate(max(1, engine.device_memory_size_v2))
            self._networks[role] = _Network(engine, errors, output, stream, working)

    def reset(self) -> None:
        """As engines.cuda_inspector.GpuEngines."""
        for network in self._networks.values():
            network.contexts.clear()

    def close(self) -> None:
        """As engines.cuda_inspector.GpuEngines."""
        self.reset()
        for network in self._networks.values():
            network.working.free()
        self._networks.clear()

    def enqueue(self, images: int, count: int, *, logits: int, levels: int, maps: int, on: Stream) -> None:
        """As engines.cuda_inspector.GpuEngines."""
        outputs = {"classifier": logits, "regressor": levels, "unseen": maps}
        begun = on.record()
        ended = []
        for role, network in self._networks.items():
            if network.stream is not None:
                network.stream.wait(begun)
            stream = network.stream or on
            self._run(role, network, images, count, outputs[role], stream)
            if network.stream is not None:
                ended.append(network.stream.record())
        for event in ended:
            on.wait(event)

    def _run(self, role: str, network: _Network, images: int, count: int, output: int, stream: Stream) -> None:
        key = (images, count, output)
        if key not in network.contexts:
            network.contexts[key] = self._set_up(role, network, images, count, output)
        if not network.contexts[key].execute_async_v3(stream.handle):
            raise DeviceFaultError(f"TensorRT did not run the {role} on {count} images{network.said}")

    def _how(self, engine: ICudaEngine) -> IRuntimeConfig:
        """How a context is made: with memory of ours; and for RTX cards with its kernels compiled before it first runs.

        Of its own accord that TensorRT begins with slower kernels and changes them under way: a graph would keep the slower
        ones, and what passed the golden gate would not be what runs.
        """
        config = engine.create_runtime_config()
        if config is None:
            raise DeviceFaultError("TensorRT gave no configuration for a context")
        config.set_execution_context_allocation_strategy(self._trt.ExecutionContextAllocationStrategy.USER_MANAGED)
        if self._flavour is Flavour.TENSORRT_RTX:
            strategies = cast("TensorRtRtx", self._trt).DynamicShapesKernelSpecializationStrategy
            cast("IRuntimeConfigRtx", config).dynamic_shapes_kernel_specialization_strategy = strategies.EAGER
        return config

    def _set_up(self, role: str, network: _Network, images: int, count: int, output: int) -> IExecutionContext:
        context = network.engine.create_execution_context(self._how(network.engine))
        if context is None:
            raise DeviceFaultError(f"TensorRT gave no context for the {role}{network.said}")
        context.set_device_memory(network.working.address, network.working.nbytes)
        taken = context.set_input_shape(INPUT, (count, 1, IMAGE_SIDE, IMAGE_SIDE))
        taken = taken and context.set_tensor_address(INPUT, images)
        taken = taken and context.set_tensor_address(network.output, output)
        if not taken:
            raise DeviceFaultError(
                f"TensorRT did not take the addresses of {count} images for the {role}{network.said}"
            )
        return context
