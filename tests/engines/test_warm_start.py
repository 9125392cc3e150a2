"""Training that starts from a bundle: the network must compute what the bundle does before the first step."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from engines import Precision
from engines.bundle import find, load
from engines.models import build
from engines.openvino import OpenVinoEngines
from engines.training.data import ImageSet, SetRecipe, simulate_set
from engines.training.fit import Stage, predict, to_images
from engines.training.presets import PRESETS
from engines.training.quantize import load_weights
from engines.training.train import train
from engines.training.warm_start import start_from
from kernels import StretchParams


@pytest.fixture(scope="module")
def images() -> NDArray[np.uint8]:
    return few().images


def few() -> ImageSet:
    return simulate_set(SetRecipe(seed=77, sensors=("A", "C")), 24, StretchParams(), workers=1)


@pytest.mark.parametrize("role", ["regressor", "unseen"])
def test_a_network_computes_what_the_bundle_does(role: str, images: NDArray[np.uint8]) -> None:
    bundle = load(find("starter"))
    model = build(role, seed=3)
    start_from(model, bundle.model(role), images)
    with torch.no_grad():
        evaluated = model.eval()(to_images(images[:3], 224)).numpy()
        normalised = model.train()(to_images(images, 224)).numpy()[:3]
    engines = OpenVinoEngines(bundle, precision=Precision.F32)
    for k in range(3):
        outputs = engines.infer(images[k].astype(np.float32) / 255)
        wanted = outputs.maps if role == "unseen" else np.array([outputs.level])
        np.testing.assert_allclose(evaluated[k], wanted, atol=2e-3)
        np.testing.assert_allclose(normalised[k], wanted, atol=2e-3)  # batch statistics give the same on these images


def test_weights_come_back_to_the_spread_of_fresh_ones(images: NDArray[np.uint8]) -> None:
    """Folded weights of a weak branch are tiny; the optimiser's first steps would wipe them out."""
    started, fresh = build("regressor"), build("regressor")
    start_from(started, load(find("starter")).model("regressor"), images)
    for (name, a), (_, b) in zip(started.named_parameters(), fresh.named_parameters(), strict=True):
        if a.ndim == 4:
            assert float(a.detach().square().mean()) == pytest.approx(float(b.detach().square().mean()), rel=0.3), name


def test_a_file_of_another_network_is_refused(images: NDArray[np.uint8]) -> None:
    path = load(find("starter")).model("regressor")
    with pytest.raises(ValueError, match="unseen network"):
        start_from(build("unseen"), path, images)
    with pytest.raises(ValueError, match="classifier network"):
        start_from(build("classifier"), path, images)


def test_training_goes_on_from_a_bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A finish of two gentle steps keeps what the bundle knows; the same steps from fresh weights know nothing."""
    monkeypatch.setitem(PRESETS["smoke"], "regressor", (Stage(224, 16, 8, 1e-5),))
    tiny = few()
    errors = {}
    for name, start in (("bundle", load(find("starter")).model("regressor")), ("fresh", None)):
        weights = train("regressor", (tiny, tiny), tmp_path / name, preset="smoke", start=start, report=lambda _: None)
        levels = predict(load_weights("regressor", weights), tiny.images, 224)[:, 0]
        errors[name] = float(np.abs(levels - tiny.rating).mean())
    assert errors["bundle"] < 0.8 * errors["fresh"]
    # the fresh run's checkpoint is not the bundle's
    with pytest.raises(ValueError, match="begun with start none, now"):
        train("regressor", (tiny, tiny), tmp_path / "fresh", preset="smoke",
              start=load(find("starter")).model("regressor"), report=lambda _: None)  # fmt: skip
