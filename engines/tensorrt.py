"""ONNX -> TensorRT plans for one GPU, kept under the key of everything that they depend on (docs/gpu.md)."""

from __future__ import annotations

import fcntl
import hashlib
import importlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, cast

from engines.bundle import HASH_DIGITS, MODEL_FILES, Bundle, file_sha256
from engines.choice import Precision
from engines.errors import EngineBuildError, EngineUnavailableError
from engines.openvino import OUTPUT_SHAPES
from engines.tensorrt_api import (
    Builder,
    IBuilderConfig,
    IBuilderConfigRtx,
    ICudaEngine,
    INetworkDefinition,
    ITimingCache,
    TensorRt,
    TensorRtRtx,
)
from kernels import IMAGE_SIDE

INPUT = "image"
FORMAT = 1
MANIFEST = "plans.json"
Progress = Callable[[str, str, int, int], None]  # role, phase, step, steps
Via = Callable[[str, int], bytes]  # role, largest batch -> plan


class Flavour(StrEnum):
    """Which TensorRT: the full one, or the one for RTX cards, whose builder needs no GPU."""

    TENSORRT = "tensorrt"
    TENSORRT_RTX = "tensorrt_rtx"

    @property
    def extra(self) -> str:
        """What to install."""
        return "gpu" if self is Flavour.TENSORRT else "rtx"


@dataclass(frozen=True, slots=True)
class PlanKey:
    """Everything that plans depend on; another key is another engine.

    Attributes:
        bundle: the bundle's digest.
        flavour, version: of TensorRT.
        gpu: its name.
        capability: compute capability times 10.
        driver: its version.
        precision: of the plans.
        max_batch: images an engine takes at once, at most.
        source: what the plans are made of: the bundle's ONNX files, or the hash of a training's weights.
    """

    bundle: str
    flavour: Flavour
    version: str
    gpu: str
    capability: int
    driver: str
    precision: Precision
    max_batch: int
    source: str = "onnx"

    @property
    def digest(self) -> str:
        """12 hex digits."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:HASH_DIGITS]

    @property
    def folder(self) -> str:
        """Name of the folder that holds the plans."""
        return f"{self.flavour}-{self.precision}-{self.digest}"


@dataclass(frozen=True, slots=True)
class Plans:
    """Three plans whose hashes have been checked.

    Attributes:
        key: what they were built for.
        files: a path for each role.
        digest: 64 hex digits over the three: a build anew is another engine even under the same key.
    """

    key: PlanKey
    files: dict[str, Path]
    digest: str

    @property
    def identity(self) -> str:
        """flavour-precision@hash12, as verdicts carry it."""
        return f"{self.key.flavour}-{self.key.precision}@{self.digest[:HASH_DIGITS]}"


def load(flavour: Flavour) -> TensorRt:
    """Import TensorRT.

    Raises:
        EngineUnavailableError: it is not installed, or its libraries do not load; says what to install.
    """
    for package in (str(flavour), f"{flavour}_bindings"):
        try:
            return cast("TensorRt", importlib.import_module(package))
        except ModuleNotFoundError as error:
            if error.name != package:
                raise EngineUnavailableError(
                    f"{flavour}: {package} wants {error.name}, which is not installed"
                ) from error
        except (ImportError, OSError) as error:
            raise EngineUnavailableError(f"{flavour}: its package is there, but does not load: {error}") from error
    raise EngineUnavailableError(f"{flavour} is not installed: pip install 'umbra[{flavour.extra}]'")


def message_collector(trt: TensorRt) -> tuple[Any, list[str]]:
    """A logger for TensorRT, and the list that its errors go to."""
    errors: list[str] = []
    base: Any = trt.ILogger

    class Collector(base):  # type: ignore[misc]
        def __init__(self) -> None:
            base.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            if severity in (base.Severity.ERROR, base.Severity.INTERNAL_ERROR):
                errors.append(message)

    return Collector(), errors


def find_plans(root: Path, key: PlanKey) -> Plans | None:
    """The plans kept under a key; None where they must be built.

    Raises:
        EngineBuildError: there are some, but a file is missing, cut short or changed.
    """
    folder = root / key.folder
    if not (folder / MANIFEST).is_file():
        return None
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
        hashes: dict[str, str] = manifest["files"]
        if manifest["format"] != FORMAT or manifest["key"] != json.loads(json.dumps(asdict(key))):
            raise EngineBuildError(f"{folder.name}: built for {manifest['key']}, wanted {asdict(key)}")
    except (KeyError, TypeError, ValueError) as error:
        raise EngineBuildError(f"{folder.name}: {MANIFEST} cannot be read ({error!r}); remove the folder") from error
    files = {role: folder / f"{role}.plan" for role in MODEL_FILES}
    for role, path in files.items():
        found = file_sha256(path) if path.is_file() else "nothing"
        if found != hashes.get(role):
            raise EngineBuildError(f"{folder.name}: {path.name} is {found[:12]}, {MANIFEST} says "
                                   f"{str(hashes.get(role))[:12]}; remove the folder and build again")  # fmt: skip
    return Plans(key, files, _joint_digest(hashes))


def _joint_digest(hashes: dict[str, str]) -> str:
    return hashlib.sha256(" ".join(hashes[role] for role in MODEL_FILES).encode()).hexdigest()


def find_or_build(
    bundle: Bundle, root: Path, key: PlanKey, *, progress: Progress | None = None, via: Via | None = None
) -> Plans:
    """The plans kept under a key; built where there are none. A process that is building them already is waited for.

    Args and errors: as build_plans and find_plans.
    """
    found = find_plans(root, key)
    if found is not None:
        return found
    with _alone(root, key, progress):
        return find_plans(root, key) or build_plans(bundle, root, key, progress=progress, via=via)


@contextmanager
def _alone(root: Path, key: PlanKey, progress: Progress | None) -> Iterator[None]:
    """One process at a time builds what a key names; the kernel lets go of the lock when it ends."""
    root.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(root / f".{key.folder}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if progress is not None:
                progress("all", "another process builds them", 0, 1)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def build_plans(
    bundle: Bundle, root: Path, key: PlanKey, *, progress: Progress | None = None, via: Via | None = None
) -> Plans:
    """Build the three plans of a bundle and keep them; minutes on a GPU.

    Args:
        bundle: whose models.
        root: folder of all plans and timing caches.
        key: what to build for. On a machine without this GPU only `tensorrt_rtx` can, and for FP16 only.
        progress: told what is being done.
        via: makes the plan of a role and a largest batch in place of the ONNX file's parser.

    Raises:
        EngineUnavailableError: TensorRT is not installed.
        EngineBuildError: a model is not taken, has other inputs or outputs than its role, or cannot be built.
    """
    if key.flavour is Flavour.TENSORRT_RTX and key.precision is Precision.INT8:
        raise EngineBuildError(f"{key.flavour} has no int8 convolutions: choose fp16, or the flavour tensorrt")
    trt = load(key.flavour)
    if trt.__version__ != key.version:
        raise EngineBuildError(f"{key.flavour}: version {trt.__version__} is installed, the key says {key.version}")
    root.mkdir(parents=True, exist_ok=True)
    target, made = root / key.folder, Path(tempfile.mkdtemp(dir=root, prefix=f".{key.folder}."))
    made.chmod(0o755)
    try:
        return _build_into(made, target, bundle, key, trt, progress, via)
    finally:
        shutil.rmtree(made, ignore_errors=True)


def _build_into(
    made: Path, target: Path, bundle: Bundle, key: PlanKey, trt: TensorRt, progress: Progress | None, via: Via | None
) -> Plans:
    timing = target.parent / f"{key.flavour}-{key.version}-{key.capability}.timing"
    for role in MODEL_FILES:
        if via is not None:
            plan = via(role, key.max_batch)
        else:
            plan = _build(trt, key, role, _model_bytes(bundle, role, key), timing, progress)
        (made / f"{role}.plan").write_bytes(plan)
    hashes = {role: file_sha256(made / f"{role}.plan") for role in MODEL_FILES}
    (made / MANIFEST).write_text(json.dumps({"format": FORMAT, "key": asdict(key), "files": hashes}, indent=1) + "\n")
    shutil.rmtree(target, ignore_errors=True)
    made.rename(target)
    return Plans(key, {role: target / f"{role}.plan" for role in MODEL_FILES}, _joint_digest(hashes))


def _model_bytes(bundle: Bundle, role: str, key: PlanKey) -> bytes:
    path = bundle.model(role)
    if key.precision is Precision.INT8:
        return path.read_bytes()  # its QuantizeLinear and DequantizeLinear say what is int8
    try:
        import onnx

        from engines.half import to_half, without_quantisation
    except ModuleNotFoundError as error:
        raise EngineUnavailableError(
            f"FP16 plans need {error.name}: pip install 'umbra[{key.flavour.extra}]'"
        ) from error
    try:
        model: bytes = to_half(without_quantisation(onnx.load(path))).SerializeToString()
    except ValueError as error:
        raise EngineBuildError(f"bundle {bundle.name}: {path.name}: {error}") from error
    return model


def _build(trt: TensorRt, key: PlanKey, role: str, model: bytes, timing: Path, progress: Progress | None) -> bytes:
    logger, errors = message_collector(trt)
    builder = trt.Builder(logger)
    network = builder.create_network()  # strongly typed: precisions are those of the model
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(model):
        problems = [f"{e.node_name()}: {e.desc()}" for e in map(parser.get_error, range(parser.num_errors))]
        raise EngineBuildError(f"{key.flavour}: {role} is not taken: {'; '.join(problems) or errors}")
    _check_network(trt, network, role)
    config, cache = _config(trt, builder, key, timing)
    if progress is not None:
        config.progress_monitor = _monitor(trt, role, progress)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        reason = "; ".join(errors[:3]) or "no reason given"
        raise EngineBuildError(f"{key.flavour} {key.version}: {role} in {key.precision} cannot be built for "
                               f"{key.gpu} (compute capability {key.capability / 10:.1f}): {reason}")  # fmt: skip
    if cache is not None:
        written = timing.with_suffix(f".{os.getpid()}.tmp")
        written.write_bytes(bytes(cache.serialize()))
        written.replace(timing)
    return bytes(plan)


def _config(trt: TensorRt, builder: Builder, key: PlanKey, timing: Path) -> tuple[IBuilderConfig, ITimingCache | None]:
    config = builder.create_builder_config()
    profile = builder.create_optimization_profile()
    shape = (1, IMAGE_SIDE, IMAGE_SIDE)
    profile.set_shape(INPUT, (1, *shape), (key.max_batch, *shape), (key.max_batch, *shape))
    config.add_optimization_profile(profile)
    if key.flavour is Flavour.TENSORRT_RTX:  # it has no timing cache; it compiles on the GPU
        capabilities = cast("TensorRtRtx", trt).ComputeCapability
        # A GPU that it does not list may still be taken where it is the one in this machine.
        chosen = getattr(capabilities, f"SM{key.capability}", capabilities.CURRENT)
        config.num_compute_capabilities = 1
        cast("IBuilderConfigRtx", config).set_compute_capability(chosen, 0)
        # Without it a plan of this kind cannot be captured in a CUDA graph.
        cast("IBuilderConfigRtx", config).set_flag(cast("TensorRtRtx", trt).BuilderFlag.REQUIRE_USER_ALLOCATION)
        return config, None
    cache = config.create_timing_cache(timing.read_bytes() if timing.exists() else b"")
    config.set_timing_cache(cache, False)
    return config, cache


def _monitor(trt: TensorRt, role: str, progress: Progress) -> object:
    base: Any = trt.IProgressMonitor

    class Monitor(base):  # type: ignore[misc]
        def __init__(self) -> None:
            base.__init__(self)
            self._steps: dict[str, int] = {}

        def phase_start(self, phase_name: str, _parent: str | None, num_steps: int) -> None:
            self._steps[phase_name] = num_steps

        def step_complete(self, phase_name: str, step: int) -> bool:
            progress(role, phase_name, step + 1, self._steps.get(phase_name, 0))
            return True

        def phase_finish(self, phase_name: str) -> None:
            self._steps.pop(phase_name, None)

    return Monitor()


def _wanted(role: str) -> dict[str, tuple[int, ...]]:
    return {INPUT: (-1, 1, IMAGE_SIDE, IMAGE_SIDE), "output": (-1, *OUTPUT_SHAPES[role][1:])}


def _check_network(trt: TensorRt, network: INetworkDefinition, role: str) -> None:
    if (network.num_inputs, network.num_outputs) != (1, 1):
        raise EngineBuildError(f"{role}: {network.num_inputs} inputs and {network.num_outputs} outputs, wanted 1 and 1")
    given, out = network.get_input(0), network.get_output(0)
    if given.name != INPUT:
        raise EngineBuildError(f"{role}: its input is {given.name!r}, wanted {INPUT!r}")
    for tensor, name in ((given, INPUT), (out, "output")):
        shape = tuple(tensor.shape[i] for i in range(len(tensor.shape)))
        if shape != _wanted(role)[name] or tensor.dtype != trt.DataType.FLOAT:
            raise EngineBuildError(
                f"{role}: {tensor.name} is {shape} {tensor.dtype}, wanted {_wanted(role)[name]} FLOAT"
            )


def deserialise(trt: TensorRt, plan: bytes, name: str) -> tuple[ICudaEngine, list[str]]:
    """A plan -> an engine in device memory, and the list that its errors go to while it runs.

    The driver must have been initialised: see kernels.driver.probe.

    Raises:
        EngineBuildError: the plan is cut short, or of another version or GPU; says what TensorRT said.
    """
    logger, errors = message_collector(trt)
    engine = trt.Runtime(logger).deserialize_cuda_engine(plan)
    if engine is None:
        raise EngineBuildError(f"{name}: TensorRT {trt.__version__} does not take this plan of {len(plan)} bytes: "
                               f"{errors[0] if errors else 'no reason given'}")  # fmt: skip
    return engine, errors


def check_engine(trt: TensorRt, engine: ICudaEngine, role: str, max_batch: int) -> tuple[str, str]:
    """The names of an engine's input and output, which must be those of its role.

    Raises:
        EngineBuildError: other tensors, shapes, types or batches; says which.
    """
    names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
    inputs = [n for n in names if engine.get_tensor_mode(n) == trt.TensorIOMode.INPUT]
    outputs = [n for n in names if engine.get_tensor_mode(n) == trt.TensorIOMode.OUTPUT]
    if inputs != [INPUT] or len(outputs) != 1:
        raise EngineBuildError(
            f"{role}: an engine with inputs {inputs} and outputs {outputs}, wanted [{INPUT}] and one"
        )
    for name, wanted in ((INPUT, _wanted(role)[INPUT]), (outputs[0], _wanted(role)["output"])):
        shape, dtype = engine.get_tensor_shape(name), engine.get_tensor_dtype(name)
        found = tuple(shape[i] for i in range(len(shape)))
        if found != wanted or dtype != trt.DataType.FLOAT:
            raise EngineBuildError(f"{role}: an engine whose {name} is {found} {dtype}, wanted {wanted} FLOAT")
    batches = [dims[0] for dims in engine.get_tensor_profile_shape(INPUT, 0)]
    if batches != [1, max_batch, max_batch]:
        raise EngineBuildError(f"{role}: an engine for batches of {batches}, wanted 1 to {max_batch}")
    return INPUT, outputs[0]
