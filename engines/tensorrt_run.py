"""Plans in device memory, run by TensorRT: three networks side by side, each on its own stream."""

from __future__ import annotations

from dataclasses import dataclass

from engines.bundle import MODEL_FILES
from engines.errors import EngineBuildError
from engines.tensorrt import INPUT, Plans, check_engine, deserialise, load
from engines.tensorrt_api import ICudaEngine, IExecutionContext
from kernels import IMAGE_SIDE
from kernels.device import Device, Stream
from kernels.errors import DeviceFaultError


@dataclass(slots=True)
class _Network:
    """One network.

    Attributes:
        engine: held as long as its context.
        context: with its own working memory.
        output: the name of its output.
        stream: its own; None for the one that runs on the caller's.
        batch: images that the context is set up for; 0 before the first.
    """

    engine: ICudaEngine
    context: IExecutionContext
    output: str
    stream: Stream | None
    batch: int = 0


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
        trt = load(plans.key.flavour)
        self.identity, self.max_batch = plans.identity, plans.key.max_batch
        self._networks: dict[str, _Network] = {}
        for role in MODEL_FILES:
            engine = deserialise(trt, plans.files[role].read_bytes(), plans.files[role].name)
            _, output = check_engine(trt, engine, role, self.max_batch)
            context = engine.create_execution_context()
            if context is None:
                raise EngineBuildError(f"{role}: no room on {device.gpu.name} for the network's working memory")
            stream = device.stream() if self._networks else None
            self._networks[role] = _Network(engine, context, output, stream)

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
        context = network.context
        taken = True
        if network.batch != count:
            taken = context.set_input_shape(INPUT, (count, 1, IMAGE_SIDE, IMAGE_SIDE))
            network.batch = count
        taken = taken and context.set_tensor_address(INPUT, images)
        taken = taken and context.set_tensor_address(network.output, output)
        if not (taken and context.execute_async_v3(stream.handle)):
            raise DeviceFaultError(f"TensorRT did not run the {role} on {count} images")
