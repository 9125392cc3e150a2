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

from appliance.training_sets import VALIDATION, training_sets
from benchmarks.harness import RESULTS, machine
from engines.classes import p_ng
from engines.simulation import SENSORS
from engines.training.classify import scores as class_scores
from engines.training.data import AMBIGUOUS, ImageSet, simulate_set
from engines.training.evaluate import f1_interval
from engines.training.fit import predict
from engines.training.quantize import load_weights
from engines.training.regress import scores as level_scores
from engines.training.train import train
from kernels import StretchParams

FRAMES, TEST_FRAMES, TEST_SEED = 24_000, 12_000, 5_000
RESULT_FILE = RESULTS / "training.json"


@dataclass(frozen=True, slots=True)
class Run:
    """One training: its name, role, what differs from the usual, and the sensor it never sees."""

    name: str
    role: str
    optimizer: str = "adamw"
    classes: int = 4
    without: str = ""


def runs() -> Iterator[Run]:
    yield Run("classifier AdamW", "classifier")
    yield Run("classifier SGD", "classifier", optimizer="sgd")
    yield Run("classifier, two classes", "classifier", classes=2)
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
    return {**class_scores(logits, clear), "f1_interval": f1_interval(truth, called), "per_sensor": per_sensor}


def test_set(folder: Path) -> ImageSet:
    """Test frames as on a station, at the nominal nuisances, made once."""
    recipe = replace(VALIDATION, seed=TEST_SEED, nuisance=(1.0, 1.0), full_size=0.0)
    folder = folder.with_name(f"{folder.name}-{recipe.digest[:12]}")
    if not folder.exists():
        simulate_set(recipe, TEST_FRAMES, StretchParams()).save(folder)
    return ImageSet.load(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=Path("work/compare"))
    parser.add_argument("--resume", action="store_true", help="keep the runs that the results file has")
    arguments = parser.parse_args()
    work: Path = arguments.work
    training, validation = training_sets(None, FRAMES, cache=work / "sets")
    test = test_set(work / "sets" / "test")
    found: dict[str, Any] = json.loads(RESULT_FILE.read_text())["runs"] if arguments.resume else {}
    for run in runs():
        if run.name not in found:
            began = time.monotonic()
            taught = training.select(training.sensor != run.without) if run.without else training
            folder = work / run.name.replace(" ", "-").replace(",", "")
            if not arguments.resume and folder.exists():
                shutil.rmtree(folder)
            weights = train(run.role, (taught, validation), folder, preset="compare",
                            optimizer=run.optimizer, classes=run.classes)  # fmt: skip
            found[run.name] = {**judge(run, weights, test), "seconds": round(time.monotonic() - began),
                               "machine": machine(), "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}  # fmt: skip
            RESULT_FILE.write_text(json.dumps({"frames": FRAMES, "runs": found}, indent=1) + "\n")
        print(run.name, {k: round(v, 4) for k, v in found[run.name].items() if isinstance(v, float)}, flush=True)
    usual = found["classifier AdamW"]["per_sensor"]
    for sensor in SENSORS:
        left_out = found[f"classifier without {sensor}"]["per_sensor"][sensor]["f1"]
        print(f"sensor {sensor}: F1 {usual[sensor]['f1']:.4f} trained with it, {left_out:.4f} without")


if __name__ == "__main__":
    main()
