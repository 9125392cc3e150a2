"""`make solar-ways`: ways of learning from few solar cells, side by side without photographs, on the folds of `make real`.

One ResNet18-D with two outputs, P(defective) and level, taught P as given (0, 1/3, 2/3, 1) by cross entropy and the level
by Huber loss. What helps here belongs into training; nothing trained is shipped.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from appliance.dataset import DataSet
from appliance.terminal import read_data
from appliance.training_sets import images_of, picture_image, read_picture
from benchmarks.harness import RESULTS, as_json, machine
from benchmarks.real.crossval import HERE
from engines import bundle
from engines.models import IMAGE_SIDE, LEVEL_MIDDLE, LEVEL_SPAN, ForImages, resnet18_d
from engines.training.classify import augment
from engines.training.data import ImageSet, Pictures
from engines.training.evaluate import wilson
from engines.training.fit import Batch, Job, Stage, fit, predict, reestimate_norms, to_images
from engines.training.networks import seen_from_all_sides
from engines.training.regress import HUBER_DELTA
from engines.training.unseen import auroc
from engines.training.warm_start import start_from

RESULT_FILE = RESULTS / "solar_ways.json"
SOLAR = "elpv_solar"
OTHERS = ("neu_det", "magnetic_tile")  # pictures of other things, with a class each
OTHER_IMAGES = 24_000  # of them seen before the solar cells
OWN_CONTRAST = 0.25  # of a picture that keeps its brightness: grey values, brought near to stretched ones
RATE, BATCH = 6e-4, 16


@dataclass(frozen=True, slots=True)
class Way:
    """One way to learn.

    Attributes:
        side: pixels.
        images: seen.
        stretched: as pictures are in the product: each to its own median and spread; else all at one brightness scale.
        start: starter (the shipped regressor), nothing, or others (starter, then the classes of OTHERS).
        mixed: parameter of the Beta distribution that pairs of pictures are mixed by (mixup); 0: they are not.
    """

    side: int = 128
    images: int = 24_000
    stretched: bool = True
    start: str = "starter"
    mixed: float = 0.0


WAYS = {
    "from the starter, 128 pixels": Way(),
    "224 pixels": Way(side=224, images=12_000),
    "brightness kept": Way(stretched=False),
    "mixed pairs, longer": Way(images=48_000, mixed=0.4),
    "other pictures first": Way(start="others"),
}


def own_brightness(grey: NDArray[np.uint16]) -> NDArray[np.uint8]:
    """A picture as it is, (224, 224), its contrast near that of stretched ones."""
    small = cv2.resize(grey, (IMAGE_SIDE, IMAGE_SIDE), interpolation=cv2.INTER_AREA).astype(np.float32) / 65535
    return np.asarray(np.rint(255 * (0.5 + (small - 0.5) * OWN_CONTRAST)), np.uint8)


def images_by(data: DataSet, split: str, way: Way) -> ImageSet:
    """A split's images in a way's form."""
    found = images_of(data, data.of_split(split))
    if not way.stretched:
        found.images[:] = [own_brightness(read_picture(data.folder / row.file)) for row in data.of_split(split)]
    return found


def others(folder: Path, rng: np.random.Generator) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Images of other things and their classes, numbered over all sets."""
    images, classes = [], []
    for name in OTHERS:
        rows = [line.split(",") for line in (folder / name / "labels.csv").read_text().splitlines()[1:]]
        classes += [f"{name}/{row[1]}" for row in rows]
        images += [picture_image(read_picture(folder / name / "images" / row[0])) for row in rows]
    order = rng.permutation(len(images))
    return np.stack(images)[order], np.unique(classes, return_inverse=True)[1][order].astype(np.int64)


def fresh(outputs: int, side: int) -> ForImages:
    """A ResNet18-D with so many bare outputs."""
    return ForImages("classifier", resnet18_d(outputs), side)


def begun(way: Way, folder: Path, seen: NDArray[np.uint8], seed: int) -> ForImages:
    """A network with two outputs that starts as the way says."""
    torch.manual_seed(seed)
    model = fresh(2, way.side)
    if way.start == "nothing":
        return model
    file = bundle.load(bundle.find("starter")).model("regressor")
    shipped = ForImages("regressor", resnet18_d(1), 128)
    start_from(shipped, file, seen[:64])
    if way.start == "others":
        shipped = _taught_others(shipped, folder, seed)
    kept = {k: v for k, v in shipped.network.state_dict().items() if not k.startswith("fc.")}
    model.network.load_state_dict(kept, strict=False)
    return model


def _taught_others(start: ForImages, folder: Path, seed: int) -> ForImages:
    images, classes = others(folder, np.random.default_rng(seed))
    model = fresh(int(classes.max()) + 1, 128)
    kept = {k: v for k, v in start.network.state_dict().items() if not k.startswith("fc.")}
    model.network.load_state_dict(kept, strict=False)
    held = len(images) // 10

    def draw(stage: Stage, rng: np.random.Generator) -> Batch:
        chosen = np.sort(rng.choice(np.arange(held, len(images)), stage.batch, replace=False))
        return augment(to_images(images[chosen], stage.side), rng), torch.from_numpy(classes[chosen])

    def right(model: nn.Module, side: int) -> dict[str, float]:
        return {"accuracy": float((predict(model, images[:held], side).argmax(1) == classes[:held]).mean())}

    with tempfile.TemporaryDirectory() as out:
        fit(Job(model=model, draw=draw, loss=lambda o, b: nn.functional.cross_entropy(o, b[1]), validate=right,
                stages=(Stage(128, OTHER_IMAGES, 32, RATE),), out=Path(out), seed=seed))  # fmt: skip
    return model


def learnt(way: Way, model: ForImages, train: ImageSet, seed: int) -> None:
    """Train a network on solar cells, in place."""
    chance, level = (torch.from_numpy(v) for v in (train.rating / 10, (train.rating - LEVEL_MIDDLE) / LEVEL_SPAN))

    def draw(stage: Stage, rng: np.random.Generator) -> Batch:
        chosen = np.sort(rng.choice(len(train), stage.batch, replace=False))
        images = augment(to_images(train.images[chosen], stage.side), rng, upright=True)
        share = float(rng.beta(way.mixed, way.mixed)) if way.mixed else 1.0
        return tuple(share * v + (1 - share) * v.flip(0) for v in (images, chance[chosen], level[chosen]))

    def loss(output: Tensor, batch: Batch) -> Tensor:
        certainty = nn.functional.binary_cross_entropy_with_logits(output[:, 0], batch[1])
        return certainty + nn.functional.huber_loss(output[:, 1], batch[2], delta=HUBER_DELTA / LEVEL_SPAN)

    with tempfile.TemporaryDirectory() as out:
        fit(Job(model=model, draw=draw, loss=loss, validate=lambda *_: {}, out=Path(out), seed=seed,
                stages=(Stage(way.side, way.images, BATCH, RATE),)))  # fmt: skip
    reestimate_norms(model, train.images, way.side)


def tested(model: ForImages, test: ImageSet) -> dict[str, list[float]]:
    """P(defective) and level of each test picture, the mean of its four views, beside the truth."""

    def asked(images: NDArray[np.uint8]) -> NDArray[np.float32]:
        out = predict(model, images, model.side)
        return np.stack([10 / (1 + np.exp(-out[:, 0])), LEVEL_MIDDLE + LEVEL_SPAN * out[:, 1]], 1)

    both = seen_from_all_sides(asked, Pictures.UPRIGHT)(test.images)
    return {"p": [round(float(v), 4) for v in both[:, 0] / 10], "truth": [round(float(v), 4) for v in test.rating],
            "level": [round(float(v), 3) for v in np.clip(both[:, 1], 0, 10)]}  # fmt: skip


def summary(folds: list[dict[str, Any]]) -> dict[str, Any]:
    """Accuracy, AUROC (mean of folds) and level error over folds."""
    p, level, truth = (np.concatenate([fold[key] for fold in folds]) for key in ("p", "level", "truth"))
    right = (p > 0.5) == (truth > 5)
    ranked = [auroc(a[t > 5], a[t <= 5]) for a, t in ((np.array(f["p"]), np.array(f["truth"])) for f in folds)]
    return {"n": len(p), "accuracy": float(right.mean()), "interval": wilson(int(right.sum()), len(p)),
            "auroc": float(np.mean(ranked)), "mae": float(np.abs(level - truth).mean()),
            "minutes": float(np.mean([fold["minutes"] for fold in folds]))}  # fmt: skip


def run(way: Way, folder: Path, fold: int, seed: int) -> dict[str, Any]:
    """Train on all folds but one of five, test on that one."""
    began = time.monotonic()
    data = read_data(folder / SOLAR, HERE / f"{SOLAR}.toml", f"{fold}/5")
    train, test = (images_by(data, split, way) for split in ("train", "test"))
    model = begun(way, folder, train.images, seed)
    learnt(way, model, train, seed)
    return tested(model, test) | {"minutes": (time.monotonic() - began) / 60, "machine": machine()}


def saved() -> dict[str, Any]:
    """Results by way; read again before each writing, since several processes may add to them."""
    ways: dict[str, Any] = json.loads(RESULT_FILE.read_text())["ways"] if RESULT_FILE.exists() else {}
    return ways


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder of all sets of pictures")
    parser.add_argument("--way", choices=WAYS, action="append", help="default: all of them")
    parser.add_argument("--fold", type=int, choices=range(1, 6), action="append", help="default: all five")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    for fold in arguments.fold or range(1, 6):
        for name in arguments.way or WAYS:
            if str(fold) in saved().get(name, {}).get("folds", {}):
                continue
            found = run(WAYS[name], arguments.data, fold, arguments.seed)
            ways = saved()
            folds = ways.get(name, {}).get("folds", {}) | {str(fold): found}
            ways[name] = {"way": asdict(WAYS[name]), **summary(list(folds.values())), "folds": folds}
            RESULT_FILE.write_text(as_json({"ways": ways}))
            print(name, fold, summary([found]), flush=True)


if __name__ == "__main__":
    main()
