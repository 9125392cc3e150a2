"""`umbra`: every command, each thin over the module that does the work."""

from __future__ import annotations

import csv
import json
import os
import sqlite3
import sys
from contextlib import ExitStack, closing
from enum import StrEnum
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from appliance.cli_bundle import bundle_app, engines_app
from appliance.cli_care import care_app
from appliance.cli_labels import labels_app
from appliance.cli_loop import loop_app
from appliance.cli_lot import lot_app
from appliance.cli_rank import rank_app
from appliance.cli_report import report_app
from appliance.cli_simulate import simulate_app
from appliance.cli_spec import spec_app
from appliance.cli_training import training_app
from appliance.errors import ApplianceError, RefusedError
from appliance.terminal import (
    DEFAULT_STATION,
    BundleOption,
    StationOption,
    cache_folder,
    find_bundle,
    progress_bar,
    say,
    talk,
    tell,
    wide_console,
)
from engines.errors import EngineError
from kernels.errors import KernelError

if TYPE_CHECKING:
    from appliance.again import Changes
    from appliance.images import ImageStore
    from appliance.screening import Archive, OneShot
    from appliance.station import Station

RESCREEN_NICE = 10  # the line goes first
MOST_NAMED = 20  # frames
_CELL = "[dim]–[/dim]"
_COLOURS = {"PASS": "green", "FAIL": "red", "RETEST": "yellow"}

app = typer.Typer(
    help="Umbra screens dark frames of image sensors: one durable verdict, PASS, FAIL or RETEST, a frame.",
    no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode="rich", add_completion=False,
)  # fmt: skip
app.add_typer(bundle_app, name="bundle")
app.add_typer(engines_app, name="engines")
app.add_typer(spec_app, name="spec")
app.add_typer(labels_app, name="labels")
app.add_typer(loop_app, name="loop")
app.add_typer(lot_app, name="lot")
app.add_typer(report_app, name="report")
app.add_typer(simulate_app)
app.add_typer(training_app)
app.add_typer(rank_app)
app.add_typer(care_app)


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


@app.command(epilog="Example: umbra serve --station /srv/umbra")
def serve(station: StationOption = DEFAULT_STATION) -> None:
    """Serve the HTTP API alone, beside `umbra run --no-api`, until stopped."""
    from appliance.api import server

    server.serve(station)


@app.command(epilog="Example: umbra line --station /srv/umbra")
def line(station: StationOption = DEFAULT_STATION) -> None:
    """Tell the hosts that umbra.toml names of verdicts, beside `umbra run --no-api`, until stopped."""
    import asyncio

    from appliance import log
    from appliance.line import server
    from appliance.station import Station

    log.configure()
    place = Station.open(station)
    if not server.ports_of(place):
        tell("no host: umbra.toml has no section below [line]")
        return
    asyncio.run(server.serve(place))


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
    from appliance.screening import OneShot, find_targets
    from appliance.settings import Settings
    from appliance.station import Station
    from appliance.verdict_log import VerdictLog
    from engines.build import build_inspector

    targets = find_targets(paths)
    place = Station.open(station, create=True) if station else None
    console = talk()
    with ExitStack() as opened:
        log = opened.enter_context(closing(VerdictLog(place.database))) if place else None
        images = _pictures(place, opened) if place else None
        chosen = find_bundle(bundle, place, log)
        settings = place.settings if place else Settings()
        cache = place.engines if place else cache_folder()
        with console.status("building engines"):
            inspector = opened.enter_context(closing(build_inspector(chosen, settings.engine.choice, cache=cache)))
        printer = _Printer(output)
        with progress_bar(console) as progress:
            task = progress.add_task("screening", total=len(targets))
            one_shot = OneShot(inspector, settings, log, images=images)
            for row in one_shot.screen(targets):
                printer.add(row)
                progress.advance(task)
        printer.finish()
    _say_lost(one_shot)


@app.command(epilog="Example: umbra rescreen --bundle second --station station")
def rescreen(
    station: StationOption = DEFAULT_STATION,
    bundle: BundleOption = None,
    product: Annotated[str | None, typer.Option(help="Only this product.")] = None,
    lot: Annotated[str | None, typer.Option(help="Only this lot.")] = None,
    output: Annotated[
        OutputFormat,
        typer.Option(
            "--format", help="How to print: a table of all verdicts that differ from before, or each as it comes."
        ),
    ] = OutputFormat.TABLE,
) -> None:
    """Let a bundle judge the archived frames that it has not judged. The line's log and verdicts stay as they are.

    What it says is kept beside them, in again/. Goes on where it was stopped.
    """
    from appliance.again import AgainLog, Changes, alone
    from appliance.screening import Archive, OneShot
    from appliance.station import Station, as_its_owner
    from appliance.verdict_log import VerdictLog
    from engines.build import build_inspector

    os.nice(RESCREEN_NICE)
    place = Station.open(station)
    console = talk()
    with ExitStack() as opened:
        log = opened.enter_context(closing(VerdictLog(place.database)))
        if not log.has_frames(product=product, lot=lot):
            raise RefusedError(
                f"product {product or 'of any name'}, lot {lot or 'of any name'}: the log has no frame of it"
            )
        chosen = find_bundle(bundle, place, log)
        with console.status("building engines"):
            inspector = opened.enter_context(closing(build_inspector(chosen, place.engine, cache=place.engines)))
        opened.enter_context(alone(place))
        place.again.root.mkdir(exist_ok=True)
        again = opened.enter_context(closing(AgainLog(place, log)))
        again.follow(log)
        images = _pictures(place.again, opened)
        for path in (place.again.root, *place.again.root.iterdir()):
            as_its_owner(path, place.root)
        archive = Archive(place, log, again, chosen.identity, product, lot)
        printer, changes, judged = _Printer(output), Changes(), 0
        one_shot = OneShot(inspector, place.settings, again, log, images, archive)
        try:
            with progress_bar(console) as progress:
                task = progress.add_task("screening", total=len(archive))
                for row in one_shot.screen(archive.targets()):
                    judged += 1
                    if output is not OutputFormat.TABLE:
                        printer.add(row)
                    progress.update(task, completed=judged + archive.passed_over)
        finally:  # stopped or not: what was found is told
            for row in changes.of(again, log, chosen.identity, product=product, lot=lot):
                if output is OutputFormat.TABLE:
                    printer.add(row)
            printer.finish()
            _say_lost(one_shot)
            _say_judged_again(chosen.identity, judged, changes, archive)


def _say_judged_again(bundle: str, judged: int, changes: Changes, archive: Archive) -> None:
    for told in archive.unreadable[:MOST_NAMED]:
        tell(f"not judged: {told}")
    tell(f"{bundle}: {judged} frames judged; of all {changes.became.total()} that it has judged, {changes}; "
         f"{archive.gone} have no file any more, {archive.changed} a file of other bytes, {len(archive.unreadable)} "
         f"one that cannot be decoded now")  # fmt: skip


def _pictures(place: Station, opened: ExitStack) -> ImageStore | None:
    """The picture store of a station; without it frames are judged all the same."""
    from appliance.images import ImageStore

    if not place.settings.disk.keep_images:
        return None
    try:
        return opened.enter_context(closing(ImageStore(place.images)))
    except sqlite3.Error as error:
        tell(f"{place.images}: {error}; no pictures are kept; delete it and start again")
        return None


def _say_lost(one_shot: OneShot) -> None:
    if one_shot.lost:
        tell(f"{one_shot.lost} pictures could not be kept")


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


@app.command(epilog="Example: umbra doctor --station station")
def doctor(station: StationOption = DEFAULT_STATION, bundle: BundleOption = None) -> None:
    """Check this machine and the station, and say what to do."""
    from appliance.doctor import examine

    console, broken = wide_console(), False
    for check in examine(station, bundle=bundle):
        mark = {True: "[green]ok[/]", False: "[red]broken[/]", None: "[yellow]–[/]"}[check.ok]
        console.print(f"{mark:>20} [bold]{check.name}[/]: {escape(check.found)}", highlight=False)
        if check.ok is not True and check.advice:
            console.print(f"{'':>8}{escape(check.advice)}", highlight=False)
        broken |= check.ok is False
    raise typer.Exit(1 if broken else 0)


def main() -> None:
    """Run the command line; errors that have a name end with one line and exit code 1."""
    try:
        app()
    except (ApplianceError, EngineError, KernelError, OSError) as error:
        talk().print(f"[red]umbra:[/] {escape(str(error))}", highlight=False, soft_wrap=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
