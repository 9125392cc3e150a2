"""Plans by torch-tensorrt: what it is given, with a stand-in for it where there is no GPU."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from engines import Precision, bundle
from engines.errors import EngineBuildError, EngineUnavailableError, TrainingError
from engines.models import build
from engines.tensorrt import Flavour, PlanKey, build_plans, find_plans, load
from engines.training import via_torch
from engines.training.via_torch import plan_maker, weights_digest

STARTER = bundle.load(bundle.SHIPPED / "starter")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    for role in bundle.MODEL_FILES:
        (folder / role).mkdir()
        torch.save(build(role, seed=3).state_dict(), folder / role / "weights.pt")
    return folder


class Stand:
    """torch_tensorrt's two names that are used; keeps what it is given."""

    def __init__(self, plan: bytes = b"plan") -> None:
        self.given: list[tuple[Any, Any]] = []
        self.dynamo = SimpleNamespace(convert_exported_program_to_serialized_trt_engine=self._convert)
        self._plan = plan

    @staticmethod
    def Input(**given: object) -> dict[str, object]:  # noqa: N802
        return given

    def _convert(self, program: Any, *, inputs: list[Any], require_full_compilation: bool) -> bytes:
        assert require_full_compilation
        self.given.append((program, inputs))
        return self._plan


@pytest.fixture
def stand(monkeypatch: pytest.MonkeyPatch) -> Stand:
    made = Stand()
    monkeypatch.setitem(sys.modules, "torch_tensorrt", made)
    monkeypatch.setattr(via_torch, "DEVICE", "cpu")
    return made


def test_what_is_compiled_is_the_network_in_half_precision(runs: Path, stand: Stand) -> None:
    assert plan_maker(runs)("regressor", 4) == b"plan"
    [(program, [ranges])] = stand.given
    assert ranges == {
        "min_shape": (1, 1, 224, 224), "opt_shape": (4, 1, 224, 224), "max_shape": (4, 1, 224, 224),
        "dtype": torch.float32, "name": "image",
    }  # fmt: skip
    model = build("regressor", seed=3).eval()
    x = torch.rand(2, 1, 224, 224, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        exact, rounded = model(x), program.module()(x)
    assert rounded.dtype == torch.float32
    assert rounded.numpy() == pytest.approx(exact.numpy(), abs=0.05)
    assert {p.dtype for name, p in program.state_dict.items() if name.endswith("conv1.weight")} == {torch.float16}


def test_the_plans_are_kept_under_the_weights_they_are_made_of(runs: Path, stand: Stand, tmp_path: Path) -> None:
    version = load(Flavour.TENSORRT_RTX).__version__
    key = PlanKey(
        STARTER.digest, Flavour.TENSORRT_RTX, version, "none", 89, "none", Precision.FP16, 1, weights_digest(runs)
    )
    assert key.source.startswith("torch-tensorrt:")
    plans = build_plans(STARTER, tmp_path, key, via=plan_maker(runs))
    assert [path.read_bytes() for path in plans.files.values()] == [b"plan"] * 3
    assert len(stand.given) == 3
    assert find_plans(tmp_path, key) == plans
    by_onnx = PlanKey(STARTER.digest, Flavour.TENSORRT_RTX, version, "none", 89, "none", Precision.FP16, 1)
    assert find_plans(tmp_path, by_onnx) is None


def test_a_compiler_that_gives_nothing(runs: Path, stand: Stand) -> None:
    stand._plan = b""
    with pytest.raises(EngineBuildError, match="no plan of the unseen"):
        plan_maker(runs)("unseen", 1)


def test_what_is_missing_is_named(runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(EngineUnavailableError, match=r"torch_tensorrt is not installed: pip install 'umbra\[gpu\]'"):
        plan_maker(runs)
    with pytest.raises(TrainingError, match=r"classifier.weights.pt.*: not there; wanted a training of each role"):
        plan_maker(tmp_path)
