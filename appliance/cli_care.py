"""`umbra retain`, `backup`, `restore`: what keeps a station going for years."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer

from appliance.terminal import DEFAULT_STATION, JsonOption, StationOption, say, talk

care_app = typer.Typer()


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
        f"({report.bytes_ / 1e6:.1f} MB), {report.verdicts} verdicts")  # fmt: skip
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
    if done.set_aside is not None:
        say(f"the log before: {done.set_aside}")
    if done.without_verdict and again:
        say(f"{len(done.without_verdict)} frames are back in the inbox")
    elif done.without_verdict:
        talk().print(
            f"{len(done.without_verdict)} put-away frames have no verdict in this log, such as "
            f"{done.without_verdict[0]}; --again judges them once more", markup=False,
        )  # fmt: skip
