"""`umbra labels`: what people say of frames; to files of other programs and back."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import closing
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from appliance.terminal import (
    DEFAULT_STATION,
    BundleOption,
    JsonOption,
    StationOption,
    find_bundle,
    progress_bar,
    say,
    talk,
    tell,
    wide_console,
)

if TYPE_CHECKING:
    from appliance.labels import Box, Label

labels_app = typer.Typer(help="What people say of frames: classes, levels and boxes; nothing is overwritten.",
                         no_args_is_help=True)  # fmt: skip
WhoOption = Annotated[str, typer.Option(help="Who says so.")]
PROPOSED_AT_ONCE = 200  # labels in a transaction: the screener waits for it
USER = os.environ.get("USER") or "unknown"


class FileFormat(StrEnum):
    """Of label files: the names of the modules in appliance.exchange."""

    COCO = "coco"
    LABEL_STUDIO = "label_studio"
    CSV = "csv"


@labels_app.command(
    "add", epilog="Example: umbra labels add P/L7/d118.tif --class Spot --level 6 --box 40,30,90,80:ring"
)
def labels_add(
    frame: Annotated[str, typer.Argument(help="Path in the inbox, or the name where only one frame has it.")],
    class_name: Annotated[str | None, typer.Option("--class", help="OK, Spot, Diagonal or Error.")] = None,
    level: Annotated[float | None, typer.Option(help="0..10.")] = None,
    box: Annotated[list[str] | None, typer.Option(help="x0,y0,x1,y1 in pixels of the frame, and :class.")] = None,
    who: WhoOption = USER,
    note: Annotated[str | None, typer.Option(help="Why.")] = None,
    empty: Annotated[bool, typer.Option("--empty", help="There is nothing to draw a box around.")] = False,
    settles: Annotated[bool, typer.Option("--settles", help="Ends a dispute over this frame.")] = False,
    station: StationOption = DEFAULT_STATION,
) -> None:
    """Append a label to a frame; earlier ones stay."""
    from appliance.exchange import Incoming
    from appliance.exchange.taking import import_labels
    from appliance.labels import Label
    from appliance.station import Station
    from appliance.verdict import now_utc
    from appliance.verdict_log import VerdictLog

    drawn = [_box(text) for text in box or ()]
    label = Label(class_name=class_name, level=level, boxes=tuple(b for b, _ in drawn), who=who, at=now_utc(), note=note,
                  box_classes=tuple(name for _, name in drawn), settles=settles, empty=empty)  # fmt: skip
    with closing(VerdictLog(Station.open(station).database)) as log:
        import_labels(log, [Incoming(path=frame, labels=(label,))], who=who, source="label", said_now=True)
    say(f"label of {frame} by {who}")


def _box(text: str) -> tuple[Box, str | None]:
    corners, _, name = text.partition(":")
    try:
        x0, y0, x1, y1 = map(int, corners.split(","))
    except ValueError:
        raise typer.BadParameter(f"box {text!r}: wanted x0,y0,x1,y1 or x0,y0,x1,y1:class") from None
    return (x0, y0, x1, y1), name or None


@labels_app.command("list", epilog="Example: umbra labels list --disputed --station station")
def labels_list(
    station: StationOption = DEFAULT_STATION,
    disputed: Annotated[bool, typer.Option("--disputed", help="Only frames on which people differ.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Frames with labels: what holds of each, and whether people differ."""
    from appliance.exchange import labeled_frames
    from appliance.labels import fields_of
    from appliance.station import Station
    from appliance.verdict_log import VerdictLog

    with closing(VerdictLog(Station.open(station).database, readonly=True)) as log:
        frames = [f for f in labeled_frames(log, log.labels()) if f.standing.disputed or not disputed]
    if as_json:
        say(json.dumps([
            {"frame_id": f.frame_id, "frame": f.path, "disputed": f.standing.disputed, "labels": [*map(fields_of, f.labels)]}
            for f in frames
        ]))  # fmt: skip
        return
    table = Table("frame", "class", "level", "boxes", "who", "at", "labels", "")
    for frame in frames:
        holds = frame.standing.label or frame.standing.proposal
        if holds is not None:
            boxes = ", ".join(name or "–" for name in holds.box_classes)
            state = "disputed" if frame.standing.disputed else "proposed" if frame.standing.label is None else ""
            table.add_row(
                escape(frame.path), holds.class_name or "–", "–" if holds.level is None else f"{holds.level:g}",
                escape(boxes), escape(holds.who), holds.at, str(sum(label.retracted is None for label in frame.labels)), state,
            )  # fmt: skip
    wide_console().print(table)


@labels_app.command("retract", epilog="Example: umbra labels retract 17 --who jo")
def labels_retract(
    label: Annotated[int, typer.Argument(min=1, max=2**63 - 1, help="Its id, as `umbra labels list --json` shows it.")],
    station: StationOption = DEFAULT_STATION,
    who: WhoOption = USER,
) -> None:
    """Take a label back: it stays in the log, and says nothing any more."""
    from appliance.errors import ApplianceError
    from appliance.station import Station
    from appliance.verdict_log import VerdictLog

    with closing(VerdictLog(Station.open(station).database)) as log:
        if not log.retract_label(label, who=who):
            raise ApplianceError(f"label {label}: there is none, or it was taken back before")
    say(f"label {label} taken back by {who}")


@labels_app.command("rename", epilog="Example: umbra labels rename ring halo --who jo")
def labels_rename(
    old: Annotated[str, typer.Argument(help="Class of boxes as it is called now.")],
    new: Annotated[str, typer.Argument(help="What it shall be called; a name that is in use joins the two.")],
    station: StationOption = DEFAULT_STATION,
    who: WhoOption = USER,
) -> None:
    """Give a class of boxes another name in all labels so far; what was said stays in the log."""
    from appliance.labels import renaming
    from appliance.station import Station
    from appliance.verdict_log import VerdictLog

    with closing(VerdictLog(Station.open(station).database)) as log:
        boxes, joined = renaming(old, new, log.labels())
        log.add_rename(old, new, who=who)
    say(f"{old} is called {new}: {boxes} boxes" + (f", together with {joined} that were called so" if joined else ""))


@labels_app.command("import", epilog="Example: umbra labels import reviewed.json --format label_studio --who jo")
def labels_import(
    path: Annotated[Path, typer.Argument(help="File of labels.", exists=True, dir_okay=False)],
    form: Annotated[FileFormat, typer.Option("--format", help="Of the file.")],
    station: StationOption = DEFAULT_STATION,
    who: Annotated[str, typer.Option(help="Who drew what the file names nobody for.")] = USER,
    user: Annotated[
        list[str] | None, typer.Option(help="NUMBER=NAME of somebody whom the file (Label Studio) knows by a number.")
    ] = None,
) -> None:
    """Append what a file says, all of it or nothing; what is known already is not stored twice.

    What the file gives no time for was said when it was last written.
    """
    from appliance.exchange import format_named
    from appliance.exchange.taking import import_labels
    from appliance.station import Station
    from appliance.times import utc_of
    from appliance.verdict_log import VerdictLog

    users = dict(_user(text) for text in user or ())
    at = utc_of(min(path.stat().st_mtime, time.time()))
    with closing(VerdictLog(Station.open(station).database)) as log:
        done = import_labels(log, format_named(form).read(path), who=who, source=str(path), at=at, users=users)
    gone = f", {done.taken_back} of them now taken back" if done.taken_back else ""
    say(f"{done.added} labels added, {done.known} known already{gone}, {done.frames} frames")


def _user(text: str) -> tuple[str, str]:
    number, _, name = text.partition("=")
    if not (number.isdigit() and name):
        raise typer.BadParameter(f"user {text!r}: wanted NUMBER=NAME")
    return number, name


@labels_app.command("export", epilog="Example: umbra labels export labels.json --format coco")
def labels_export(
    path: Annotated[Path, typer.Argument(help="File to write.", dir_okay=False)],
    form: Annotated[FileFormat, typer.Option("--format", help="Of the file.")],
    station: StationOption = DEFAULT_STATION,
) -> None:
    """Write all labels, history included, to a file that can be imported again."""
    from appliance.exchange import LabeledFrame, format_named, labeled_frames
    from appliance.station import Station
    from appliance.verdict_log import VerdictLog

    place = Station.open(station)
    labels = frames = disputed = 0

    def counted(of: Iterable[LabeledFrame]) -> Iterator[LabeledFrame]:
        nonlocal labels, frames, disputed
        for frame in of:
            labels, frames, disputed = labels + len(frame.labels), frames + 1, disputed + frame.standing.disputed
            yield frame

    images = place.images if form is FileFormat.LABEL_STUDIO else None
    with closing(VerdictLog(place.database, readonly=True)) as log:
        format_named(form).write(counted(labeled_frames(log, log.labels(taken_back=True), images=images)), path)
    tell(f"{path}: {labels} labels of {frames} frames, {disputed} of them disputed")


@labels_app.command("propose", epilog="Example: umbra labels propose --product IMX1 --least 0.95")
def labels_propose(
    station: StationOption = DEFAULT_STATION,
    bundle: BundleOption = None,
    product: Annotated[str | None, typer.Option(help="Only this product.")] = None,
    lot: Annotated[str | None, typer.Option(help="Only this lot.")] = None,
    least: Annotated[
        float, typer.Option(min=0.25, max=1.0, help="P of the class from which on one is proposed.")
    ] = 0.9,
) -> None:
    """Let a bundle label the frames that nobody has labeled; proposals never hold, and nothing is trained on them."""
    from appliance.propose import candidates, proposals
    from appliance.station import Station
    from appliance.verdict_log import VerdictLog

    place = Station.open(station)
    with closing(VerdictLog(place.database)) as log:
        chosen = find_bundle(bundle, place, log)
        frames = candidates(log, chosen.identity, product=product, lot=lot)
        made = 0
        batch: list[tuple[int, Label]] = []
        with progress_bar(talk()) as progress:
            task = progress.add_task("proposing", total=len(frames))
            for frame, label in proposals(place, chosen, frames, least=least) if frames else ():
                batch += [] if label is None else [(frame["id"], label)]
                if len(batch) >= PROPOSED_AT_ONCE:
                    made += len(log.add_labels(batch, said_now=True))
                    batch = []
                progress.advance(task)
        made += len(log.add_labels(batch, said_now=True))
    say(
        f"{made} proposals by {chosen.identity}; {len(frames) - made} frames without (not sure, or neither picture nor file kept)"
    )


@labels_app.command("accept", epilog="Example: umbra labels accept P/L7/d118.tif --who jo")
def labels_accept(
    frames: Annotated[list[str], typer.Argument(help="Paths in the inbox, or names where only one frame has them.")],
    station: StationOption = DEFAULT_STATION,
    who: WhoOption = USER,
) -> None:
    """Make the proposals of frames a person's own labels."""
    from appliance.exchange.taking import frame_named
    from appliance.propose import accepted
    from appliance.station import Station
    from appliance.verdict_log import VerdictLog

    with closing(VerdictLog(Station.open(station).database)) as log:
        own = accepted(log, [frame_named(log, name) for name in frames], who=who)
        log.add_labels(own, said_now=True)
    say(f"{len(own)} proposals accepted by {who}")
