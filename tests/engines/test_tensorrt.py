"""Plans built for real, on a CPU, by the TensorRT whose builder needs no GPU; and what is refused."""

import inspect
import json
import re
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from engines import Precision, bundle, tensorrt_api
from engines.bundle import MODEL_FILES
from engines.errors import EngineBuildError, EngineUnavailableError
from engines.tensorrt import (
    MANIFEST,
    Flavour,
    PlanKey,
    Plans,
    build_plans,
    check_engine,
    deserialise,
    find_or_build,
    find_plans,
    load,
)
from engines.tensorrt_api import IRuntimeConfig
from engines.tensorrt_run import TensorRtEngines
from kernels.errors import DeviceFaultError
from tests.kernels.emulated import EmulatedDevice

STARTER = bundle.load(bundle.SHIPPED / "starter")
BINDINGS_NEED = {  # the functions that the full TensorRT's bindings take from its libraries
    "libnvinfer.so.11": (
        "createInferBuilder_INTERNAL", "createInferRefitter_INTERNAL", "createInferRuntime_INTERNAL",
        "getBuilderPluginRegistry", "getPluginRegistry",
    ),
    "libnvinfer_plugin.so.11": ("initLibNvInferPlugins",),
    "libnvonnxparser.so.11": (
        "createNvOnnxParser_INTERNAL", "createNvOnnxParserRefitter_INTERNAL", "getNvOnnxParserVersion",
    ),
}  # fmt: skip
# Of the module; and of what only one flavour has.
NOT_CLASSES = {"TensorRt", "TensorRtRtx"}


def key(**changes: object) -> PlanKey:
    rtx = load(Flavour.TENSORRT_RTX)
    usual = PlanKey(
        bundle=STARTER.digest, flavour=Flavour.TENSORRT_RTX, version=rtx.__version__, gpu="no GPU", capability=89,
        driver="none", precision=Precision.FP16, max_batch=16,
    )  # fmt: skip
    return replace(usual, **changes)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def plans_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("plans")
    build_plans(STARTER, root, key())
    return root


@pytest.mark.parametrize("capability", [75, 80, 86, 89, 120])
def test_all_three_models_for_every_generation(capability: int, tmp_path: Path) -> None:
    seen = set()
    plans = build_plans(
        STARTER,
        tmp_path,
        key(capability=capability),
        progress=lambda role, _p, step, steps: seen.add((role, step <= steps)),
    )
    assert seen == {(role, True) for role in MODEL_FILES}
    # Half the bytes of single precision's 42.5, 11.2 and 1.9 million weights, and little else.
    sizes = {role: path.stat().st_size / 1e6 for role, path in plans.files.items()}
    assert sizes == {
        "classifier": pytest.approx(85, rel=0.1), "regressor": pytest.approx(22.5, rel=0.1), "unseen": pytest.approx(4.3, rel=0.2)
    }  # fmt: skip
    assert all(path.read_bytes()[:4] == b"vtrt" for path in plans.files.values())


def test_plans_are_found_under_their_key_and_no_other(plans_root: Path) -> None:
    found = find_plans(plans_root, key())
    assert found is not None
    assert re.fullmatch(r"tensorrt_rtx-fp16@[0-9a-f]{12}", found.identity)
    for change in (
        {"bundle": "0" * 64}, {"version": "1.4.0.76"}, {"gpu": "another"}, {"capability": 86}, {"driver": "580.1"},
        {"max_batch": 8}, {"precision": Precision.INT8}, {"flavour": Flavour.TENSORRT},
    ):  # fmt: skip
        assert find_plans(plans_root, key(**change)) is None, change


def copied(root: Path, to: Path) -> Path:
    folder = to / key().folder
    folder.mkdir()
    for path in (root / key().folder).iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    return folder


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (
            lambda f: (f / "regressor.plan").write_bytes((f / "regressor.plan").read_bytes()[:-9]),
            "regressor.plan is [0-9a-f]{12}, ",
        ),
        (lambda f: (f / "unseen.plan").unlink(), "unseen.plan is nothing, plans.json says"),
        (lambda f: (f / MANIFEST).write_text("{"), "plans.json cannot be read"),
        (lambda f: (f / MANIFEST).write_text('{"format": 1}'), "plans.json cannot be read"),
        (
            lambda f: (f / MANIFEST).write_text((f / MANIFEST).read_text().replace("1.5.0.114", "1.4.0.76")),
            r"built for .*1\.4\.0\.76.* wanted .*1\.5\.0\.114",
        ),
    ],
    ids=["cut short", "missing", "not JSON", "no hashes", "another version"],
)
def test_damaged_plans_are_refused(damage: object, words: str, plans_root: Path, tmp_path: Path) -> None:
    folder = copied(plans_root, tmp_path)
    assert callable(damage)
    damage(folder)
    with pytest.raises(EngineBuildError, match=words):
        find_plans(tmp_path, key())


def test_a_build_that_fails_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(
        EngineBuildError, match=r"classifier in fp16 cannot be built for no GPU .compute capability 9\.0"
    ):
        build_plans(STARTER, tmp_path, key(capability=90))  # not in its list, and no GPU here that it could ask
    assert list(tmp_path.iterdir()) == []


def test_two_processes_build_once(tmp_path: Path) -> None:
    made: list[str] = []
    second_waits = threading.Event()
    second: list[Plans] = []

    def build_second() -> None:
        def told(_role: str, phase: str, _step: int, _steps: int) -> None:
            assert phase == "another process builds them"
            second_waits.set()

        second.append(find_or_build(STARTER, tmp_path, key(), progress=told, via=lambda *_: pytest.fail("built twice")))

    def via(role: str, _max_batch: int) -> bytes:
        if not made:
            other.start()
            assert second_waits.wait(60)
        made.append(role)
        return role.encode()

    other = threading.Thread(target=build_second)  # each has its own descriptor of the lock, as processes have
    first = find_or_build(STARTER, tmp_path, key(), via=via)
    other.join(60)
    assert second == [first]
    assert made == list(MODEL_FILES)
    assert find_or_build(STARTER, tmp_path, key(), via=via) == first


def test_what_this_flavour_cannot_do_is_said_at_once(tmp_path: Path) -> None:
    with pytest.raises(EngineBuildError, match="no int8 convolutions: choose fp16"):
        build_plans(STARTER, tmp_path, key(precision=Precision.INT8))
    with pytest.raises(EngineBuildError, match=r"version 1\.5\.0\.114 is installed, the key says 9"):
        build_plans(STARTER, tmp_path, key(version="9"))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda plan: plan[:5000], "plan of 5000 bytes: .*header.size == blobSize"),
        (lambda plan: b"ftrt" + plan[4:], "incompatible serialization"),
        (lambda plan: plan[:8] + b"\x03" + plan[9:], "Serialization assertion"),
        (lambda plan: plan, "Cuda Runtime"),
    ],
    ids=["cut short", "another TensorRT's", "another form", "no driver"],
)
def test_a_plan_that_is_not_taken_says_why(change: object, words: str, plans_root: Path) -> None:
    plan = (plans_root / key().folder / "unseen.plan").read_bytes()
    assert callable(change)
    with pytest.raises(EngineBuildError, match=rf"(?s)unseen.plan: TensorRT 1.5.0.114 does not take this .*{words}"):
        deserialise(load(Flavour.TENSORRT_RTX), change(plan), "unseen.plan")


class Context:
    """A context that does not run."""

    def __init__(self, errors: list[str]) -> None:
        self._errors = errors

    def set_device_memory(self, memory: int, size: int) -> None: ...

    def set_input_shape(self, name: str, shape: object) -> bool:
        return True

    def set_tensor_address(self, name: str, memory: int) -> bool:
        return True

    def execute_async_v3(self, stream_handle: int) -> bool:
        self._errors.append("Error Code 1: Cask (convolution failed on execution)")
        return False


class RuntimeConfig:
    """What was asked for."""

    memory: object = None
    dynamic_shapes_kernel_specialization_strategy: object = None

    def set_execution_context_allocation_strategy(self, strategy: object) -> None:
        self.memory = strategy


class Engine:
    """An engine that is not what it was built for."""

    num_io_tensors = 2
    device_memory_size_v2 = 0

    def __init__(
        self, *, output: tuple[int, ...] = (-1, 4), dtype: str = "FLOAT", batch: int = 16, name: str = "image",
        context: Context | None = None,
    ) -> None:  # fmt: skip
        self.context = context
        self.trt = load(Flavour.TENSORRT_RTX)
        self.output, self.dtype, self.batch, self.name = output, dtype, batch, name

    def get_tensor_name(self, index: int) -> str:
        return (self.name, "logits")[index]

    def get_tensor_mode(self, name: str) -> object:
        return self.trt.TensorIOMode.OUTPUT if name == "logits" else self.trt.TensorIOMode.INPUT

    def get_tensor_dtype(self, name: str) -> object:
        return getattr(self.trt.DataType, self.dtype)

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return self.output if name == "logits" else (-1, 1, 224, 224)

    def get_tensor_profile_shape(self, name: str, profile_index: int) -> list[tuple[int, ...]]:
        return [(n, 1, 224, 224) for n in (1, self.batch, self.batch)]

    def create_runtime_config(self) -> RuntimeConfig:
        return RuntimeConfig()

    def create_execution_context(self, runtime_config: IRuntimeConfig) -> Context | None:
        assert isinstance(runtime_config, RuntimeConfig)
        strategies = self.trt.ExecutionContextAllocationStrategy, self.trt.DynamicShapesKernelSpecializationStrategy  # type: ignore[attr-defined]
        wanted = strategies[0].USER_MANAGED, strategies[1].EAGER
        assert (runtime_config.memory, runtime_config.dynamic_shapes_kernel_specialization_strategy) == wanted
        return self.context


def test_an_engine_is_checked() -> None:
    trt = load(Flavour.TENSORRT_RTX)
    assert check_engine(trt, Engine(), "classifier", 16) == ("image", "logits")
    for engine, words in (
        (Engine(output=(-1, 5)), r"whose logits is \(-1, 5\) .*wanted \(-1, 4\)"),
        (Engine(dtype="HALF"), "whose image is .*HALF, wanted .* FLOAT"),
        (Engine(batch=4), r"batches of \[1, 4, 4\], wanted 1 to 16"),
        (Engine(name="x"), r"inputs \['x'\]"),
    ):
        with pytest.raises(EngineBuildError, match=words):
            check_engine(trt, engine, "classifier", 16)


@pytest.mark.parametrize("context", [True, False])
def test_a_plan_that_does_not_run_says_what_tensorrt_said(
    context: bool, monkeypatch: pytest.MonkeyPatch, plans_root: Path
) -> None:
    outputs = {"classifier": (-1, 4), "regressor": (-1, 1), "unseen": (-1, 2, 224, 224)}

    def deserialised(_trt: object, _plan: bytes, name: str) -> tuple[Engine, list[str]]:
        errors = ["an earlier one"]
        output = outputs[name.removesuffix(".plan")]
        return Engine(output=output, context=Context(errors) if context else None), errors

    monkeypatch.setattr("engines.tensorrt_run.deserialise", deserialised)
    plans, device = find_plans(plans_root, key()), EmulatedDevice()
    assert plans is not None
    engines = TensorRtEngines(plans, device)
    words = "did not run the classifier on 2 images: .*convolution failed" if context else "no context .*an earlier one"
    with pytest.raises(DeviceFaultError, match=words):
        engines.enqueue(0, 2, logits=0, levels=0, maps=0, on=device.stream())
    engines.close()


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    # The bindings are here, TensorRT's libraries are not: what a station sees whose install was cut short.
    with pytest.raises(EngineUnavailableError, match="tensorrt: its package is there, but does not load: libnv"):
        load(Flavour.TENSORRT)
    for package in ("tensorrt", "tensorrt_bindings"):
        monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(EngineUnavailableError, match=r"tensorrt is not installed: pip install 'umbra\[gpu\]'"):
        load(Flavour.TENSORRT)


def typed() -> dict[str, dict[str, list[str]]]:
    """Class -> member -> names of its arguments, of what tensorrt_api declares."""
    found: dict[str, dict[str, list[str]]] = {}
    for name, cls in vars(tensorrt_api).items():
        if inspect.isclass(cls) and cls.__module__ == tensorrt_api.__name__ and name not in NOT_CLASSES:
            members: dict[str, list[str]] = {m: [] for m in inspect.get_annotations(cls)}
            for member, value in vars(cls).items():
                if inspect.isfunction(value) and (not member.startswith("_") or member == "__buffer__"):
                    members[member] = [p for p in inspect.signature(value).parameters if p != "self"]
            found[name.removesuffix("Rtx")] = {**found.get(name.removesuffix("Rtx"), {}), **members}
    return found


COMPARE = """
import importlib, json, sys
module = importlib.import_module(sys.argv[1])
for cls, members in json.load(sys.stdin).items():
    real = getattr(module, cls, None)
    if real is None:
        print(f"no class {cls}"); continue
    for member, arguments in members.items():
        if cls in ("Dims", "IHostMemory") and member.startswith("__"): continue
        if not hasattr(real, member):
            print(f"{cls} has no {member}"); continue
        doc = getattr(real, member).__doc__ or ""
        missing = [a for a in arguments if f"{a}:" not in doc]
        if arguments and missing: print(f"{cls}.{member} takes no {missing}: {doc.splitlines()[0]}")
for name in ("Builder", "OnnxParser", "Runtime", "ILogger", "IProgressMonitor", "DataType", "TensorIOMode"):
    if not hasattr(module, name): print(f"no {name}")
print("compared", module.__version__)
"""


@pytest.mark.parametrize(
    ("module", "version", "lacks"),
    [
        ("tensorrt_rtx_bindings", "1.5.0.114", []),
        (
            "tensorrt_bindings",
            "11.0.0.114",
            ["IBuilderConfig has no num_compute_capabilities", "IBuilderConfig has no set_compute_capability",
             "IRuntimeConfig has no dynamic_shapes_kernel_specialization_strategy"],
        ),
    ],
)  # fmt: skip
def test_the_types_are_those_of_the_bindings(module: str, version: str, lacks: list[str], tmp_path: Path) -> None:
    """The full TensorRT's bindings load beside libraries that hold nothing but the names they want."""
    for library, functions in BINDINGS_NEED.items():
        source = tmp_path / "empty.c"
        source.write_text("\n".join(f"void* {f}(void) {{ return 0; }}" for f in functions))
        subprocess.run(
            ["gcc", "-shared", "-fPIC", f"-Wl,-soname,{library}", str(source), "-o", str(tmp_path / library)],
            check=True,
        )
    said = subprocess.run(
        [sys.executable, "-c", COMPARE, module], input=json.dumps(typed()), capture_output=True, text=True, check=True,
        env={"LD_LIBRARY_PATH": str(tmp_path)},
    ).stdout.splitlines()  # fmt: skip
    assert sorted(said) == sorted([*lacks, f"compared {version}"])
