"""The networks: timm's names, shapes, and a first training that learns."""

from __future__ import annotations

import csv
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engines.training.data import AMBIGUOUS, ImageSet, SetRecipe, simulate_set
from kernels import StretchParams

torch = pytest.importorskip("torch")

from engines.errors import TrainingError  # noqa: E402
from engines.models import area_weights, build, resnet18_d, resnet101_d  # noqa: E402
from engines.models.unet import UNet  # noqa: E402
from engines.training.classify import augment, class_weights, classifier_job  # noqa: E402
from engines.training.fit import SGD_RATE, Batch, Stage, fit, predict, reestimate_norms, to_images  # noqa: E402
from engines.training.quantize import export  # noqa: E402
from engines.training.regress import calibrate, regressor_job  # noqa: E402
from engines.training.train import train  # noqa: E402


@pytest.fixture(scope="module")
def tiny() -> ImageSet:
    return simulate_set(SetRecipe(seed=5, full_size=0.0), 96, StretchParams(), workers=1)


def test_state_dicts_have_timms_names_and_sizes() -> None:
    large, small = resnet101_d(4).state_dict(), resnet18_d(1).state_dict()
    assert (len(large), len(small)) == (638, 134)
    # Names and shapes as timm 1.0 lists them for resnet101d and resnet18d with in_chans=1.
    for state, name, shape in [
        (large, "conv1.0.weight", (32, 1, 3, 3)), (large, "conv1.6.weight", (64, 32, 3, 3)), (large, "bn1.weight", (64,)),
        (large, "layer1.0.downsample.1.weight", (256, 64, 1, 1)), (large, "layer3.22.conv3.weight", (1024, 256, 1, 1)),
        (large, "layer4.0.downsample.2.running_var", (2048,)), (large, "fc.weight", (4, 2048)),
        (small, "layer2.0.downsample.1.weight", (128, 64, 1, 1)), (small, "layer4.1.bn2.bias", (512,)),
        (small, "fc.bias", (1,)),
    ]:  # fmt: skip
        assert tuple(state[name].shape) == shape
    assert "layer1.0.downsample.0.weight" not in large  # the pool has no weights


def test_unet_maps_are_independent_of_each_other() -> None:
    net = UNet().eval()
    assert 1_800_000 < sum(p.numel() for p in net.parameters()) < 2_000_000
    with torch.no_grad():
        torch.nn.init.constant_(net.head.bias, -5.0)
        net.head.weight[:] = 0
        p = torch.sigmoid(net(torch.rand(2, 1, 64, 64)))
    assert p.shape == (2, 2, 64, 64)
    assert float(p.sum(1).max()) < 0.1  # both may be low: no softmax


def test_a_set_repeats_with_its_recipe(tiny: ImageSet) -> None:
    again = simulate_set(SetRecipe(seed=5, full_size=0.0), 96, StretchParams(), workers=1)
    np.testing.assert_array_equal(tiny.images, again.images)
    np.testing.assert_array_equal(tiny.rating, again.rating)


def test_a_set_survives_the_disk_and_selection(tiny: ImageSet, tmp_path: Path) -> None:
    tiny.save(tmp_path)
    loaded = ImageSet.load(tmp_path)
    np.testing.assert_array_equal(loaded.boxes, tiny.boxes)
    keep = np.arange(len(tiny)) % 2 == 1
    half = tiny.select(keep)
    np.testing.assert_array_equal(half.boxes_of(0), tiny.boxes_of(1))


def test_a_killed_training_goes_on_with_the_same_batches(tiny: ImageSet, tmp_path: Path) -> None:
    """Two stages in one run equal two stages with a new process between them."""
    stages = (Stage(32, 64, 16, 1e-3), Stage(32, 64, 16, 1e-3))
    whole = build("regressor", seed=1)
    fit(regressor_job(whole, tiny, tiny, stages, tmp_path / "a"))
    first = build("regressor", seed=1)
    fit(regressor_job(first, tiny, tiny, stages[:1], tmp_path / "b"))
    second = build("regressor", seed=2)  # other weights: the checkpoint must win
    said: list[str] = []
    fit(replace(regressor_job(second, tiny, tiny, stages, tmp_path / "b"), report=said.append))
    assert said[0].startswith("resumed at stage 2 step 0")
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(second.state_dict()[name], value, msg=name)


class Killed(BaseException):
    """Ends a training as a signal would."""


def test_a_training_killed_within_a_stage_ends_as_if_it_was_not(tiny: ImageSet, tmp_path: Path) -> None:
    """Optimiser, schedule and step come back from the checkpoint, and the curve has each row once."""
    stages = (Stage(32, 96, 16, 1e-3),)
    whole = build("regressor", seed=1)
    fit(replace(regressor_job(whole, tiny, tiny, stages, tmp_path / "a"), curve_steps=1))

    job = regressor_job(build("regressor", seed=1), tiny, tiny, stages, tmp_path / "b")
    drawn = 0

    def draw(stage: Stage, rng: np.random.Generator) -> Batch:
        nonlocal drawn
        drawn += 1
        if drawn == 3:
            shutil.copy(tmp_path / "b" / "checkpoint.pt", tmp_path / "after-two-steps.pt")
        if drawn == 5:
            raise Killed
        return job.draw(stage, rng)

    with pytest.raises(Killed):
        fit(replace(job, draw=draw, curve_steps=1, checkpoint_s=0.0))
    shutil.copy(tmp_path / "after-two-steps.pt", tmp_path / "b" / "checkpoint.pt")
    second = build("regressor", seed=2)  # other weights: the checkpoint must win
    said: list[str] = []
    fit(replace(regressor_job(second, tiny, tiny, stages, tmp_path / "b"), curve_steps=1, report=said.append))
    assert said[0] == "resumed at stage 1 step 2"
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(second.state_dict()[name], value, msg=name)
    columns = []
    for name in ("a", "b"):
        rows = csv.DictReader((tmp_path / name / "curve.csv").read_text().splitlines())
        columns.append([(row["images"], row["rate"], row["loss"], row["mae"]) for row in rows])
    assert len(columns[0]) == 6 + 1  # each step, and the end of the stage
    assert columns[0] == columns[1]


def test_a_checkpoint_of_other_data_is_refused(tiny: ImageSet, tmp_path: Path) -> None:
    """Else the weights of one fold would be taken for those of the next."""
    quiet = {"preset": "smoke", "report": lambda _line: None}
    train("regressor", (tiny, tiny), tmp_path, **quiet)  # type: ignore[arg-type]
    train("regressor", (tiny, tiny), tmp_path, **quiet)  # type: ignore[arg-type]
    other = tiny.select(np.arange(len(tiny)) > 0)
    with pytest.raises(TrainingError, match=r"checkpoint\.pt: begun with data .* now .* choose another folder"):
        train("regressor", (other, tiny), tmp_path, **quiet)  # type: ignore[arg-type]


def test_sets_are_named_by_labels_and_images(tiny: ImageSet) -> None:
    assert tiny.digest == tiny.select(np.ones(len(tiny), bool)).digest
    images = tiny.images.copy()
    images[3, 0, 0] ^= 1
    assert len({tiny.digest, replace(tiny, images=images).digest, replace(tiny, rating=tiny.rating + 1).digest}) == 3


def test_training_lowers_the_loss(tiny: ImageSet, tmp_path: Path) -> None:
    model = build("regressor", seed=0)
    before = np.abs(predict(model, tiny.images, 32)[:, 0] - tiny.rating).mean()
    fit(regressor_job(model, tiny, tiny, (Stage(32, 640, 16, 2e-3),), tmp_path))
    reestimate_norms(model, tiny.images, 32, batch=48)
    after = np.abs(predict(model, tiny.images, 32)[:, 0] - tiny.rating).mean()
    assert after < 0.8 * before
    assert (tmp_path / "curve.csv").read_text().startswith("stage,side,images")


@pytest.mark.parametrize("role", ["regressor", "unseen"])
def test_each_role_trains_and_exports(role: str, tiny: ImageSet, tmp_path: Path) -> None:
    from engines.training.quantize import load_weights

    weights = train(role, (tiny, tiny), tmp_path / role, preset="smoke", report=lambda _line: None)
    export(load_weights(role, weights), tmp_path / f"{role}.onnx")
    import onnxruntime

    session = onnxruntime.InferenceSession(tmp_path / f"{role}.onnx", providers=["CPUExecutionProvider"])
    [image] = session.get_inputs()
    assert image.shape[1:] == [1, 224, 224]
    for count in (1, 3):
        [out] = session.run(None, {image.name: np.random.default_rng(0).random((count, 1, 224, 224), np.float32)})
        assert out.shape == ((count, 1) if role == "regressor" else (count, 2, 224, 224))


def test_one_class_cannot_teach_a_classifier(tiny: ImageSet, tmp_path: Path) -> None:
    one = tiny.select(tiny.class_index == 0)
    with pytest.raises(ValueError, match="one class only"):
        train("classifier", (one, one), tmp_path, preset="smoke")


def test_unknown_roles_and_presets_are_named(tiny: ImageSet, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="judge"):
        train("judge", (tiny, tiny), tmp_path)


def test_rare_classes_weigh_more_and_diagonal_most(tiny: ImageSet) -> None:
    weights = class_weights(replace(tiny, class_index=np.array([0] * 80 + [1] * 10 + [2] * 10 + [3] * 10)))
    assert weights[0] < weights[1] == weights[3] < weights[2]


def test_a_class_that_is_not_there_weighs_nothing(tiny: ImageSet) -> None:
    weights = class_weights(replace(tiny, class_index=np.array([0] * 80 + [1] * 20)))
    assert weights[2:].tolist() == [0, 0]
    assert weights[:2].mean() == pytest.approx(1)
    assert weights[1] / weights[0] == pytest.approx(2)


def test_pictures_are_varied_but_keep_their_background() -> None:
    pictures = torch.full((6, 1, 64, 64), 0.5)
    pictures[:, :, 20:40, 28:36] = 0.9
    varied = augment(pictures, np.random.default_rng(0))
    assert varied.shape == pictures.shape
    assert ((varied - 0.5).abs() < 1e-3).float().mean() > 0.8
    areas = [float((picture > 0.6).sum()) for picture in varied]
    assert min(areas) > 0.5 * 160
    assert len({round(area) for area in areas}) > 3
    assert not torch.equal(varied[0], varied[1])


def test_upright_pictures_keep_their_rows() -> None:
    pictures = torch.full((40, 1, 64, 64), 0.5)
    pictures[:, :, :, 28:36] = 0.9
    for upright, most in ((True, 0), (False, 30)):
        varied = augment(pictures, np.random.default_rng(0), upright=upright)
        lying = (varied.mean(3).std(2) > varied.mean(2).std(2)).sum()
        assert lying <= most
        assert upright or lying >= 10


def test_images_are_averaged_over_equal_areas() -> None:
    weights = area_weights(128)
    assert weights.shape == (128, 224)
    torch.testing.assert_close(weights.sum(1), torch.ones(128))  # an average a part
    torch.testing.assert_close(weights.sum(0), torch.full((224,), 128 / 224))  # every pixel weighs alike
    image = torch.rand(1, 1, 224, 224)
    assert to_images((image[0].numpy() * 255).astype(np.uint8), 112).shape == (1, 1, 112, 112)
    halves = to_images((image[0].numpy() * 255).astype(np.uint8), 112)[0, 0]
    whole = torch.from_numpy((image[0, 0].numpy() * 255).astype(np.uint8).astype(np.float32) / 255)
    torch.testing.assert_close(halves, whole.reshape(112, 2, 112, 2).mean((1, 3)))


def test_a_network_averages_the_bundles_image_and_takes_a_smaller_one_as_it_is() -> None:
    model = build("regressor", seed=3).eval()
    pixels = np.random.default_rng(0).integers(100, 156, (2, 224, 224), dtype=np.uint8)
    with torch.no_grad():
        torch.testing.assert_close(model(to_images(pixels, 224)), model(to_images(pixels, 128)), rtol=1e-4, atol=1e-4)
    other = build("regressor", seed=4)
    other.side = 224
    other.load_state_dict(model.state_dict())
    assert other.side == 128


def test_two_classes_are_ok_and_the_rest(tiny: ImageSet, tmp_path: Path) -> None:
    job = classifier_job(build("classifier"), tiny, tiny, (Stage(32, 16, 16, 1e-3),), tmp_path, classes=2)
    _, labels = job.draw(job.stages[0], np.random.default_rng(0))
    assert set(labels.tolist()) == {0, 1}


def test_sgd_learns_and_the_curve_says_how(tiny: ImageSet, tmp_path: Path) -> None:
    stage = Stage(32, 1280, 16, 1e-3)
    job = replace(
        regressor_job(build("regressor", seed=0), tiny, tiny, (stage,), tmp_path), optimizer="sgd", curve_steps=20
    )
    fit(job)
    with (tmp_path / "curve.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0])[:7] == ["stage", "side", "images", "seconds", "rate", "loss", "mae"]
    assert [int(row["images"]) for row in rows] == [320, 640, 960, 1280, 1280]
    assert max(float(row["rate"]) for row in rows) == pytest.approx(1e-3 * SGD_RATE, rel=0.2)
    losses = [float(row["loss"]) for row in rows]
    assert losses[-1] < 0.8 * losses[0]
    assert rows[-1]["mae"]
    assert (tmp_path / "curve.png").stat().st_size > 1000


@pytest.mark.parametrize(
    ("role", "changes", "message"),
    [
        ("regressor", {"rating": np.nan}, "frames have no level"),
        ("regressor", {"rating": 2.0}, "every frame has level 2"),
        ("unseen", {"boxes": np.empty((0, 5), np.float32)}, "no box on a frame"),
        ("unseen", {"class_index": 3}, "no box on a frame"),
        ("classifier", {"class_index": AMBIGUOUS}, "no frame of a clear class"),
    ],
)
def test_a_set_that_cannot_teach_is_refused(
    tiny: ImageSet, tmp_path: Path, role: str, changes: dict[str, Any], message: str
) -> None:
    if "rating" in changes:
        changes = {"rating": np.full(len(tiny), changes["rating"], np.float32)}
    if "class_index" in changes:
        changes = {"class_index": np.full(len(tiny), changes["class_index"])}
    with pytest.raises(TrainingError, match=message):
        train(role, (replace(tiny, **changes),) * 2, tmp_path, preset="smoke")


@pytest.mark.parametrize(
    ("role", "changes", "message"),
    [
        ("classifier", {"class_index": AMBIGUOUS}, "validation set: no frame of a clear class"),
        ("regressor", {"rating": np.nan}, "validation set: 92 of 92 frames have no level"),
        ("regressor", {"class_index": 3}, "validation set: capture failures only"),
    ],
)
def test_a_set_that_cannot_validate_is_refused_before_the_first_epoch(
    tiny: ImageSet, tmp_path: Path, role: str, changes: dict[str, Any], message: str
) -> None:
    changes = {name: np.full(len(tiny), value, getattr(tiny, name).dtype) for name, value in changes.items()}
    with pytest.raises(TrainingError, match=message):
        train(role, (tiny, replace(tiny, **changes)), tmp_path, preset="smoke")
    assert not list(tmp_path.iterdir())


def test_levels_are_calibrated_to_validation_frames(tiny: ImageSet) -> None:
    model = build("regressor", seed=0).eval()
    levels = predict(model, tiny.images, model.side)[:, 0]
    rated = replace(tiny, rating=np.clip(0.92 * levels + 0.3, 0, 9).astype(np.float32))
    slope, offset = calibrate(model, rated)
    assert (slope, offset) == pytest.approx((0.92, 0.3), abs=0.06)
    np.testing.assert_allclose(
        predict(model, tiny.images, model.side)[:, 0], slope * levels + offset, atol=0.08
    )  # bfloat16
