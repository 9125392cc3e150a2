"""`umbra loop`: label -> retrain -> bundle -> activate, a step at a time."""

from __future__ import annotations

import json
import os
import re
from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from appliance.cli_bundle import activate_bundle
from appliance.cli_rank import OTHERS
from appliance.cli_training import Preset, Role
from appliance.errors import ApplianceError
from appliance.order import Metric, Wanted
from appliance.terminal import (
    DEFAULT_STATION,
    JsonOption,
    StationOption,
    find_bundle,
    say,
    talk,
    tell,
    told_progress,
    train_extra,
    wide_console,
)

OVERLAY = re.compile(r"\d{3,}-\d+\.png")  # what an earlier call wrote

loop_app = typer.Typer(help="Label what is least known, retrain, activate.", no_args_is_help=True)


@loop_app.command("status", epilog="Example: umbra loop status --station station")
def loop_status(station: StationOption = DEFAULT_STATION, as_json: JsonOption = False) -> None:
    """Where the loop stands: labels and their balance, disputes, the last training, and what to do next."""
    from appliance.loop import status
    from appliance.station import Station
    from appliance.verdict_log import VerdictLog

    place = Station.open(station)
    with closing(VerdictLog(place.database, readonly=True)) as log:
        found = status(place, log)
    if as_json:
        say(json.dumps(found))
        return
    console = wide_console()
    classes = ", ".join(f"{escape(name)} {n}" for name, n in found["classes"].items()) or "none"
    console.print(f"active bundle [bold]{found['bundle']}[/]; {found['measured']} frames measured", highlight=False)
    console.print(f"{found['labeled']} frames labeled, {found['new']} since the last training; {found['disputed']} disputed; "
                  f"{found['proposed']} proposed", highlight=False)  # fmt: skip
    console.print(f"classes: {classes}; imbalance {found['imbalance']:.2f}", highlight=False)
    console.print(f"[bold]next[/]: {found['advice']}", highlight=False)


@loop_app.command("next", epilog="Example: umbra loop next --count 10 --out to-label --station station")
def loop_next(
    out: Annotated[Path, typer.Option(help="Folder for the tasks and overlays.", file_okay=False)] = Path("to-label"),
    count: Annotated[int, typer.Option(min=1, max=1000, help="Frames.")] = 10,
    metric: Annotated[Metric, typer.Option(help="What frames are ordered by.")] = Metric.ROIS,
    diverse: Annotated[
        bool,
        typer.Option(
            help="Leave out what a frame before shows, take what stands for most of the others; of at most 1000."
        ),
    ] = True,
    product: Annotated[str | None, typer.Option(help="Only this product.")] = None,
    station: StationOption = DEFAULT_STATION,
) -> None:
    """Write the frames to label next as Label Studio tasks, with their overlays beside them."""
    from appliance.exchange import format_named, labeled_frames
    from appliance.measured import looks, measured_by_others
    from appliance.rank import rank
    from appliance.station import Station
    from appliance.verdict_log import VerdictLog

    place = Station.open(station)
    with closing(VerdictLog(place.database, readonly=True)) as log, told_progress(talk()) as told:
        wanted = Wanted(metric=metric, count=count, diverse=diverse, product=product)
        ranked = rank(place, log, wanted, progress=lambda done, total: told("reading histograms", done, total))
        with looks(place, log) as look:
            frames = list(labeled_frames(log, [one["frame_id"] for one in ranked], look=look))
        others = measured_by_others(place, log)
    if not frames:
        raise ApplianceError("no frame is left to label" + (f"; {OTHERS.format(others)}" if others else ""))
    out.mkdir(parents=True, exist_ok=True)
    format_named("label_studio").write(frames, out / "tasks.json")
    overlays = out / "overlays"
    overlays.mkdir(exist_ok=True)
    for earlier in overlays.glob("*.png"):
        if OVERLAY.fullmatch(earlier.name):
            earlier.unlink()
    for number, frame in enumerate(frames, start=1):
        if frame.pictures and frame.pictures[1]:
            (overlays / f"{number:03d}-{frame.frame_id}.png").write_bytes(frame.pictures[1])
        say(f"{number:3d}  {frame.path}")
    if others:
        tell(OTHERS.format(others))
    tell(f"{out}/tasks.json: import it in Label Studio with the interface of {out}/tasks.xml, export as JSON, then "
         f"umbra labels import EXPORT --format label_studio; or umbra labels add FRAME ...")  # fmt: skip


@loop_app.command("train", epilog="Example: umbra loop train --name second --activate --station station")
def loop_train(
    name: Annotated[str, typer.Option(help="Of the new bundle.")],
    station: StationOption = DEFAULT_STATION,
    roles: Annotated[
        list[Role] | None, typer.Option("--role", help="Networks to train; default: unseen. The others are taken over.")
    ] = None,
    preset: Annotated[Preset, typer.Option(help="How long.")] = Preset.SMALL,
    simulated: Annotated[
        int, typer.Option("--simulate", min=256, help="Simulated frames among which the labeled ones are mixed.")
    ] = 4000,
    seed: Annotated[int, typer.Option(min=0, help="Of batches and simulated frames.")] = 0,
    activate: Annotated[bool, typer.Option("--activate", help="Activate the bundle when it is there.")] = False,
    who: Annotated[str, typer.Option(help="Who says so.")] = os.environ.get("USER", "unknown"),
) -> None:
    """Train on the labels of this station, from the active bundle on, and make a bundle of it (the `train` extra)."""
    train_extra()
    from appliance.retrain import Retraining, new_bundle, retrain
    from appliance.station import Station
    from appliance.training_sets import training_sets
    from appliance.verdict_log import VerdictLog

    place = Station.open(station)
    new_bundle(place, name)
    chosen = tuple(dict.fromkeys(role.value for role in roles or [Role.UNSEEN]))
    with told_progress(talk()) as progress:
        mixed = training_sets(None, simulated, cache=place.root / "loop" / "sets", seed=seed, progress=progress)
    wanted = Retraining(name=name, roles=chosen, preset=preset.value, seed=seed)
    with closing(VerdictLog(place.database)) as log:
        bundle = retrain(place, log, find_bundle(None, place, log), wanted, mixed, report=tell)
    say(bundle.identity)
    if activate:
        activate_bundle(place, bundle, who)
