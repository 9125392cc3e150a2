"""`umbra pause`, `resume`, `retain`, `backup`, `restore`: what keeps a station going for years."""

from __future__ import annotations

import json
import os
import time
from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer

from appliance.errors import ApplianceError
from appliance.parts import Part
from appliance.terminal import DEFAULT_STATION, JsonOption, StationOption, say, talk, wide_console

care_app = typer.Typer()
WhoOption = Annotated[str, typer.Option(help="Who says so.")]
ANSWER_S, LOOK_S = 30.0, 0.1
_USER = os.environ.get("USER", "unknown")


@care_app.command(epilog="Example: umbra pause --why 'new light source' --station /srv/umbra")
def pause(
    why: Annotated[str | None, typer.Option(help="Why; shown wherever the station is said to be not ready.")] = None,
    who: WhoOption = _USER,
    station: StationOption = DEFAULT_STATION,
) -> None:
    """Begin no further frame until `umbra resume`, restarts included; frames that are dropped wait in the inbox.

    Where a screener runs it returns when that has put the frame in its hand down.
    """
    from appliance import pause as pauses
    from appliance.station import Station
    from appliance.verdict_log import VerdictLog

    place = Station.open(station)
    with closing(VerdictLog(place.database)) as log:
        pauses.pause(log, who=who, why=why)
    end = time.monotonic() + ANSWER_S
    while place.is_screened() and not (place.read_state() or {}).get("paused"):
        if time.monotonic() > end:
            raise ApplianceError(
                f"{station}: asked for, but the screener has not said within {ANSWER_S:g} s that it paused"
            )
        time.sleep(LOOK_S)
    say(f"{station}: paused")


@care_app.command(epilog="Example: umbra resume --station /srv/umbra")
def resume(who: WhoOption = _USER, station: StationOption = DEFAULT_STATION) -> None:
    """End a pause, whoever asked for it: a person, or a host on the line."""
    from appliance import pause as pauses
    from appliance.station import Station
    from appliance.verdict_log import VerdictLog

    with closing(VerdictLog(Station.open(station).database)) as log:
        pauses.resume(log, who=who)
    say(f"{station}: screening goes on")


@care_app.command(epilog="Example: umbra retain --station /srv/umbra")
def retain(station: StationOption = DEFAULT_STATION, as_json: JsonOption = False) -> None:
    """Delete what the settings' [retention] lets go: pictures and put-away frames first, verdicts last, by age and bytes."""
    from dataclasses import asdict

    from appliance.retention import Retention
    from appliance.station import Station
    from appliance.verdict_log import VerdictLog

    place = Station.open(station)
    with closing(VerdictLog(place.database)) as log:
        report = Retention(place, log).run()
    if as_json:
        say(json.dumps(asdict(report)))
        return
    say(f"deleted: pictures of {report.pictures} frames, {report.frames} frames, {report.files} verdict files "
        f"({report.bytes_ / 1e6:.1f} MB), {report.verdicts} verdicts, {report.verdicts_again} of those given again")  # fmt: skip
    for trouble in report.troubles:
        talk().print(trouble, markup=False)
    if report.kept:
        talk().print(
            f"kept: {len(report.kept)} files without a verdict in the log, such as {report.kept[0]}", markup=False
        )


@care_app.command(epilog="Example: umbra backup /mnt/backup/umbra-$(date +%F) --station /srv/umbra")
def backup(
    out: Annotated[Path, typer.Argument(help="New folder of the backup.")],
    station: StationOption = DEFAULT_STATION,
    as_json: JsonOption = False,
) -> None:
    """Copy the log and the settings while the station screens; the copy is checked."""
    from appliance.backup import back_up
    from appliance.station import Station

    told = back_up(Station.open(station), out)
    say(json.dumps(told) if as_json else f"{out}: {told['verdicts']} verdicts, the last of number {told['last_seq']}")


@care_app.command(epilog="Example: umbra restore /mnt/backup/umbra-2026-11-01 --station /srv/umbra --again")
def restore(
    folder: Annotated[Path, typer.Argument(metavar="BACKUP", help="Folder that `umbra backup` wrote.", exists=True)],
    station: StationOption = DEFAULT_STATION,
    again: Annotated[
        bool, typer.Option(help="Judge put-away frames that the restored log does not know once more.")
    ] = False,
) -> None:
    """Put the log of a backup in the place of the one that is there, which is set aside. No screener may run."""
    from appliance import backup as backups
    from appliance.station import Station

    done = backups.restore(folder, Station.open(station, create=True), again=again)
    say(f"{done.verdicts} verdicts; the next one is number {done.next_seq}")
    if done.settings_stay:
        say("umbra.toml is the one that was there; the backup's is another")
    if done.set_aside is not None:
        say(f"the log before: {done.set_aside}")
    if done.back:
        say(f"{len(done.back)} frames are back in the inbox")
    stay = [path for path in done.without_verdict if path not in done.back]
    if stay and again:
        talk().print(
            f"{len(stay)} stay where they are, since the inbox has files of their names, such as {stay[0]}",
            markup=False,
        )
    elif stay:
        talk().print(
            f"{len(done.without_verdict)} put-away frames have no verdict in this log, such as "
            f"{done.without_verdict[0]}; --again judges them once more", markup=False,
        )  # fmt: skip


@care_app.command("support-bundle", epilog="Example: umbra support-bundle support.tar.gz --station /srv/umbra")
def support_bundle(
    out: Annotated[Path, typer.Argument(help="File to write, .tar.gz.", dir_okay=False)],
    station: StationOption = DEFAULT_STATION,
    frames: Annotated[
        list[int] | None,
        typer.Option("--frame", help="Number of a frame that goes along, with its pictures; again for more."),
    ] = None,
) -> None:
    """Settings without secrets, versions, the doctor's report, state and last events in one file; no frames unless asked."""
    from appliance import support
    from appliance.doctor import examine
    from appliance.station import Station

    place = Station.open(station)
    marks = {True: "ok", False: "broken", None: "-"}
    report = "".join(
        f"{marks[c.ok]:>6} {c.name}: {c.found}" + (f"  [{c.advice}]" if c.advice and c.ok is not True else "") + "\n"
        for c in examine(station)
    )
    for name in support.write(out, place, report, frames=frames or ()):
        talk().print(name, markup=False, highlight=False)
    say(str(out))


@care_app.command(epilog="Example: umbra gauge station-1 station-2 --by die")
def gauge(
    stations: Annotated[list[Path], typer.Argument(help="Folders of stations, or copies of their logs.", exists=True)],
    by: Annotated[
        Part, typer.Option(help="What a part is: the same bytes, the same die, or the same name.")
    ] = Part.FRAME,
    since: Annotated[str | None, typer.Option(help="Only verdicts decided at or after this time, 2026-01-31.")] = None,
    bundle: Annotated[str | None, typer.Option(help="Only verdicts of this bundle, name@digest.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Repeatability study: how far the same parts, judged again and again, get the same verdict and score."""
    from rich.table import Table

    from appliance.gauge import gauge as study
    from appliance.gauge import trials_of

    found = study(trials_of(stations, by=by, since=since, bundle=bundle))
    if as_json:
        say(json.dumps(found))
        return
    table = Table(
        "trials", "parts", "alike", "95 %", "kappa", title=f"{found['parts']} parts, {found['trials']} trials"
    )
    rows = {f"on {name}": row for name, row in found["stations"].items()} | {"all": found["all"]}
    if found["between"] is not None:
        rows["between stations"] = found["between"]
    for name, row in rows.items():
        interval = "–" if row["interval"] is None else " to ".join(f"{x:.3f}" for x in row["interval"])
        kappa = "–" if row["kappa"] is None else f"{row['kappa']:.3f}"
        table.add_row(name, str(row["parts"]), str(row["alike"]), interval, kappa)
    wide_console().print(table)
    score, border = found["score"], found["borderline"]
    for name, text in (("repeatability", "one part, one station"), ("reproducibility", "one part, several stations"),
                       ("parts", "parts")):  # fmt: skip
        if score[name] is not None:
            say(f"score, standard deviation over {text}: {score[name]:.5f}")
    if score["gauge_share"] is not None:
        say(f"of the variance of scores the gauge makes {score['gauge_share']:.1%}")
    say(f"borderline: {border['near']} of {border['measured']} parts lie within {border['within']:.4f} of the limit; "
        f"{border['flipped']} were both passed and failed")  # fmt: skip
    if found["judged_once"]:
        talk().print(f"{found['judged_once']} parts were judged once only and are left out", markup=False)
