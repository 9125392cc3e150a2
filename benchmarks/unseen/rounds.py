"""Rounds of labeling: ten first images, then ten more twice, chosen by a strategy from what the labels so far teach."""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from appliance import labels, training_sets
from benchmarks.harness import digest_of
from benchmarks.unseen import detector, maps, sets
from benchmarks.unseen.detector import Album, CenterNet, Score, detect, heat_maps, scores, train_detector
from benchmarks.unseen.maps import logits_of, measured, trained
from benchmarks.unseen.sets import Picture
from engines import histograms, looks, models, ranking, regions
from engines.models import efficientnet_lite, familiarity, unet
from engines.ranking import Candidate, balanced_alpha, describe, diverse, m_alpha_middle
from engines.regions import find_regions
from engines.training import data, fit, outliers, photographs, presets
from engines.training import unseen as unseen_training
from engines.training.data import Pictures
from kernels import UnseenMetrics

FIRST, ROUND, ROUNDS = 10, 10, 2
MOST_POOL, MOST_TEST = 200, 150
TEST_EVERY = 3  # groups: one in so many is for a test
TRIED = 5  # seeds below were there to try constants with, and have a test of their own
STAGES = tuple(
    replace(stage, images=stage.images // 2) for stage in maps.STAGES
)  # people wait: half as long, nearly as good
LEAST_PEAK = 0.05  # of a heat map, that is looked at for uncertainty

Values = NDArray[np.floating]


@dataclass(frozen=True, slots=True)
class Trial:
    """One set and seed.

    Attributes:
        pool: pictures that may be labeled, evenly spread over the directory, in its order from a place that the seed chooses.
        test: what detectors are tested on, the same for all seeds that are reported.
        classes: of the set.
        turns: what pictures may be turned to.
        seed: of the trial.
    """

    pool: list[Picture]
    test: list[Picture]
    classes: list[str]
    turns: Pictures
    seed: int


def trial(found: Sequence[Picture], seed: int, turns: Pictures = Pictures.TURNED) -> Trial:
    """Divide a set by groups, which are never divided.

    The test is the same for all seeds from 5 on, and holds nothing that detectors of lower seeds were tested on.

    Raises:
        ValueError: a class of the test is nowhere in the pool.
    """
    for_test = _groups_for_test(found)
    if seed >= TRIED:
        for_test = _groups_for_test(found, but=for_test)
    tested = [p for p in found if p.group in for_test]
    left = [p for p in found if p.group not in for_test]
    groups = list(dict.fromkeys(p.group for p in left))
    begin = groups[int(np.random.default_rng((seed, 41)).integers(len(groups)))]
    start = next(i for i, p in enumerate(left) if p.group == begin)
    turned = left[start:] + left[:start]
    pool = [turned[i] for i in np.linspace(0, len(turned) - 1, min(MOST_POOL, len(turned))).astype(int)]
    test = [tested[i] for i in sorted(np.random.default_rng(41).permutation(len(tested))[:MOST_TEST])]
    if missing := {c for p in test for c in p.classes} - {c for p in pool for c in p.classes}:
        raise ValueError(f"pool of seed {seed}: nothing of {', '.join(sorted(missing))}, which the test asks for")
    return Trial(pool, test, sorted({c for p in found for c in p.classes}), turns, seed)


def _groups_for_test(found: Sequence[Picture], but: Collection[str] = ()) -> set[str]:
    """A third of the groups of every class, of rare classes first, and of those without any; by their names.

    Args:
        found: pictures of the set.
        but: groups that are not to be among them.
    """
    of_class: dict[str, set[str]] = defaultdict(set)
    for picture in found:
        for name in picture.classes or ("",):
            of_class[name].add(picture.group)
    dealt: set[str] = set()
    for_test: set[str] = set()
    for name in sorted(of_class, key=lambda c: (len(of_class[c]), c)):
        wanted = round(len(of_class[name]) / TEST_EVERY) - len(for_test & of_class[name])
        fresh = sorted(of_class[name] - dealt - set(but), key=lambda group: hashlib.sha256(group.encode()).hexdigest())
        for_test |= set(fresh[: max(0, wanted)])
        dealt |= of_class[name]
    return for_test


class Memo:
    """Results by key in a JSON file, so that a run goes on where it was stopped."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}

    def get(self, key: str, make: Callable[[], Any]) -> Any:
        """What is kept under the key, made now where nothing is."""
        if key not in self._found:
            self._found[key] = make()
            temporary = self._path.with_suffix(".tmp")
            temporary.write_text(json.dumps(self._found))
            temporary.replace(self._path)
        return self._found[key]

    def starting(self, words: str) -> list[Any]:
        """What is kept under all keys that start so."""
        return [value for key, value in self._found.items() if key.startswith(words)]


@dataclass(slots=True)
class Bench:
    """A trial with what was computed for it.

    Attributes:
        trial: which.
        memo: choices and scores, on disk.
        heat: uncertainty by detectors of the labels of a round, in memory.
        album: pictures as the detectors' trunk sees them.
    """

    trial: Trial
    memo: Memo
    heat: dict[str, tuple[list[int], Values]] = field(default_factory=dict)
    album: Album = field(default_factory=Album)

    def learnt(self, labeled: Sequence[int]) -> CenterNet:
        """A detector that learns these images."""
        of = [self.trial.pool[i] for i in labeled]
        return train_detector(of, self.trial.classes, seed=self.trial.seed, album=self.album)

    def chosen(self, strategy: str) -> list[int]:
        """All images that a strategy labels, in its order."""
        labeled = list(range(FIRST))
        for _ in range(ROUNDS):
            choose = partial(STRATEGIES[strategy], self, tuple(labeled))
            labeled += self.memo.get(f"next {strategy} {_key(labeled)}", choose)
        return labeled

    def until(self, strategy: str, boxes: int) -> list[int]:
        """The first images of a strategy that hold so many boxes, at least the first ten."""
        numbers = self.chosen(strategy)
        held = np.cumsum([len(self.trial.pool[i].classes) for i in numbers])
        return numbers[: max(FIRST, int(np.searchsorted(held, boxes)) + 1)]

    def detected(self, labeled: Sequence[int]) -> dict[str, Score]:
        """Scores by class of a detector that learns these images."""

        kept = self.memo.get(f"detector {_key(sorted(labeled))}", lambda: self._tested(self.learnt(labeled)))
        return {name: Score(*numbers) for name, numbers in kept.items()}

    def uncertain(self, labeled: Sequence[int]) -> tuple[list[int], Values]:
        """Images not labeled yet, and the heat maps of a detector that learns these ones."""
        if (key := _key(sorted(labeled))) not in self.heat:
            detector, left = self.learnt(labeled), self.left(labeled)
            self.heat[key] = (left, heat_maps(detector, [self.trial.pool[i] for i in left])[0])
            self.memo.get(f"detector {key}", lambda: self._tested(detector))
        return self.heat[key]

    def _tested(self, detector: CenterNet) -> dict[str, list[float]]:
        found = scores(detect(detector, self.trial.test), self.trial.test, self.trial.classes)
        return {name: [s.precision, s.recall, s.f1] for name, s in found.items()}

    def seconds(self, recipe: str) -> float:
        """Mean seconds of one core that a round took: training a UNet, running it over what is left, ordering that."""
        return float(np.mean([kept["seconds"] for kept in self.memo.starting(f"unseen {recipe} ")]))

    def left(self, labeled: Sequence[int]) -> list[int]:
        """Images not labeled yet."""
        return [i for i in range(len(self.trial.pool)) if i not in set(labeled)]


@cache
def digest() -> str:
    """Names the code that choices and scores come from, as it was when it was first asked for."""
    return digest_of(unseen_training, outliers, fit, photographs, presets, data, models, unet, familiarity, efficientnet_lite,
                     looks, ranking, regions, histograms, labels, training_sets, maps, sets, detector,
                     sys.modules[__name__])  # fmt: skip


def _key(numbers: Sequence[int]) -> str:
    return hashlib.sha256(repr(list(numbers)).encode()).hexdigest()[:12]


def _sequential(bench: Bench, labeled: Sequence[int]) -> list[int]:
    return bench.left(labeled)[:ROUND]


def _random(bench: Bench, labeled: Sequence[int]) -> list[int]:
    rng = np.random.default_rng((bench.trial.seed, len(labeled), 5))
    return [int(i) for i in rng.permutation(bench.left(labeled))[:ROUND]]


def _uncertain(of_peak: Callable[[Values], float]) -> Callable[[Bench, Sequence[int]], list[int]]:
    """Most uncertain first, by the least certain object of the detector that the labels so far teach."""

    def choose(bench: Bench, labeled: Sequence[int]) -> list[int]:
        left, heat = bench.uncertain(labeled)
        value = [max((of_peak(p) for p in _peaks(one)), default=0.0) for one in heat]
        return [left[i] for i in np.argsort(-np.array(value), kind="stable")[:ROUND]]

    return choose


def _peaks(heat: Values) -> list[Values]:
    """(classes, 56, 56) -> probabilities of all classes at each peak of the strongest one."""
    top = np.asarray(heat.max(0), np.float32)
    peaks = (top == cv2.dilate(top, np.ones((3, 3), np.uint8))) & (top >= LEAST_PEAK)
    return [heat[:, j, i] for j, i in np.argwhere(peaks)]


def entropy_of(p: Values) -> float:
    """Sum over the classes of the entropy of "there or not", in nats."""
    q = np.clip(np.asarray(p, float), 1e-9, 1 - 1e-9)
    return float(-(q * np.log(q) + (1 - q) * np.log(1 - q)).sum())


def margin_of(p: Values) -> float:
    """1 - what the likeliest is ahead of the next, of all classes and nothing at all."""
    likely = np.sort([*p, max(0.0, 1 - float(np.max(p)))])
    return float(1 - (likely[-1] - likely[-2]))


@dataclass(frozen=True, slots=True)
class Unseen:
    """What a UNet of the labels so far finds unseen in the images left.

    Attributes:
        left: numbers of the images.
        metrics: of each.
        t: threshold they are for.
    """

    left: list[int]
    metrics: list[UnseenMetrics]
    t: float


def unseen(bench: Bench, labeled: Sequence[int], recipe: str) -> Unseen:
    """Train a UNet on the labels so far and run it over what is left."""
    pool, left = bench.trial.pool, bench.left(labeled)
    labeled_ones = [pool[i] for i in labeled]
    model = trained(labeled_ones, bench.trial.turns, seed=bench.trial.seed, recipe=recipe, stages=STAGES)
    metrics, t = measured(logits_of(model, [pool[i] for i in left]))
    return Unseen(left, metrics, t)


def _by_unseen(
    metric: str, *, recipe: str = "photographs", unlike: bool = False
) -> Callable[[Bench, Sequence[int]], list[int]]:
    """Most unseen first by one of the product's metrics; near-duplicates left out where wanted."""

    def choose(bench: Bench, labeled: Sequence[int]) -> list[int]:
        # The labels of the first round are the same for all strategies, and so is the network: its orders are kept together.
        orders: dict[str, list[int]] = bench.memo.get(
            f"unseen {recipe} {_key(labeled)}", lambda: _orders(bench, labeled, recipe)
        )
        return orders[f"{metric} diverse" if unlike else metric][:ROUND]

    return choose


def _orders(bench: Bench, labeled: Sequence[int], recipe: str) -> dict[str, Any]:
    """The images left, in the order of each metric, and the seconds of one core that took."""
    began = time.process_time()
    found = unseen(bench, labeled, recipe)
    pool = bench.trial.pool
    alpha = balanced_alpha(Counter(c for i in labeled for c in pool[i].classes))
    values: dict[str, NDArray[np.float64]] = {
        "m_thresh": np.array([m.m_thresh for m in found.metrics], float),
        "m_alpha": np.array([m.m_alpha for m in found.metrics]),
        "rois": np.array([sum(r.peak for r in find_regions(m.map, threshold=found.t)) for m in found.metrics]),
        "balanced": m_alpha_middle(np.stack([m.histogram for m in found.metrics]), alpha),
    }
    orders: dict[str, Any] = {"alpha": alpha, "t": found.t}
    for name, value in values.items():
        order = np.argsort(-value, kind="stable")
        orders[name] = [found.left[i] for i in order[: 2 * ROUND]]
        known = (describe(pool[found.left[i]].image, found.metrics[i].map, found.t) for i in order)
        unlike = diverse((Candidate(int(i), float(value[i]), one) for i, one in zip(order, known, strict=True)), ROUND)
        unlike += [int(i) for i in order if i not in set(unlike)][: ROUND - len(unlike)]
        orders[f"{name} diverse"] = [found.left[i] for i in unlike]
    return orders | {"seconds": time.process_time() - began}


STRATEGIES: dict[str, Callable[[Bench, Sequence[int]], list[int]]] = {
    "sequential": _sequential,
    "random": _random,
    "entropy": _uncertain(entropy_of),
    "margin": _uncertain(margin_of),
    "paper": _by_unseen("m_alpha", recipe="paper"),
    "m_thresh": _by_unseen("m_thresh"),
    "m_alpha": _by_unseen("m_alpha"),
    "rois": _by_unseen("rois"),
    "balanced": _by_unseen("balanced"),
    "balanced diverse": _by_unseen("balanced", unlike=True),
    "rois diverse": _by_unseen("rois", unlike=True),
}  # fmt: skip
