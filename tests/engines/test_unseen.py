"""How the UNet is taught: boxes, outliers, weights; and what its maps then say."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest

from engines.errors import TrainingError
from engines.looks import cell_looks
from engines.training.data import AMBIGUOUS, ImageSet, Pictures

torch = pytest.importorskip("torch")

from engines.models import INPUT_GAIN, ForImages, UNet, build  # noqa: E402
from engines.models.familiarity import Familiarity, Filters, gated  # noqa: E402
from engines.openvino import outputs_of  # noqa: E402
from engines.training.fit import Stage, predict  # noqa: E402
from engines.training.outliers import LEAST_CHANGE, MASKS, TEXTURES, Outliers, change  # noqa: E402
from engines.training.quantize import export, load_weights, quantize  # noqa: E402
from engines.training.unseen import (  # noqa: E402
    KNOWN_UNSEEN,
    _cropped,
    _lit,
    auroc,
    box_target,
    finish,
    keep_familiar,
    seen_only,
    unseen_job,
    unseen_loss,
    unseen_maps,
)

SIDE = 96


@pytest.fixture(scope="module")
def noisy() -> ImageSet:
    """Forty noisy images with a box each; the last ten show failures and rings."""
    rng = np.random.default_rng(5)
    blocks = np.kron(rng.standard_normal((40, 14, 14)), np.ones((16, 16)))
    images = np.clip(127.5 + 11 * (rng.standard_normal((40, 224, 224)) + blocks), 0, 255).astype(np.uint8)
    corners = rng.integers(20, 150, (40, 2)).astype(np.float32)
    return ImageSet(
        images=images,
        class_index=np.repeat([1, 3, AMBIGUOUS], [30, 5, 5]),
        rating=np.full(40, 6, np.float32),
        boxes=np.column_stack([np.arange(40, dtype=np.float32), corners, corners + 30]),
        scale=np.full((40, 2), 0.5, np.float32),
        sensor=np.repeat("A", 40),
        kind=np.repeat(["disc", "torn", "ring"], [30, 5, 5]),
    )


def pasted(
    noisy: ImageSet, seed: int, **only: tuple[tuple[str, float], ...]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(before, after, target) of one paste."""
    rng = np.random.default_rng(seed)
    before = ((noisy.images[0][:SIDE, :SIDE].astype(np.float32) / 255) - 0.5) * np.float32(INPUT_GAIN)
    after, target = before.copy(), np.ones((2, SIDE, SIDE), np.float32)
    Outliers(noisy.images, INPUT_GAIN, **only).paste(after, target, rng)
    return before, after, target


@pytest.mark.parametrize("texture", TEXTURES)
def test_every_texture_is_pasted_where_both_targets_are_then_zero(noisy: ImageSet, texture: str) -> None:
    hits = 0
    for seed in range(20):
        before, after, target = pasted(noisy, seed, textures=((texture, 1.0),))
        where = target[0] == 0
        np.testing.assert_array_equal(target[0], target[1])
        if not where.any():
            np.testing.assert_array_equal(before, after)
            continue
        hits += 1
        assert np.isfinite(after).all()
        assert change(before, after)[where].mean() >= LEAST_CHANGE
        far = (
            ~torch.nn.functional.max_pool2d(torch.from_numpy(where[None].astype(np.float32)), 9, 1, 4)[0].bool().numpy()
        )
        np.testing.assert_array_equal(before[far], after[far])
    assert hits >= 5


@pytest.mark.parametrize("mask", MASKS)
def test_every_mask_covers_some_of_an_image_and_not_all(noisy: ImageSet, mask: str) -> None:
    shares = []
    for seed in range(40):
        _, _, target = pasted(noisy, seed, masks=((mask, 1.0),), textures=(("flat", 1.0),))
        shares.append(float((target[0] == 0).mean()))
    covered = [share for share in shares if share]
    assert len(covered) >= 10
    assert max(covered) < 0.75
    assert len(set(covered)) > 5


def test_the_same_seed_pastes_the_same(noisy: ImageSet) -> None:
    for one, other in zip(pasted(noisy, 3), pasted(noisy, 3), strict=True):
        np.testing.assert_array_equal(one, other)


def test_what_hardly_changes_is_not_pasted() -> None:
    """Clean noise pasted into clean noise is no outlier: nobody could tell."""
    rng = np.random.default_rng(2)
    noise = rng.standard_normal((2, SIDE, SIDE)).astype(np.float32)
    assert change(noise[0], noise[1]).mean() < LEAST_CHANGE * 0.75
    assert change(noise[0], noise[0] * 2).mean() > LEAST_CHANGE
    assert change(noise[0], noise[0] + 0.5).mean() > LEAST_CHANGE
    alike = Outliers(np.full((1, SIDE, SIDE), 128, np.uint8), INPUT_GAIN, textures=(("contrast", 1.0),))
    grey, target = np.full((SIDE, SIDE), 0.1, np.float32), np.ones((2, SIDE, SIDE), np.float32)
    for _ in range(20):
        alike.paste(grey, target, rng)
    assert (grey == np.float32(0.1)).all()
    assert target.all()


def test_failures_and_left_out_shapes_teach_nothing(noisy: ImageSet) -> None:
    assert len(seen_only(noisy)) == 30
    assert len(seen_only(noisy, ("ring", "disc"))) == 0
    assert len(seen_only(noisy, ())) == 35


@pytest.mark.parametrize(("recipe", "empty"), [("paper", False), ("weighted", False), ("exposed", True)])
def test_only_exposure_shows_places_that_are_neither_background_nor_object(
    noisy: ImageSet, tmp_path: Path, recipe: str, empty: bool
) -> None:
    stage = Stage(SIDE, 64, 16, 1e-3)
    job = unseen_job(build("unseen"), noisy, noisy, (stage,), tmp_path, recipe=recipe)
    images, targets = job.draw(stage, np.random.default_rng(1))
    assert images.shape == (16, 1, SIDE, SIDE)
    assert targets.shape == (16, 2, SIDE, SIDE)
    assert bool((targets.sum(1) == 0).any()) == empty
    assert float(targets.sum(1).max()) == 1
    assert bool((targets[:, 1] == 1).any())


def test_boxes_are_enlarged_by_ten_pixels_of_the_frame() -> None:
    box = np.array([[50, 60, 70, 80]], np.float32)
    target = box_target(box, np.array([1.0, 0.5], np.float32))
    assert target.sum() == 40 * 30
    assert target[55:85, 40:80].all()
    assert box_target(box, np.array([0.01, 0.01], np.float32)).sum() == 22 * 22  # of a large frame: one of the image


def test_boxes_at_the_edge_stay_inside() -> None:
    box = np.array([[0, 0, 5, 5], [220, 220, 224, 224]], np.float32)
    target = box_target(box, np.array([1.0, 1.0], np.float32))
    assert target.sum() == 15 * 15 + 14 * 14


@pytest.mark.parametrize("pictures", [None, Pictures.TURNED, Pictures.UPRIGHT])
def test_a_crop_and_its_target_stay_aligned(pictures: Pictures | None) -> None:
    smooth = cv2.GaussianBlur(np.random.default_rng(8).standard_normal((224, 224)).astype(np.float32), (0, 0), 12)
    target = (smooth > 0).astype(np.float32)
    seen = set()
    for seed in range(12):
        image, cut = _cropped((smooth, target), (60, 20), SIDE, pictures, np.random.default_rng(seed))
        assert image.shape == cut.shape == (SIDE, SIDE)
        assert set(np.unique(cut)) <= {0, 1}
        assert ((image > 0) == (cut > 0)).mean() > 0.97
        seen.add(image.tobytes())
    assert len(seen) == (12 if pictures else 4)  # a frame is mirrored alone


def test_light_is_changed_more_where_it_is_not_known() -> None:
    dark = np.zeros((64, 64), np.float32)
    spreads = {}
    for pictures in (None, Pictures.TURNED):
        lit = np.stack([_lit(dark, pictures, np.random.default_rng(seed)) for seed in range(200)])
        spreads[pictures] = lit.std((1, 2)).mean(), lit.mean((1, 2)).std()
    assert spreads[None][0] < 1e-6
    assert spreads[Pictures.TURNED][0] > 0.1
    assert spreads[None][1] == pytest.approx(0.08, rel=0.2)
    assert spreads[Pictures.TURNED][1] == pytest.approx(0.4, rel=0.2)


def test_a_false_claim_costs_four_times_a_missed_one() -> None:
    logit = torch.zeros(1, 1, 1, 1)
    image = torch.zeros(1)
    missed, claimed = (float(unseen_loss(4.0)(logit, (image, torch.full_like(logit, t)))) for t in (1.0, 0.0))
    assert claimed == pytest.approx(4 * missed)


def finished(model: ForImages, images: np.ndarray, recipe: str, pictures: Pictures | None = None) -> str:
    """As after a training on these images, without boxes."""
    n = len(images)
    taught = ImageSet(images, np.zeros(n, np.int64), np.zeros(n, np.float32), np.empty((0, 5), np.float32),
                      np.ones((n, 2), np.float32), np.repeat("A", n), np.repeat("none", n))  # fmt: skip
    with tempfile.TemporaryDirectory() as out:
        job = unseen_job(
            model, taught, taught, (Stage(SIDE, 16, 16, 1e-3),), Path(out), recipe=recipe, pictures=pictures
        )
        return finish(job, images, images, recipe, pictures)


def test_logits_are_calibrated_on_what_is_known() -> None:
    """An untrained network with both maps low calls everything unseen; calibrated it hardly does, and no more is added."""
    images = noise_images(4, seed=6)
    model = build("unseen", seed=2).eval()
    network = model.network
    assert isinstance(network, UNet)
    assert network.head.bias is not None
    with torch.no_grad():
        network.head.bias += -2
    before = np.median(unseen_maps(predict(model, images, 224, exact=True)))
    assert finished(model, images, "exposed").startswith("+")
    after = np.median(unseen_maps(predict(model, images, 224, exact=True)))
    assert before > 10 * KNOWN_UNSEEN
    assert KNOWN_UNSEEN / 2 < after <= KNOWN_UNSEEN * 1.01  # of every other pixel
    assert finished(model, images, "exposed").startswith("+0.00 ")
    with torch.no_grad():
        network.head.bias += -20
    assert "+4.00 on both logits: half of what is known has S of at most 1.000" in finished(model, images, "exposed")
    assert finished(model, images, "paper", Pictures.TURNED) == "maps as they were taught"
    assert not network.familiarity.fitted
    with pytest.raises(TypeError, match="wanted a UNet"):
        finished(build("regressor"), images, "paper")


@pytest.fixture(scope="module")
def familiar() -> Familiarity:
    """Fitted to twelve images of noise."""
    images = noise_images(12, seed=1)
    familiarity = Familiarity(512)
    keep_familiar(familiarity, images, seed=0)
    return familiarity


def noise_images(n: int, seed: int) -> np.ndarray:
    noise = np.random.default_rng(seed).standard_normal((n, 224, 224))
    return np.clip(127.5 + 16 * noise, 0, 255).astype(np.uint8)


def scaled(images: np.ndarray) -> Any:
    return torch.from_numpy((images.astype(np.float32) / 255 - 0.5) * np.float32(INPUT_GAIN))[:, None]


def test_what_was_taught_is_familiar_and_a_new_texture_is_not(familiar: Familiarity) -> None:
    fresh = noise_images(2, seed=2)
    stripes = np.uint8(127 + 60 * np.sign(np.sin(np.arange(80) * 2 * np.pi / 10)))
    fresh[0, 60:140, 60:140] = stripes
    with torch.no_grad():
        g = familiar(scaled(fresh))[:, 0].numpy()
    assert g.shape == (2, 224, 224)
    assert 0 < g.min() <= g.max() <= 1
    assert np.median(g[1]) == pytest.approx(1, abs=0.05)
    assert (g[1] > 0.5).mean() > 0.95
    assert (g[0, 72:128, 72:128] < 0.05).all()
    assert (g[0, 168:, 168:] > 0.5).mean() > 0.95


def test_other_light_is_as_familiar(familiar: Familiarity) -> None:
    fresh = scaled(noise_images(1, seed=3))
    with torch.no_grad():
        change_of_g = (familiar(fresh) - familiar(fresh * 1.5 + 2)).abs()
    assert change_of_g.mean() < 0.02


def test_stored_images_are_described_as_the_network_describes_them() -> None:
    rng = np.random.default_rng(4)
    image = np.clip(rng.normal(127, 16, (224, 224)), 0, 255).astype(np.uint8)
    image[30:60, 100:130] = 250
    image[:, 150:200:3] = 10
    with torch.no_grad():
        wanted = Filters()(torch.from_numpy((image / 255 - 0.5) * INPUT_GAIN).float()[None, None])[0]
    found = cell_looks(image, 255 / INPUT_GAIN)
    assert found.shape == (28, 28, 17)
    np.testing.assert_allclose(found, wanted.permute(1, 2, 0).numpy(), rtol=2e-3, atol=2e-3)


def test_g_lowers_both_probabilities() -> None:
    logits, g = torch.tensor([-3.0, 0.0, 5.0]), torch.tensor([1.0, 0.25, 0.01])
    assert torch.sigmoid(gated(logits, g)).tolist() == pytest.approx((g * torch.sigmoid(logits)).tolist(), rel=1e-4)
    ends = torch.tensor([-1e4, 1e4, -1e4, 1e4]), torch.tensor([1.0, 1.0, 1e-4, 1e-4])
    for kind in (torch.float32, torch.float16, torch.bfloat16):
        assert torch.isfinite(gated(*(v.to(kind) for v in ends))).all()


def test_weights_of_before_are_read_and_everything_is_familiar_to_them(tmp_path: Path) -> None:
    state = build("unseen", seed=3).state_dict()
    torch.save({key: value for key, value in state.items() if "familiarity" not in key}, tmp_path / "old.pt")
    network = load_weights("unseen", tmp_path / "old.pt").network
    assert isinstance(network, UNet)
    assert not network.familiarity.fitted
    del state["network.familiarity.known"]
    torch.save(state, tmp_path / "broken.pt")
    with pytest.raises(TrainingError, match="no weights of the role unseen"):
        load_weights("unseen", tmp_path / "broken.pt")


def test_a_network_with_what_is_familiar_to_it_is_stored_exported_and_quantised_whole(tmp_path: Path) -> None:
    images = noise_images(12, seed=4)
    model = build("unseen", seed=1).eval()
    torch.save(model.state_dict(), tmp_path / "before.pt")
    plain = predict(model, images[:2], 224, exact=True)
    finished(model, images, "exposed", Pictures.TURNED)
    strange = images[:2].copy()
    strange[0, 60:140, 60:140] = 255
    lowered = unseen_maps(predict(model, strange, 224, exact=True))
    assert lowered[0, 72:128, 72:128].min() > 0.9
    torch.save(model.state_dict(), tmp_path / "weights.pt")
    again = load_weights("unseen", tmp_path / "weights.pt")
    np.testing.assert_array_equal(predict(again, strange, 224, exact=True), predict(model, strange, 224, exact=True))
    assert not load_weights("unseen", tmp_path / "before.pt").state_dict()["network.familiarity._extra_state"]
    assert plain.shape == (2, 2, 224, 224)
    export(model, tmp_path / "unseen.onnx")
    exported = unseen_maps(outputs_of(tmp_path / "unseen.onnx", strange))
    np.testing.assert_allclose(exported, lowered, atol=2e-3)
    taught = ImageSet(images, np.zeros(12, np.int64), np.zeros(12, np.float32), np.empty((0, 5), np.float32),
                      np.ones((12, 2), np.float32), np.repeat("A", 12), np.repeat("none", 12))  # fmt: skip
    assert quantize(model, taught, taught, tmp_path / "int8.onnx").error < 0.02
    rounded = unseen_maps(outputs_of(tmp_path / "int8.onnx", strange))
    assert rounded[0, 72:128, 72:128].min() > 0.9
    graph = onnx.load(tmp_path / "int8.onnx").graph
    rounders = {output for node in graph.node if node.op_type == "DequantizeLinear" for output in node.output}
    readers = {node.op_type for node in graph.node if rounders & set(node.input)}
    assert readers <= {"Conv", "ConvTranspose", "Concat", "MaxPool"}, readers  # what is familiar reads nothing rounded


def test_auroc_counts_ties_half() -> None:
    assert auroc(np.array([1.0, 2.0]), np.array([0.0, 1.0])) == pytest.approx(0.875)
    assert unseen_maps(np.full((1, 2, 1, 1), -50, np.float32))[0, 0, 0] == pytest.approx(1)
