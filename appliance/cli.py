"""`umbra`: every command, each thin over the module that does the work."""

from __future__ import annotations

import csv
import json
import os
import sys
from enum import StrEnum
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from appliance.cli_bundle import bundle_app, engines_app
from appliance.cli_spec import spec_app
from appliance.errors import ApplianceError
from appliance.terminal import (
    DEFAULT_STATION,
    BundleOption,
    JsonOption,
    StationOption,
    cache_folder,
    find_bundle,
    progress_bar,
    say,
    talk,
    train_extra,
    wide_console,
)
from engines import Precision
from engines.errors import EngineError
from kernels.errors import KernelError

_CELL = "[dim]–[/dim]"
_COLOURS = {"PASS": "green", "FAIL": "red", "RETEST": "yellow"}

app = typer.Typer(
    help="Umbra screens dark frames of image sensors: one durable verdict, PASS, FAIL or RETEST, a frame.",
    no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode="rich", add_completion=False,
)  # fmt: skip
app.add_typer(bundle_app, name="bundle")
app.add_typer(engines_app, name="engines")
app.add_typer(spec_app, name="spec")


class Role(StrEnum):
    """The networks of a bundle."""

    CLASSIFIER = "classifier"
    REGRESSOR = "regressor"
    UNSEEN = "unseen"


class Preset(StrEnum):
    """Lengths of training."""

    PAPER = "paper"
    STARTER = "starter"
    FINISH = "finish"
    SMOKE = "smoke"


class Optimizer(StrEnum):
    """Optimisers that were compared."""

    ADAMW = "adamw"
    SGD = "sgd"


class OutputFormat(StrEnum):
    """How verdicts are printed."""

    TABLE = "table"
    JSONL = "jsonl"
    CSV = "csv"


def _version(wanted: bool) -> None:
    if wanted:
        say(version("umbra"))
        raise typer.Exit


@app.callback()
def _options(
    show: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    del show


@app.command(epilog="Example: umbra run --station /srv/umbra")
def run(
    station: StationOption = DEFAULT_STATION,
    bundle: BundleOption = None,
    api: Annotated[bool, typer.Option(help="Serve the HTTP API beside the screener.")] = True,
) -> None:
    """Screen whatever lands in the station's inbox, and serve the API, until stopped."""
    from appliance import log
    from appliance.daemon import run_station
    from appliance.station import Station

    log.configure()
    run_station(Station.open(station, create=True), bundle=bundle, with_api=api)


@app.command(epilog="Example: umbra screen frames/ --format jsonl > verdicts.jsonl")
def screen(
    paths: Annotated[list[Path], typer.Argument(help="Files and folders of frames.")],
    station: Annotated[
        Path | None, typer.Option("--station", help="Log the verdicts in this station, too.", file_okay=False)
    ] = None,
    bundle: BundleOption = None,
    output: Annotated[OutputFormat, typer.Option("--format", help="How to print.")] = OutputFormat.TABLE,
) -> None:
    """Judge files and folders once; nothing is moved."""
    from appliance.images import ImageStore
    from appliance.screening import OneShot, find_targets
    from appliance.settings import Settings
    from appliance.station import Station
    from appliance.verdict_log import VerdictLog
    from engines.build import build_inspector

    targets = find_targets(paths)
    place = Station.open(station, create=True) if station else None
    log = VerdictLog(place.database) if place else None
    images = ImageStore(place.images) if place and place.settings.disk.keep_images else None
    console = talk()
    try:
        chosen = find_bundle(bundle, place, log)
        settings = place.settings if place else Settings()
        cache = place.engines if place else cache_folder()
        with console.status("building engines"):
            inspector = build_inspector(
                chosen, precision=settings.engine.precision, cache=cache, threads=settings.engine.threads
            )
        printer = _Printer(output)
        with progress_bar(console) as progress:
            task = progress.add_task("screening", total=len(targets))
            for row in OneShot(inspector, settings, log, images).screen(targets):
                printer.add(row)
                progress.advance(task)
        printer.finish()
    finally:
        for store in (log, images):
            if store is not None:
                store.close()


class _Printer:
    """Prints verdicts one by one (jsonl, csv) or at the end (table)."""

    def __init__(self, output: OutputFormat) -> None:
        self._output = output
        self._table = Table("frame", "verdict", "class", "level", "score", "unseen", "reason", "ms")
        self._writer: csv.DictWriter[str] | None = None

    def add(self, row: dict[str, Any]) -> None:
        from appliance.verdict import document

        if self._output is OutputFormat.JSONL:
            say(json.dumps(document(row), ensure_ascii=False))
        elif self._output is OutputFormat.CSV:
            flat = {
                k: v
                for k, v in row.items()
                if k not in ("histogram", "rois", "frame_id", "seq", "origin", "width", "height")
            }
            if self._writer is None:
                self._writer = csv.DictWriter(sys.stdout, list(flat), lineterminator="\n", extrasaction="ignore")
                self._writer.writeheader()
            self._writer.writerow(flat)
            sys.stdout.flush()
        else:
            colour = _COLOURS[row["verdict"]]
            self._table.add_row(
                escape(row["path"]), f"[{colour}]{row['verdict']}[/]", row["class"] or _CELL, _number(row["level"], 1),
                _number(row["score"], 3), _number(row["m_alpha"], 1), escape(row["reason"] or ""), f"{row['ms_total']:.0f}",
            )  # fmt: skip

    def finish(self) -> None:
        if self._output is OutputFormat.TABLE:
            wide_console().print(self._table)


def _number(value: float | None, digits: int) -> str:
    return _CELL if value is None else f"{value:.{digits}f}"


@app.command(epilog="Example: umbra simulate frames/ --sensor A..F --count 24 --seed 7 --format tiff,png,raw10")
def simulate(
    out: Annotated[Path, typer.Argument(help="Folder to write.", file_okay=False)],
    sensor: Annotated[str, typer.Option(help="A..F, or names with commas.")] = "A..F",
    count: Annotated[int, typer.Option(min=1, help="Frames.")] = 24,
    seed: Annotated[int, typer.Option(min=0, help="The same seed writes the same files.")] = 0,
    paper_mix: Annotated[bool, typer.Option("--paper-mix", help="Class shares of the paper's Table 1.")] = False,
    format_names: Annotated[
        str,
        typer.Option(
            "--format",
            help="tiff, png, pgm, npy, fits, raw, raw10, raw12, raw14; several with commas are used in turn.",
        ),
    ] = "tiff",
    workers: Annotated[int, typer.Option(min=1, help="Processes.")] = os.cpu_count() or 1,
) -> None:
    """Write simulated dark frames of six sensors with truth.csv (class, level, boxes)."""
    from appliance.dataset import DataSetError, SimulationPlan, write_simulated

    try:
        plan = SimulationPlan(out, _sensor_names(sensor), seed, tuple(format_names.split(",")), paper_mix)
    except DataSetError as error:
        raise typer.BadParameter(str(error)) from error
    with progress_bar(talk()) as progress:
        task = progress.add_task("simulating", total=count)
        truth = write_simulated(plan, count, workers=workers, progress=lambda: progress.advance(task))
    talk().print(f"{count} frames, truth in {truth}")


def _sensor_names(text: str) -> tuple[str, ...]:
    first, dots, last = text.partition("..")
    if dots and len(first) == len(last) == 1 and first <= last:
        return tuple(chr(c) for c in range(ord(first), ord(last) + 1))
    return tuple(text.split(","))


@app.command(epilog="Example: umbra evaluate --data frames/ --json")
def evaluate(
    data: Annotated[Path, typer.Option(help="Folder with truth.csv.", exists=True, file_okay=False)],
    bundle: BundleOption = None,
    precision: Annotated[Precision, typer.Option(help="Arithmetic of the engines.")] = Precision.INT8,
    as_json: JsonOption = False,
) -> None:
    """Measure a bundle against known truth, beside the conventional method."""
    from appliance.assess import assess
    from appliance.dataset import read_truth
    from engines.build import build_inspector

    console = talk()
    total = len(read_truth(data))
    with console.status("building engines"):
        inspector = build_inspector(find_bundle(bundle, None, None), precision=precision, cache=cache_folder())
    with progress_bar(console) as progress:
        task = progress.add_task("evaluating", total=total)
        report = assess(data, inspector, progress=lambda: progress.advance(task))
    if as_json:
        say(json.dumps(without_nan(report), indent=1))
    else:
        _print_report(report)


def without_nan(value: Any) -> Any:
    """The value with null for numbers that could not be had: JSON knows no NaN."""
    if isinstance(value, dict):
        return {key: without_nan(inner) for key, inner in value.items()}
    return None if isinstance(value, float) and value != value else value  # noqa: PLR0124


def _print_report(report: dict[str, Any]) -> None:
    table = Table("sensor", "n", "conventional acc.", "F1", f"{report['bundle']} acc.", "F1", title="OK against NG")
    rows = {**report["per_sensor"], "total": report}
    for name, row in rows.items():
        old = row["conventional"]
        table.add_row(
            name, str(row["n"]), *(f"{v:.4f}" for v in (old["accuracy"], old["f1"], row["accuracy"], row["f1"]))
        )
    console = wide_console()
    console.print(table)
    console.print(
        f"recall {report['recall']:.4f}; level MAE {report['mae']:.3f} (0 to 9: {report['mae_0_to_9']:.3f}), beyond 3 levels "
        f"{report['beyond_3']:.2%}, Pearson {report['pcc']:.4f}; verdicts at spec {report['verdicts']['spec']}: accuracy "
        f"{report['verdicts']['accuracy']:.4f}, F1 {report['verdicts']['f1']:.4f}; {report['ambiguous']} ambiguous frames left out"
    )


@app.command(epilog="Example: umbra train classifier --data frames/ --out runs/classifier --preset smoke")
def train(
    role: Annotated[Role, typer.Argument(help="Which network.")],
    out: Annotated[Path, typer.Option(help="Folder for checkpoints, curve.csv and weights.pt.", file_okay=False)],
    data: Annotated[Path | None, typer.Option(help="Folder with truth.csv.", exists=True, file_okay=False)] = None,
    simulated: Annotated[
        int | None, typer.Option("--simulate", min=64, help="Simulate this many frames instead; kept beside OUT.")
    ] = None,
    preset: Annotated[Preset, typer.Option(help="How long.")] = Preset.STARTER,
    seed: Annotated[int, typer.Option(min=0, help="Of weights and batches.")] = 0,
    optimizer: Annotated[Optimizer, typer.Option(help="Of the weights.")] = Optimizer.ADAMW,
    start: Annotated[
        str | None, typer.Option("--from", help="Bundle, by name or folder, whose weights to start from.")
    ] = None,
) -> None:
    """Train one network of a bundle; goes on where it was stopped (the `train` extra)."""
    from appliance.training_sets import training_sets

    if (data is None) == (simulated is None):
        raise typer.BadParameter("wanted one of --data and --simulate")
    training = train_extra()
    weights = None if start is None else find_bundle(start, None, None).model(role)
    sets = training_sets(data, simulated, cache=out.parent / "sets")
    training.train(role, sets, out, preset=preset, seed=seed, optimizer=optimizer, start=weights, report=say)


@app.command(epilog="Example: umbra doctor --station station")
def doctor(station: StationOption = DEFAULT_STATION, bundle: BundleOption = None) -> None:
    """Check this machine and the station, and say what to do."""
    from appliance.doctor import examine

    console, broken = wide_console(), False
    for check in examine(station, bundle=bundle):
        mark = {True: "[green]ok[/]", False: "[red]broken[/]", None: "[yellow]–[/]"}[check.ok]
        console.print(f"{mark:>20} [bold]{check.name}[/]: {check.found}", highlight=False)
        if check.ok is not True and check.advice:
            console.print(f"{'':>8}{check.advice}", highlight=False)
        broken |= check.ok is False
    raise typer.Exit(1 if broken else 0)


def main() -> None:
    """Run the command line; errors that have a name end with one line and exit code 1."""
    try:
        app()
    except (ApplianceError, EngineError, KernelError) as error:
        talk().print(f"[red]umbra:[/] {escape(str(error))}", highlight=False, soft_wrap=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
