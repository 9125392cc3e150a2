"""`make compare`: AdamW beside SGD, four classes beside two, and each sensor left out; small runs from nothing, one table."""

from __future__ import annotations

import argparse
import json
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from appliance.training_sets import VALIDATION, simulated_set, training_sets
from benchmarks.harness import RESULTS, as_json, machine
from engines.classes import CLASSES, p_ng
from engines.simulation import SENSORS
from engines.simulation.plans import TABLE_1
from engines.training.classify import scores as class_scores
from engines.training.data import AMBIGUOUS, ImageSet, SetRecipe
from engines.training.evaluate import f1_interval
from engines.training.fit import predict
from engines.training.quantize import load_weights
from engines.training.regress import scores as level_scores
from engines.training.train import train

FRAMES, TEST_FRAMES, TEST_SEED = 24_000, 12_000, 5_000
PAPER_SEED = 6_000
# Seed, preset, frames, what it is called.
PAPER_RUNS: tuple[tuple[int, str, int, str], ...] = (
    (0, "compare", FRAMES, ""),
    (1, "compare", FRAMES, ""),
    (2, "small", FRAMES, "then at 128 px, "),
    (3, "compare", FRAMES // 4, "a quarter of the frames, "),
    *((seed, "compare", FRAMES // 16, "a sixteenth of the frames, ") for seed in range(4, 9)),
)
RESULT_FILE = RESULTS / "training.json"


@dataclass(frozen=True, slots=True)
class Run:
    """One training.

    Attributes:
        name, role: what is trained.
        optimizer, classes, seed: as `umbra train`.
        without: the sensor it never sees.
        as_paper: whether its frames have the classes of the paper's Table 1: 86 % OK, 0.6 % Diagonal, none near the border.
        preset: how long it trains.
        frames: it sees the first ones only, the more often.
    """

    name: str
    role: str
    optimizer: str = "adamw"
    classes: int = 4
    seed: int = 0
    without: str = ""
    as_paper: bool = False
    preset: str = "compare"
    frames: int = FRAMES


def runs() -> Iterator[Run]:
    yield Run("classifier AdamW", "classifier")
    yield Run("classifier SGD", "classifier", optimizer="sgd")
    yield Run("classifier, two classes", "classifier", classes=2)
    for seed, preset, frames, manner in PAPER_RUNS:
        for classes in (4, 2):
            yield Run(f"classifier, the paper's mix, {classes} classes, {manner}seed {seed}", "classifier", classes=classes,
                      seed=seed, as_paper=True, preset=preset, frames=frames)  # fmt: skip
    yield Run("regressor AdamW", "regressor")
    yield Run("regressor SGD", "regressor", optimizer="sgd")
    for sensor in SENSORS:
        yield Run(f"classifier without {sensor}", "classifier", without=sensor)


def judge(run: Run, weights: Path, test: ImageSet) -> dict[str, Any]:
    """Numbers on test frames: all of them and sensor by sensor, or of the one sensor left out."""
    model = load_weights(run.role, weights)
    if run.role == "regressor":
        return level_scores(predict(model, test.images, model.side)[:, 0], test.rating)
    clear = test.select((test.class_index != AMBIGUOUS) & ((test.sensor == run.without) | (run.without == "")))
    logits = predict(model, clear.images, model.side)
    truth = clear.class_index > 0
    called = p_ng(logits) > 0.5
    per_sensor = {}
    for name in np.unique(clear.sensor):
        here = clear.sensor == name
        found = class_scores(logits[here], clear.select(here))
        per_sensor[str(name)] = {
            "n": int(here.sum()),
            "f1": found["f1"],
            "interval": f1_interval(truth[here], called[here]),
        }
    recall = {CLASSES[k]: float(called[clear.class_index == k].mean()) for k in (1, 2, 3)}
    return {**class_scores(logits, clear), "f1_interval": f1_interval(truth, called), "recall": recall,
            "best_f1": best_f1(p_ng(logits), truth), "per_sensor": per_sensor}  # fmt: skip


def best_f1(score: NDArray[np.floating], truth: NDArray[np.bool_]) -> float:
    """The highest F1 that any limit on the score gives on these frames: what the order alone is worth."""
    order = np.argsort(-score)
    hits = np.cumsum(truth[order])
    return float((2 * hits / (np.arange(1, len(hits) + 1) + truth.sum())).max())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=Path("work/compare"))
    parser.add_argument("--resume", action="store_true", help="keep the runs that the results file has")
    arguments = parser.parse_args()
    work: Path = arguments.work
    training, validation = training_sets(None, FRAMES, cache=work / "sets")
    shares = tuple((name, n / sum(TABLE_1["train"].values())) for name, n in TABLE_1["train"].items())
    paper_mix = SetRecipe(seed=PAPER_SEED, mix=shares, ambiguous=0, border=0)
    as_paper = simulated_set(paper_mix, FRAMES, cache=work / "sets", name="paper")
    nominal = replace(VALIDATION, seed=TEST_SEED, nuisance=(1.0, 1.0), full_size=0.0)
    test = simulated_set(nominal, TEST_FRAMES, cache=work / "sets", name="test")
    resumed = arguments.resume and RESULT_FILE.exists()
    found: dict[str, Any] = json.loads(RESULT_FILE.read_text())["runs"] if resumed else {}
    for run in runs():
        if run.name not in found:
            began = time.monotonic()
            whole = as_paper if run.as_paper else training
            taught = whole.select((whole.sensor != run.without) & (np.arange(len(whole)) < run.frames))
            folder = work / "".join(c if c.isalnum() else "-" for c in run.name)
            if not arguments.resume and folder.exists():
                shutil.rmtree(folder)
            weights = train(run.role, (taught, validation), folder, preset=run.preset, seed=run.seed,
                            optimizer=run.optimizer, classes=run.classes)  # fmt: skip
            found[run.name] = {**judge(run, weights, test), "seconds": round(time.monotonic() - began),
                               "machine": machine(), "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}  # fmt: skip
            RESULT_FILE.write_text(as_json({"frames": FRAMES, "runs": found}))
        print(run.name, {k: round(v, 4) for k, v in found[run.name].items() if isinstance(v, float)}, flush=True)
    usual = found["classifier AdamW"]["per_sensor"]
    for sensor in SENSORS:
        left_out = found[f"classifier without {sensor}"]["per_sensor"][sensor]["f1"]
        print(f"sensor {sensor}: F1 {usual[sensor]['f1']:.4f} trained with it, {left_out:.4f} without")


if __name__ == "__main__":
    main()
