"""`make demo`: a station, its daemon and API for real, and simulated frames of six sensors dropped into its inbox."""

from __future__ import annotations

import argparse
import csv
import json
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from appliance.sidecar import SIDECAR_SUFFIX
from appliance.simulated import SimulationPlan, write_simulated
from engines import CLASSES
from engines.simulation import SENSORS, mixed_set

FORMATS = ("tiff", "png", "pgm", "npy", "fits", "raw", "raw12", "raw10", "raw14")
READY_S, VERDICTS_S = 120.0, 180.0
COLOURS = {"PASS": "green", "FAIL": "red", "RETEST": "yellow"}


def main() -> int:
    """Run the demo; 0 when every frame got its verdict."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--station", type=Path, default=Path("station"))
    parser.add_argument("--frames", type=int, default=30, choices=range(24, 1001), metavar="24..1000")
    arguments = parser.parse_args()
    console = Console(width=None if sys.stdout.isatty() else 140)
    station: Path = arguments.station
    _configure(station)
    with tempfile.TemporaryDirectory(prefix="umbra-demo-") as scratch, (station / "demo.log").open("ab") as log:
        console.print(f"simulating {arguments.frames} frames of sensors A to F ({', '.join(FORMATS)})")
        plan = SimulationPlan(
            sensors=tuple(SENSORS), seed=_seed(arguments.frames), count=arguments.frames, formats=FORMATS
        )
        write_simulated(plan, Path(scratch), workers=2)
        command = [sys.executable, "-P", "-m", "appliance.cli", "run", "--station", str(station)]
        daemon = subprocess.Popen(command, stderr=log)  # noqa: S603  (our own module)
        try:
            return _show(station, Path(scratch), daemon, console)
        finally:
            daemon.terminate()
            daemon.wait(30)


def _seed(frames: int) -> int:
    """A seed of this second, so that no run repeats another's frames, whose frames show all four classes."""
    seed = int(time.time()) % 1_000_000_000
    while set(CLASSES) - {frame.plan.class_name for frame in mixed_set(tuple(SENSORS.values()), frames, seed)}:
        seed += 1
    return seed


def _configure(station: Path) -> None:
    """A station of its own; any free port, so that the demo runs beside a real one."""
    station.mkdir(parents=True, exist_ok=True)
    settings = station / "umbra.toml"
    if not settings.exists():
        settings.write_text("# settings of this station; docs/operations.md lists all\n[api]\nport = 0\n")
    (station / "api.json").unlink(missing_ok=True)


def _show(station: Path, frames: Path, daemon: subprocess.Popen[bytes], console: Console) -> int:
    url = _wait_ready(station, daemon)
    console.print(f"station {station} is ready; API at {url}\n")
    cursor = _get(f"{url}/v1/status")["last_seq"]
    truth = {row["file"]: row for row in csv.DictReader((frames / "truth.csv").open(newline=""))}
    began = time.monotonic()
    _drop(frames, station / "inbox", list(truth))
    rows: list[dict[str, Any]] = []
    console.print(f"{'frame':36} {'verdict':8} {'class':9} {'level':>5} {'score':>6} {'ms':>5}   truth")
    while len(rows) < len(truth):
        if time.monotonic() - began > VERDICTS_S or daemon.poll() is not None:
            console.print(f"[red]only {len(rows)} of {len(truth)} verdicts; see {station / 'demo.log'}[/]")
            return 1
        answer = _get(f"{url}/v1/verdicts?cursor={cursor}&wait=10")
        cursor = answer["cursor"]
        for row in answer["verdicts"]:
            rows.append(row)
            known = truth.get(f"{row['product']}/{row['lot']}/{row['frame']}", {})
            _print_verdict(console, row, f"{known.get('class', '')} {known.get('true_level', '')}")
    _summarise(console, rows, time.monotonic() - began, station)
    return 0


def _wait_ready(station: Path, daemon: subprocess.Popen[bytes]) -> str:
    until = time.monotonic() + READY_S
    while time.monotonic() < until and daemon.poll() is None:
        try:
            url: str = json.loads((station / "api.json").read_text())["url"]
            if _get(f"{url}/readyz")["ready"]:
                return url
        except (OSError, ValueError):
            pass
        time.sleep(0.1)
    raise SystemExit(f"the station did not get ready; see {station / 'demo.log'}")


def _get(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=30) as answer:  # noqa: S310  (our own server on loopback)
        return json.load(answer)


def _drop(frames: Path, inbox: Path, names: list[str]) -> None:
    """Copy frames in as a tester's tool does: under a temporary name, then renamed; sidecars first."""
    for name in names:
        for suffix in (SIDECAR_SUFFIX, ""):
            source, target = frames / (name + suffix), inbox / (name + suffix)
            if source.exists():
                target.parent.mkdir(parents=True, exist_ok=True)
                temporary = target.with_name(f".{target.name}.tmp")
                shutil.copyfile(source, temporary)
                temporary.replace(target)


def _print_verdict(console: Console, row: dict[str, Any], truth: str) -> None:
    level = "–" if row["level"] is None else f"{row['level']:.1f}"
    score = "–" if row["score"] is None else f"{row['score']:.3f}"
    colour = COLOURS[row["verdict"]]
    console.print(
        f"{row['product']}/{row['frame']:34} [{colour}]{row['verdict']:8}[/] {row['class'] or '–':9} {level:>5} {score:>6} "
        f"{row['ms']['total']:5.0f}   {truth}", highlight=False,
    )  # fmt: skip


def _summarise(console: Console, rows: list[dict[str, Any]], seconds: float, station: Path) -> None:
    counts = {v: sum(r["verdict"] == v for r in rows) for v in COLOURS}
    table = Table(show_header=False, title="summary")
    table.add_row("verdicts", ", ".join(f"{n} {v}" for v, n in counts.items()))
    table.add_row("rate", f"{len(rows) / seconds:.1f} frames/s from drop to commit, {len(rows)} frames of 1 to 12 MP")
    table.add_row("page", f"umbra run --station {station}, then the url in {station / 'api.json'}")
    table.add_row("database", str(station / "umbra.db"))
    table.add_row("verdict files", str(station / "outbox"))
    table.add_row("frames", str(station / "done"))
    console.print(table)


if __name__ == "__main__":
    sys.exit(main())
