"""`umbra bundle` and `umbra engines`: pack, verify, activate, list, build."""

from __future__ import annotations

import os
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from appliance import log as events
from appliance.errors import ApplianceError
from appliance.terminal import (
    DEFAULT_STATION,
    BundleOption,
    ClassMapOption,
    FoldOption,
    StationOption,
    cache_folder,
    find_bundle,
    progress_bar,
    read_data,
    say,
    talk,
    tell,
    told_progress,
    train_extra,
)
from engines import EngineChoice, Precision, Target
from engines.errors import EngineError

if TYPE_CHECKING:
    from appliance.station import Station
    from engines.bundle import Bundle

SWITCH_S, LOOK_S = 60.0, 0.1  # how long `activate` looks for what the screener makes of it

bundle_app = typer.Typer(
    help="Models, stretch parameters, golden frames and default spec, in one hashed folder.", no_args_is_help=True
)
engines_app = typer.Typer(help="Compiled engines of a bundle.", no_args_is_help=True)


def _weights(path: Path, role: str, lender: Bundle | None) -> Path:
    if path.exists():
        return path
    if lender is None:
        raise ApplianceError(f"{path}: not there; wanted the weights of all roles, or --from a bundle that lends them")
    return lender.model(role)


@bundle_app.command("pack", epilog="Example: umbra bundle pack runs --name mine --out bundles/mine --simulate 26000")
def bundle_pack(
    runs: Annotated[
        Path, typer.Argument(help="Folder with classifier/, regressor/ and unseen/weights.pt.", exists=True)
    ],
    name: Annotated[str, typer.Option(help="Name of the bundle.")],
    out: Annotated[Path, typer.Option(help="Folder of the bundle.", file_okay=False)],
    data: Annotated[Path | None, typer.Option(help="The data the networks were trained on.", exists=True)] = None,
    class_map: ClassMapOption = None,
    fold: FoldOption = None,
    simulated: Annotated[int | None, typer.Option("--simulate", min=64, help="As `umbra train`.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the simulated frames, as `umbra train`.")] = 0,
    note: Annotated[str, typer.Option(help="Where the networks come from.")] = "",
    lender: Annotated[
        str | None,
        typer.Option("--from", help="Bundle, by name or folder, that lends the networks RUNS does not hold."),
    ] = None,
) -> None:
    """Quantise three trained networks and write a bundle (the `train` extra)."""
    from appliance.training_sets import training_sets
    from kernels import StretchParams

    train_extra()
    from engines.bundle import MODEL_FILES
    from engines.training.pack import pack

    lent = None if lender is None else find_bundle(lender, None, None)
    weights = {role: _weights(runs / role / "weights.pt", role, lent) for role in MODEL_FILES}
    known = None if data is None else read_data(data, class_map, fold)
    with told_progress(talk()) as progress:
        sets = training_sets(known, simulated, cache=runs / "sets", seed=seed, progress=progress)
    bundle = pack(weights, sets, out, name=name, stretch=StretchParams(), training={"note": note}, report=tell)
    say(bundle.identity)


@bundle_app.command(
    "reference", epilog="Example: umbra bundle reference starter --data frames/test --out starter --source 'seed 4004'"
)
def bundle_reference(
    name: Annotated[str, typer.Argument(help="The bundle.")],
    data: Annotated[
        Path, typer.Option(help="Its test set: frames, or a set with truth.csv, whose test frames count.", exists=True)
    ],
    out: Annotated[Path, typer.Option(help="Folder of the bundle to write; must not exist yet.")],
    source: Annotated[str, typer.Option(help="Where these frames come from.")],
    station: StationOption = DEFAULT_STATION,
) -> None:
    """Measure a bundle's test set, and write the bundle with its distributions: what `umbra report` tells drift by."""
    from appliance.screening import OneShot, Target, find_targets
    from appliance.settings import Settings
    from appliance.station import Station
    from engines import CpuInspector
    from engines.bundle import add_reference, find, load
    from engines.reference import ENOUGH, Reference, counts

    if out.exists():
        raise typer.BadParameter(f"{out}: is there already")
    chosen = load(find(name, station / "engines" / "bundles"))
    settings = Station.open(station).settings if station.is_dir() else Settings()
    targets = find_targets([data])
    if (data / "truth.csv").is_file():
        targets = [Target(data, row.file) for row in read_data(data, None, None).of_split("test")]
    with progress_bar(talk()) as bar:
        rows = list(bar.track(OneShot(CpuInspector(chosen), settings).screen(targets), total=len(targets)))
    if (found := sum(counts(row, "score") for row in rows)) < ENOUGH:
        raise ApplianceError(
            f"{data}: {found} frames that {chosen.name} calls OK, wanted at least {ENOUGH}: fewer make false alarms"
        )
    made = add_reference(chosen, out, Reference.of(source, rows))
    say(f"{made.identity}: {len(rows)} frames")


@bundle_app.command("verify", epilog="Example: umbra bundle verify starter")
def bundle_verify(bundle: Annotated[str, typer.Argument(help="Name or folder.")] = "starter") -> None:
    """Check every hash of a bundle and pass it through the golden gate."""
    from engines.build import build_inspector, check_golden

    chosen = find_bundle(bundle, None, None)
    with closing(build_inspector(chosen, cache=cache_folder())) as inspector:
        report = check_golden(inspector)
    say(
        f"{chosen.identity}: hashes right; {report.frames} golden frames within {report.score_difference:.6f}, no flips"
    )


@bundle_app.command("list", epilog="Example: umbra bundle list --station station")
def bundle_list(station: StationOption = DEFAULT_STATION) -> None:
    """Bundles that are shipped or were brought to the station; * marks the active one."""
    from appliance.station import Station
    from appliance.verdict_log import VerdictLog
    from engines import bundle

    place = Station.open(station) if station.is_dir() else None
    active = None
    if place and place.database.exists():
        with closing(VerdictLog(place.database, readonly=True)) as log:
            active = log.active_bundle()
    if active is None and place is not None:
        active = place.settings.engine.bundle
    for folder in bundle.listed(*([place.bundles] if place else [])):
        say(
            f"{'*' if active in (folder.name, str(folder.resolve())) else ' '} {bundle.load(folder).identity}  {folder}"
        )


@bundle_app.command("activate", epilog="Example: umbra bundle activate mine --station station")
def bundle_activate(
    bundle: Annotated[str, typer.Argument(help="Name or folder.")],
    station: StationOption = DEFAULT_STATION,
    who: Annotated[str, typer.Option(help="Who says so.")] = os.environ.get("USER", "unknown"),
) -> None:
    """Make a bundle the station's active one, through the golden gate; a running screener changes to it between two frames."""
    from appliance.station import Station

    place = Station.open(station)
    activate_bundle(place, place.load_bundle(bundle), who)


@bundle_app.command("rollback", epilog="Example: umbra bundle rollback --station station")
def bundle_rollback(
    station: StationOption = DEFAULT_STATION,
    who: Annotated[str, typer.Option(help="Who says so.")] = os.environ.get("USER", "unknown"),
) -> None:
    """Go back to the bundle that was active before, through the golden gate, as `activate` does."""
    from appliance.activation import the_one_before
    from appliance.station import Station

    place = Station.open(station)
    activate_bundle(place, the_one_before(place), who)


def activate_bundle(place: Station, chosen: Bundle, who: str) -> None:
    """Let a bundle through the golden gate, write its activation down, and see a running screener change to it."""
    from appliance.activation import refuse, write_down
    from engines.build import build_inspector

    try:
        build_inspector(chosen, place.engine, cache=place.engines).close()
    except EngineError as error:
        refuse(place, chosen, str(error))
        raise
    number = write_down(place, chosen, who)
    say(f"{chosen.identity} is active{_followed(place, chosen, number)}")


def _followed(place: Station, chosen: Bundle, number: int) -> str:
    """What became of an activation in the running screener, once it is known.

    Raises:
        ApplianceError: the screener refused it.
    """
    import time

    end = time.monotonic() + SWITCH_S
    while time.monotonic() < end:
        state = place.read_state()
        if not place.is_screened() or state is None:
            return "; no screener is running"
        seen = state.get("activation")
        if seen is None and "activation" in state:
            return f"; the running screener keeps {state['bundle']}, which it was started with"
        if seen and (seen["id"] or 0) >= number and not seen["building"] and state.get("bundle") == chosen.identity:
            return "; the running screener uses it"
        if seen and seen["id"] == number and seen["refused"]:
            raise ApplianceError(
                f"the running screener refused {chosen.identity} and keeps {state['bundle']}: {seen['refused']}"
            )
        time.sleep(LOOK_S)
    return f"; the running screener has not changed to it within {SWITCH_S:.0f} s"


@engines_app.command("build", epilog="Example: umbra engines build --station station --target tensorrt")
def engines_build(
    station: StationOption = DEFAULT_STATION,
    bundle: BundleOption = None,
    target: Annotated[Target | None, typer.Option(help="What runs them; default: the station's settings.")] = None,
    precision: Annotated[
        Precision | None, typer.Option(help="Arithmetic; default: the settings', or the target's own.")
    ] = None,
    max_batch: Annotated[
        int | None, typer.Option(min=1, max=1024, help="Frames at once on a GPU; default: the settings'.")
    ] = None,
    via: Annotated[
        Path | None,
        typer.Option("--via-torch", help="Folder of trainings; torch-tensorrt makes the engines of their weights."),
    ] = None,
) -> None:
    """Compile a bundle's engines into the station's cache and pass the golden gate."""
    from appliance.station import Station
    from engines.build import build_inspector, check_golden

    place = Station.open(station, create=True)
    settings = place.settings.engine
    try:
        choice = EngineChoice(
            target=target or settings.target, threads=settings.threads, max_batch=max_batch or settings.max_batch,
            precision=precision or (settings.precision if target in (None, settings.target) else None),
        )  # fmt: skip
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    if via is not None and (choice.target, choice.arithmetic) != (Target.TENSORRT, Precision.FP16):
        raise typer.BadParameter(
            f"--via-torch is for target tensorrt in fp16, not {choice.target} in {choice.arithmetic}"
        )
    chosen = place.load_bundle(bundle, active=place.active_bundle())
    with talk().status(f"building {choice.target}") as status:
        inspector = build_inspector(
            chosen, choice, cache=place.engines,
            progress=lambda role, phase, step, steps: status.update(escape(f"{role}: {phase} {step} of {steps}")), runs=via,
        )  # fmt: skip
        with closing(inspector):
            report = check_golden(inspector)
    say(f"{inspector.engine}: {report.frames} golden frames within {report.score_difference:.6f}")


@engines_app.command("check", epilog="Example: umbra engines check --station /srv/umbra")
def engines_check(station: StationOption = DEFAULT_STATION) -> None:
    """Measure the golden frames now: by the screener where one runs, else with engines of its own."""
    from appliance.station import Station
    from appliance.verdict_log import VerdictLog
    from engines.build import build_inspector, check_golden

    place = Station.open(station)
    if not place.is_screened():
        chosen = place.load_bundle(active=place.active_bundle())
        with closing(build_inspector(chosen, place.engine, cache=place.engines)) as inspector:
            report = check_golden(inspector)
        say(f"{report.frames} golden frames within {report.score_difference:.4f}")
        return
    with closing(VerdictLog(place.database)) as log:
        log.add_event(events.GOLDEN_ASKED, who=os.environ.get("USER", "unknown"))
        wish = log.newest_event(events.GOLDEN_ASKED)
        end = time.monotonic() + SWITCH_S
        while time.monotonic() < end and wish is not None:
            for kind in (events.GOLDEN_PASSED, events.GOLDEN_FAILED):
                answer = log.newest_event(kind)
                if answer is not None and answer["id"] > wish["id"]:
                    detail = answer["detail"]
                    if kind == events.GOLDEN_FAILED:
                        raise ApplianceError(detail["reason"])
                    say(
                        f"{detail['frames']} golden frames within {detail['score_difference']:.4f}, measured by the screener"
                    )
                    return
            time.sleep(LOOK_S)
    raise ApplianceError(f"the screener of {station} did not measure its golden frames within {SWITCH_S:g} s")


@engines_app.command("list", epilog="Example: umbra engines list --station station")
def engines_list(station: StationOption = DEFAULT_STATION) -> None:
    """Compiled engines in the station's cache."""
    from appliance.station import Station

    folder = Station.open(station).engines
    for blob in sorted(folder.glob("*.blob")):
        say(f"{blob.name}  {blob.stat().st_size / 1e6:.1f} MB")
    for plans in sorted(p for p in folder.glob("tensorrt*") if p.is_dir()):
        say(f"{plans.name}  {sum(p.stat().st_size for p in plans.iterdir()) / 1e6:.1f} MB")


@engines_app.command("bench", epilog="Example: umbra engines bench --frames 50")
def engines_bench(
    bundle: BundleOption = None,
    frames: Annotated[int, typer.Option(min=1, help="Frames a precision.")] = 50,
    target: Annotated[Target, typer.Option(help="What runs them.")] = Target.OPENVINO,
) -> None:
    """Frames per second of the inspector at each precision, on the bundle's golden frames."""
    from engines.build import build_inspector

    chosen = find_bundle(bundle, None, None)
    golden = [g.frame for g in chosen.golden()]
    for precision in target.precisions:
        choice = EngineChoice(target=target, precision=precision)
        many = [golden[i % len(golden)] for i in range(frames)]
        with closing(build_inspector(chosen, choice, cache=cache_folder())) as inspector:
            inspector.measure(golden)
            began = time.perf_counter()
            inspector.measure(many)
            say(f"{inspector.engine}  {frames / (time.perf_counter() - began):.1f} frames/s")
