"""Packing, for real but short: a shipped network is unpacked, quantised again and written in another bundle."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from engines import Precision, bundle
from engines.build import build_inspector
from engines.errors import TrainingError
from engines.models import build
from engines.openvino import OpenVinoEngines
from engines.training import quantize, ranges
from engines.training.data import SetRecipe, simulate_set
from engines.training.pack import pack
from engines.training.warm_start import start_from
from kernels import StretchParams


def test_lent_networks_are_taken_over_and_trained_ones_quantised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    starter = bundle.load(bundle.find("starter"))
    monkeypatch.setattr(quantize, "CHOICES", {"99.999 %": ranges.CHOICES["99.999 %"]})
    monkeypatch.setattr(quantize, "CALIBRATION_IMAGES", 8)
    monkeypatch.setattr(quantize, "CHECK_IMAGES", 6)
    few = simulate_set(SetRecipe(seed=78), 48, starter.stretch, workers=1)
    regressor = build("regressor")
    start_from(regressor, starter.model("regressor"), few.images)
    torch.save(regressor.state_dict(), tmp_path / "weights.pt")
    said: list[str] = []
    weights = {role: starter.model(role) for role in bundle.MODEL_FILES} | {"regressor": tmp_path / "weights.pt"}
    made = pack(weights, (few, few), tmp_path / "made", name="made", stretch=StretchParams(), training={"note": "a test"},
                report=said.append)  # fmt: skip
    assert bundle.load(tmp_path / "made").identity == made.identity
    assert any("regressor.onnx" in line and "error=" in line for line in said)
    for role in ("classifier", "unseen"):
        assert made.model(role).read_bytes() == starter.model(role).read_bytes()
    before, after = (OpenVinoEngines(b, precision=Precision.F32) for b in (starter, made))
    for image in few.images[:4]:
        a, b = (engines.infer(image.astype(np.float32) / 255) for engines in (before, after))
        np.testing.assert_allclose(b.level, a.level, atol=0.15)
    build_inspector(made)  # raises unless the golden frames measure as packed


def test_frames_that_no_spec_can_be_chosen_on_are_refused_before_anything_is_quantised(tmp_path: Path) -> None:
    starter = bundle.load(bundle.find("starter"))
    few = simulate_set(SetRecipe(seed=78), 24, starter.stretch, workers=1)
    weights = {role: starter.model(role) for role in bundle.MODEL_FILES}
    with pytest.raises(TrainingError, match="wanted OK and NG frames to choose the spec on"):
        pack(
            weights,
            (few, few.select(few.class_index == 0)),
            tmp_path / "made",
            name="made",
            stretch=StretchParams(),
            training={},
        )
    assert not (tmp_path / "made").exists()


def test_weights_of_another_role_are_named(tmp_path: Path) -> None:
    torch.save(build("regressor").state_dict(), tmp_path / "weights.pt")
    with pytest.raises(TrainingError, match=r"weights\.pt: no weights of the role unseen"):
        quantize.load_weights("unseen", tmp_path / "weights.pt")
