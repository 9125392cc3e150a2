"""`make real`: trained and tested on real pictures by the product's own commands, fold by fold; nothing of it is shipped."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.harness import RESULTS, machine
from engines.training.evaluate import wilson

HERE = Path(__file__).parent
SETS = {"credo_cmos_hits": ("classifier",), "elpv_solar": ("classifier", "regressor")}


def umbra(*arguments: str | Path) -> str:
    """Standard output of a command."""
    command = [sys.executable, "-m", "appliance.cli", *map(str, arguments)]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def fold_of(name: str, data: Path, runs: Path, fold: str) -> dict[str, Any]:
    """Train on all folds but one and evaluate on that one; goes on where it was stopped."""
    known = ("--data", data / name, "--class-map", HERE / f"{name}.toml", "--fold", fold)
    for role in SETS[name]:
        if not (runs / role / "weights.pt").exists():
            umbra("train", role, *known, "--out", runs / role, "--preset", "small", "--from", "starter")
    report: dict[str, Any] = json.loads(umbra("evaluate", *known, "--runs", runs, "--json"))
    return report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder of both sets")
    parser.add_argument("--work", type=Path, default=Path("work/real"))
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--set", choices=SETS, action="append", help="default: both")
    arguments = parser.parse_args()
    found: dict[str, Any] = {}
    for name in arguments.set or SETS:
        reports = []
        for k in range(1, arguments.folds + 1):
            runs = arguments.work / name / f"fold-{k}-of-{arguments.folds}"
            reports.append(fold_of(name, arguments.data, runs, f"{k}/{arguments.folds}"))
            print(name, k, {key: reports[-1][key] for key in ("n", "class_accuracy", "accuracy", "mae")}, flush=True)
        n = sum(r["n"] for r in reports)
        right = sum(round(r["class_accuracy"] * r["n"]) for r in reports)
        found[name] = {"n": n, "class_accuracy": right / n, "interval": wilson(right, n), "folds": reports}
        if reports[0]["mae"] is not None:
            found[name]["mae"] = sum(r["mae"] * r["n"] for r in reports) / n
        print(name, {k: v for k, v in found[name].items() if k != "folds"})
    body = {"machine": machine(), "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "sets": found}
    (RESULTS / "real.json").write_text(json.dumps(body, indent=1) + "\n")


if __name__ == "__main__":
    main()
