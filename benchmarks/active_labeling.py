"""`make labeling`: the image-ranking paper's experiment on three real sets: which strategy's 30 labeled images teach most.

Ten first images, two rounds of ten chosen by each strategy, a detector trained on each choice, one fixed test set; as
many boxes as well as as many images; five seeds. Hours on two cores; goes on where it was stopped.

With `--confirm` five more seeds, of CONFIRMED alone: OURS is the best of several of the first five, and
what is best of several is in part so by chance.
"""

from __future__ import annotations

import argparse
import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import cv2

from benchmarks.harness import RESULTS, machine, mean_interval, results_of
from benchmarks.unseen.detector import Score
from benchmarks.unseen.rounds import FIRST, ROUND, STRATEGIES, Bench, Memo, Trial, digest, trial
from benchmarks.unseen.sets import CORNERS, TURNS, pictures
from benchmarks.unseen.tables import confirmation, markdown
from engines.ranking import imbalance

RESULT_FILE = RESULTS / "active_labeling.json"
SEEDS = range(5, 10)  # with the lower ones constants were tried
OURS = "rois"
CONFIRMATION = range(10, 15)  # no choice was made with them
CONFIRMED = ("sequential", "random", OURS, "rois diverse")
MEASURES = ("precision", "recall", "f1")


def boxes_of(subject: Trial, numbers: Sequence[int]) -> list[str]:
    """Classes of all boxes on some images."""
    return [c for i in numbers for c in subject.pool[i].classes]


def labels_say(subject: Trial, numbers: Sequence[int]) -> dict[str, float]:
    """What costs no detector: classes found, boxes, boxes of the rarest class of the pool, and balance (1: equally many)."""
    every = Counter(boxes_of(subject, range(len(subject.pool))))
    here = Counter(boxes_of(subject, numbers))
    rarest = min(every, key=lambda c: (every[c], c))
    balance = 1 - imbalance({c: here[c] for c in every}) if len(here) > 1 else 0.0
    share = math.log(len(here)) / math.log(len(every)) if len(here) > 1 else 0.0
    return {"boxes": sum(here.values()), "classes": len(here), "rarest": here[rarest], "balance": balance * share}


def macro(found: Mapping[str, Score]) -> dict[str, float]:
    """Means over the classes that the test has."""
    known = [s for s in found.values() if not math.isnan(s.f1)]
    return {key: fmean(getattr(s, key) for s in known) for key in MEASURES}


def side_by_side(bench: Bench, strategies: Iterable[str]) -> dict[str, Any]:
    """A row of each: after 30 images, and with as many boxes as all of them have by then."""
    subject = bench.trial
    chosen = {name: bench.chosen(name) for name in strategies}
    boxes = min(len(boxes_of(subject, numbers)) for numbers in chosen.values())
    table: dict[str, Any] = {}
    for name, numbers in chosen.items():
        as_many = bench.until(name, boxes)
        equal = macro(bench.detected(as_many)) | {"images": len(as_many), "boxes": len(boxes_of(subject, as_many))}
        table[name] = _row(bench, numbers) | {"equal_boxes": equal}
    return table


def run(bench: Bench) -> dict[str, Any]:
    """All of one trial: strategies side by side, OURS round by round, and everything labeled."""
    subject = bench.trial
    steps = {
        "first": list(range(FIRST)),
        "round 1": bench.chosen(OURS)[: FIRST + ROUND],
        "all": list(range(len(subject.pool))),
    }
    return {
        "table": side_by_side(bench, STRATEGIES) | {step: _row(bench, numbers) for step, numbers in steps.items()},
        "test_boxes": Counter(c for picture in subject.test for c in picture.classes),
        "pool": len(subject.pool),
        "core_seconds": {recipe: bench.seconds(recipe) for recipe in ("paper", "photographs")},
    }


def confirm(bench: Bench) -> dict[str, Any]:
    """OURS of one more trial beside what it must be better than."""
    rows = side_by_side(bench, CONFIRMED)
    table = {name: {key: row[key] for key in row if key != "per_class"} for name, row in rows.items()}
    return {"table": table, "core_seconds": {"photographs": bench.seconds("photographs")}}


def confirmed_only(trials: Mapping[str, Any]) -> dict[str, Any]:
    """Trials of all strategies with no more than what was confirmed in them."""
    kept = ("photographs",)
    return {
        key: {
            "table": {name: {k: v for k, v in trial["table"][name].items() if k != "per_class"} for name in CONFIRMED},
            "core_seconds": {recipe: trial["core_seconds"][recipe] for recipe in kept},
        }
        for key, trial in trials.items()
    }


def _row(bench: Bench, numbers: Sequence[int]) -> dict[str, Any]:
    found = bench.detected(numbers)
    asked = {c: s for c, s in found.items() if not math.isnan(s.f1)}
    per_class = {c: [getattr(s, key) for key in MEASURES] for c, s in asked.items()}
    return {**macro(found), **labels_say(bench.trial, numbers), "per_class": per_class}


def summary(trials: Mapping[str, Any]) -> dict[str, Any]:
    """By set, and over the sets: mean and half of the 95 % interval over seeds of all that was measured.

    Over the sets only seeds count that all of them have: F1, and how far it is above sequential and random.
    """
    sets = sorted({key.split()[0] for key in trials})
    table: dict[str, Any] = {}
    for name in sets:
        runs = [trials[key] for key in trials if key.split()[0] == name]
        table[name] = {strategy: _of_runs([run["table"][strategy] for run in runs]) for strategy in runs[0]["table"]}
        table[name]["core seconds a round"] = {
            recipe: mean_interval([run["core_seconds"][recipe] for run in runs]) for recipe in runs[0]["core_seconds"]
        }
    seeds = sorted({key.split()[1] for key in trials if all(f"{s} {key.split()[1]}" in trials for s in sets)})
    over = [[trials[f"{name} {seed}"]["table"] for name in sets] for seed in seeds]
    if over:
        table["mean of the sets"] = {strategy: _over_sets(over, strategy) for strategy in over[0][0]}
    return table


def _over_sets(over: Sequence[Sequence[Mapping[str, Any]]], strategy: str) -> dict[str, Any]:
    """Of one strategy; the sets count alike.

    Args:
        over: table of each set, of each seed.
        strategy: or step.
    """

    def f1(table: Mapping[str, Any], name: str, equal: bool) -> float:
        row = table[name]["equal_boxes"] if equal else table[name]
        return float(row["f1"])

    found = {}
    for equal in (False, True) if "equal_boxes" in over[0][0][strategy] else (False,):
        words = "equal boxes: " if equal else ""
        found[f"{words}f1"] = mean_interval([fmean(f1(t, strategy, equal) for t in tables) for tables in over])
        for base in ("sequential", "random"):
            above = [fmean(f1(t, strategy, equal) - f1(t, base, equal) for t in tables) for tables in over]
            found[f"{words}above {base}"] = mean_interval(above)
    return found


def _of_runs(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Of one strategy and set, over seeds."""
    found: dict[str, Any] = {
        key: mean_interval([row[key] for row in rows]) for key in (*MEASURES, "boxes", "classes", "rarest", "balance")
    }
    found["per_class"] = {
        name: {key: mean_interval([row["per_class"][name][i] for row in rows]) for i, key in enumerate(MEASURES)}
        for name in rows[0].get("per_class", ())
    }
    if "equal_boxes" in rows[0]:
        for key in (*MEASURES, "images", "boxes"):
            found[f"equal boxes: {key}"] = mean_interval([row["equal_boxes"][key] for row in rows])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--work", type=Path, default=Path("work/labeling"), help="choices and scores are kept here")
    parser.add_argument("--set", choices=CORNERS, action="append", help="default: all")
    parser.add_argument("--seed", type=int, action="append", help="default: 5 to 9; to confirm, 10 to 14")
    parser.add_argument(
        "--confirm", action="store_true", help=f"only {', '.join(CONFIRMED)}, of seeds that chose nothing"
    )
    parser.add_argument("--tables", action="store_true", help="only print the results as tables")
    arguments = parser.parse_args()
    if arguments.tables:
        kept = json.loads(RESULT_FILE.read_text())
        print(markdown(summary(kept["trials"]), OURS))
        again = kept["confirmation"]["trials"]
        print("\nConfirmation\n", confirmation(summary(again)), sep="\n")
        print("\nAll seeds\n", confirmation(summary(confirmed_only(kept["trials"]) | again)), sep="\n")
        return
    cv2.setNumThreads(1)
    arguments.work.mkdir(parents=True, exist_ok=True)
    code = digest()
    measure, seeds = (confirm, CONFIRMATION) if arguments.confirm else (run, SEEDS)
    for seed in arguments.seed or seeds:
        for name in arguments.set or CORNERS:
            subject = trial(pictures(name, arguments.data), seed, TURNS[name])
            found = measure(Bench(subject, Memo(arguments.work / f"{name}-{seed}-{code}.json")))
            with results_of(RESULT_FILE) as results:
                kept = results.setdefault("confirmation", {}) if arguments.confirm else results
                others = kept["trials"] if kept.get("code") == code else {}
                trials = dict(sorted({**others, f"{name} {seed}": found | {"machine": machine()}}.items()))
                kept |= {"code": code, "trials": trials}
            print(name, seed, {s: round(row["f1"], 3) for s, row in found["table"].items()}, flush=True)


if __name__ == "__main__":
    main()
