"""`make left-out`: classes that a UNet never saw, found among pictures of those that it did; three real sets, five seeds."""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import combinations
from pathlib import Path
from statistics import fmean
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from appliance import training_sets
from benchmarks.harness import RESULTS, digest_of, machine, mean_interval, results_of
from benchmarks.unseen import maps as maps_module
from benchmarks.unseen import sets
from benchmarks.unseen.maps import logits_of, trained
from benchmarks.unseen.sets import CORNERS, TURNS, Picture, pictures
from engines import looks, models
from engines.models import efficientnet_lite, familiarity, unet
from engines.models.unet import TwoMaps
from engines.training import data, fit, outliers, photographs, presets, unseen
from engines.training.data import Pictures
from engines.training.unseen import auroc, box_target, unseen_maps
from kernels import IMAGE_SIDE

RESULT_FILE = RESULTS / "left_out.json"
SEEDS = range(10, 15)  # with the lower ones constants were tried
SHARE, FEWEST = 0.05, 20  # of a set that is labeled to begin with
MOST_OF_A_CLASS, MOST_WITHOUT = 10, 100  # pictures of each left-out class, and without any, in the pool
ALPHAS = (1.0, 2.0, 4.0, 8.0)
PIXELS_APART = 4  # of the background every fourth pixel each way is looked at

Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Division:
    """A set divided by classes.

    Attributes:
        training: pictures without anything of the left-out classes.
        pool: others, of other groups.
        positive: (n,) which of the pool show something of a left-out class.
        left_out: classes.
    """

    training: list[Picture]
    pool: list[Picture]
    positive: Mask
    left_out: frozenset[str]


def divide(found: Sequence[Picture], seed: int) -> Division:
    """Half of the classes, the smaller half where they are odd, are seen; 5 % of the set, at least 20 pictures, is labeled.

    Neighbouring seeds leave other classes out, until there are no others.
    """
    rng = np.random.default_rng((seed, 77))
    classes = sorted({c for p in found for c in p.classes})
    halves = list(combinations(classes, len(classes) // 2))
    seen = halves[np.random.default_rng(77).permutation(len(halves))[seed % len(halves)]]
    left_out = frozenset(classes) - set(seen)
    shuffled = [found[i] for i in rng.permutation(len(found))]
    clean = [p for p in shuffled if not left_out & set(p.classes)]
    training = _of_each(clean, seen, max(FEWEST, round(SHARE * len(found))))
    groups = {p.group for p in training}
    rest = [p for p in shuffled if p.group not in groups]
    with_it: list[Picture] = []
    taken: Counter[str] = Counter()
    for picture in rest:
        new = left_out & set(picture.classes)
        if new and min(taken[c] for c in new) < MOST_OF_A_CLASS:
            with_it.append(picture)
            taken.update(new)
    without = _half_known([p for p in rest if not left_out & set(p.classes)], MOST_WITHOUT)
    positive = np.repeat([False, True], [len(without), len(with_it)])
    return Division(training, without + with_it, positive, left_out)


def _half_known(found: Sequence[Picture], count: int) -> list[Picture]:
    """Half with known objects and half with none, or more of one kind where the other is short; in order."""
    known, clean = ([i for i, p in enumerate(found) if bool(p.classes) == with_any] for with_any in (True, False))
    most = max(count // 2, count - len(clean))
    kept = known[:most]
    return [found[i] for i in sorted(kept + clean[: count - len(kept)])]


def _of_each(found: Sequence[Picture], classes: Sequence[str], count: int) -> list[Picture]:
    """Pictures of every class in turn, and of none where there are such, until there are enough."""
    waiting = [[p for p in found if c in p.classes] for c in classes] + [[p for p in found if not p.classes]]
    chosen: dict[str, Picture] = {}
    while len(chosen) < count and any(waiting):
        for pictures_left in waiting:
            while pictures_left and pictures_left[0].name in chosen:
                pictures_left.pop(0)
            if pictures_left:
                chosen[pictures_left[0].name] = pictures_left.pop(0)
    return list(chosen.values())[:count]


def masks(picture: Picture, left_out: frozenset[str]) -> tuple[Mask, Mask]:
    """(224, 224): inside a box of a left-out class; and outside of every box, each enlarged as in training."""
    new = np.zeros((IMAGE_SIDE, IMAGE_SIDE), bool)
    background = box_target(picture.boxes, np.array(picture.scale, np.float32)) == 0
    for (x0, y0, x1, y1), name in zip(picture.boxes, picture.classes, strict=True):
        if name in left_out:
            new[max(0, int(y0)) : int(np.ceil(y1)), max(0, int(x0)) : int(np.ceil(x1))] = True
    return new, background


def softmax_entropy(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """(n, 2, h, w) -> (n, h, w): entropy of the softmax over background and object, in nats."""
    p = 1 / (1 + np.exp(np.clip(logits[:, 1] - logits[:, 0], -40, 40)))
    terms = [np.where(q > 0, q * np.log(np.maximum(q, 1e-30)), 0) for q in (p, 1 - p)]
    return np.asarray(-(terms[0] + terms[1]), np.float32)


def pixel_auroc(maps: NDArray[np.floating], division: Division) -> float:
    """Of pixels in left-out boxes against pixels of the background of all pictures."""
    inside, outside = [], []
    for one, picture in zip(maps, division.pool, strict=True):
        new, background = masks(picture, division.left_out)
        inside.append(one[new])
        outside.append(one[::PIXELS_APART, ::PIXELS_APART][background[::PIXELS_APART, ::PIXELS_APART]])
    return auroc(np.concatenate(inside), np.concatenate(outside))


def judged(division: Division, turns: Pictures, seed: int, *, recipe: str, networks: int = 1) -> dict[str, Any]:
    """AUROC of pictures and pixels of one division with one recipe.

    Entropy is asked of the maps as the network learnt them, before what is unfamiliar is taken off them.
    """
    began = time.process_time()
    logits = np.full((len(division.pool), 2, IMAGE_SIDE, IMAGE_SIDE), np.inf, np.float32)
    bare = logits.copy()
    for k in range(networks):
        model = trained(division.training, turns, seed=seed * 10 + k, recipe=recipe)
        logits = np.minimum(logits, logits_of(model, division.pool))
        if isinstance(model.network, TwoMaps):
            model.network.familiarity.fitted = False
        bare = np.minimum(bare, logits_of(model, division.pool))
    seconds = time.process_time() - began
    maps, entropy = unseen_maps(logits), softmax_entropy(bare)
    table: dict[str, Any] = {"pixels": pixel_auroc(maps, division), "entropy, pixels": pixel_auroc(entropy, division)}
    known = np.array([bool(p.classes) for p in division.pool]) & ~division.positive
    ranked = {f"m_alpha {alpha:g}": (maps.astype(float) ** alpha).sum((1, 2)) for alpha in ALPHAS}
    for name, values in (ranked | {"entropy": entropy.sum((1, 2))}).items():
        for words, negative in (("", ~division.positive), (" against known", known),
                                (" against clean", ~known & ~division.positive)):  # fmt: skip
            if negative.any():
                table[name + words] = auroc(values[division.positive], values[negative])
    return table | {"core seconds": round(seconds, 1)}


def summary(runs: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Mean and half of the 95 % interval over seeds, by set and recipe; the mean over sets of those that all sets have."""
    table: dict[str, Any] = {}
    names = sorted({(run["set"], run["recipe"]) for run in runs.values()})
    for name, recipe in names:
        here = [run["table"] for run in runs.values() if (run["set"], run["recipe"]) == (name, recipe)]
        shared = [key for key in here[0] if all(key in one for one in here)]
        table[f"{name} {recipe}"] = {key: mean_interval([one[key] for one in here]) for key in shared}
    for recipe in sorted({recipe for _, recipe in names}):
        parts = [table[f"{name} {recipe}"] for name, _ in names if f"{name} {recipe}" in table and _ == recipe]
        shared = [key for key in parts[0] if all(key in part for part in parts)]
        table[f"mean of {len(parts)} sets {recipe}"] = {key: fmean(part[key][0] for part in parts) for key in shared}
    return table


@cache
def digest() -> str:
    """Names the code that runs are of, as it was when it was first asked for."""
    return digest_of(
        unseen,
        outliers,
        fit,
        unet,
        looks,
        familiarity,
        efficientnet_lite,
        photographs,
        presets,
        data,
        models,
        training_sets,
        maps_module,
        sets,
        sys.modules[__name__],
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--set", choices=CORNERS, action="append", help="default: all")
    parser.add_argument("--seed", type=int, action="append", help="default: 10 to 14")
    parser.add_argument(
        "--recipe",
        action="append",
        help="paper, exposed, or photographs (a network that begins with what these teach); default: all",
    )
    parser.add_argument("--networks", type=int, default=1)
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    code = digest()
    for name in arguments.set or CORNERS:
        found = pictures(name, arguments.data)
        for seed in arguments.seed or SEEDS:
            division = divide(found, seed)
            for recipe in arguments.recipe or ("paper", "exposed", "photographs"):
                key = f"{name} {recipe} x{arguments.networks} {seed}"
                with results_of(RESULT_FILE) as kept:
                    runs = kept["runs"] if kept.get("code") == code else {}
                if key not in runs:
                    table = judged(division, TURNS[name], seed, recipe=recipe, networks=arguments.networks)
                    of = {"set": name, "recipe": f"{recipe} x{arguments.networks}", "seed": seed}
                    of |= {"left_out": sorted(division.left_out), "pool": len(division.pool), "machine": machine()}
                    with results_of(RESULT_FILE) as kept:
                        others = kept["runs"] if kept.get("code") == code else {}
                        runs = dict(sorted({**others, key: of | {"table": table}}.items()))
                        kept |= {"code": code, "summary": summary(runs), "runs": runs}
                print(key, {k: round(v, 3) for k, v in runs[key]["table"].items()}, flush=True)


if __name__ == "__main__":
    main()
