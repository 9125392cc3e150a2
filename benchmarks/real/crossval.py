"""`make real`: trained and tested on real pictures by the product's own commands, fold by fold; nothing of it is shipped."""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.harness import RESULTS, as_json, machine
from engines.training.evaluate import wilson

HERE = Path(__file__).parent
RESULT_FILE = RESULTS / "real.json"
KEPT = ("n", "class_accuracy", "accuracy", "f1", "mae", "mae_interval", "pcc", "confusion")
SETS = {"credo_cmos_hits": ("classifier",), "elpv_solar": ("classifier", "regressor")}
# Marks in dark frames are what the starter knows; solar cells are told apart with what photographs teach.
TAUGHT = {"credo_cmos_hits": ("--preset", "small", "--from", "starter"), "elpv_solar": ("--preset", "photographs")}


def umbra(*arguments: str | Path) -> str:
    """Standard output of a command."""
    command = [sys.executable, "-m", "appliance.cli", *map(str, arguments)]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def fold_of(name: str, data: Path, runs: Path, fold: str) -> dict[str, Any]:
    """Train on all folds but one and evaluate on that one; goes on where it was stopped."""
    known = ("--data", data / name, "--class-map", HERE / f"{name}.toml", "--fold", fold)
    for role in SETS[name]:
        if not (runs / role / "weights.pt").exists():
            umbra("train", role, *known, "--out", runs / role, *TAUGHT[name])
    report: dict[str, Any] = json.loads(umbra("evaluate", *known, "--runs", runs, "--json"))
    return report


def summary(reports: list[dict[str, Any]]) -> dict[str, Any]:
    """Accuracy over all folds with its interval, and the level error where levels are known."""
    n = sum(r["n"] for r in reports)
    right = sum(round(r["class_accuracy"] * r["n"]) for r in reports)
    found = {"n": n, "class_accuracy": right / n, "interval": wilson(right, n)}
    if reports[0]["mae"] is None:
        return found
    mae = sum(r["mae"] * r["n"] for r in reports) / n
    half = math.hypot(*((r["mae_interval"][1] - r["mae"]) * r["n"] for r in reports)) / n
    return found | {"mae": mae, "mae_interval": [mae - half, mae + half]}


def saved() -> dict[str, Any]:
    """Results by set; read again before each writing, since folds may be run in processes of their own."""
    sets: dict[str, Any] = json.loads(RESULT_FILE.read_text())["sets"] if RESULT_FILE.exists() else {}
    return sets


def folds_of(name: str) -> dict[str, Any]:
    """A set's results by fold."""
    folds: dict[str, Any] = saved().get(name, {}).get("folds", {})
    return folds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder of both sets")
    parser.add_argument("--work", type=Path, default=Path("work/real"))
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--set", choices=SETS, action="append", help="default: both")
    parser.add_argument("--only", type=int, action="append", metavar="K", help="this fold; default: all of them")
    parser.add_argument("--resume", action="store_true", help="keep the folds that the results file has")
    arguments = parser.parse_args()
    for name in arguments.set or SETS:
        kept = folds_of(name) if arguments.resume else {}
        for k in arguments.only or range(1, arguments.folds + 1):
            fold = f"{k}/{arguments.folds}"
            if fold not in kept:
                runs = arguments.work / name / f"fold-{k}-of-{arguments.folds}"
                report = fold_of(name, arguments.data, runs, fold)
                at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
                kept[fold] = {key: report[key] for key in KEPT} | {"machine": machine(), "at": at}
                folds = dict(sorted((folds_of(name) | {fold: kept[fold]}).items()))
                sets = saved() | {name: {**summary(list(folds.values())), "folds": folds}}
                RESULT_FILE.write_text(as_json({"sets": sets}))
            print(name, fold, {key: kept[fold][key] for key in ("n", "class_accuracy", "accuracy", "mae")}, flush=True)
        print(name, summary(list(folds_of(name).values())))


if __name__ == "__main__":
    main()
