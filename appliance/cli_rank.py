"""`umbra rank` and `umbra overlay`: what to label next, and where in it."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from appliance.errors import ApplianceError
from appliance.order import Metric, Wanted
from appliance.terminal import DEFAULT_STATION, JsonOption, StationOption, say, talk, tell, told_progress, wide_console

rank_app = typer.Typer()
OTHERS = "{} frames are not in this order, since only other bundles measured them: umbra rescreen"


@rank_app.command("rank", epilog="Example: umbra rank --metric balanced --diverse --count 10 --station station")
def rank_frames(
    metric: Annotated[Metric, typer.Option(help="What frames are ordered by, largest first.")] = Metric.M_ALPHA,
    count: Annotated[int, typer.Option(min=1, max=100_000, help="Frames.")] = 10,
    offset: Annotated[int, typer.Option(min=0, help="Frames of the order to pass over.")] = 0,
    diverse: Annotated[
        bool,
        typer.Option(
            "--diverse",
            help="Leave out what a frame before shows, take what stands for most of the others; of at most 1000.",
        ),
    ] = False,
    product: Annotated[str | None, typer.Option(help="Only this product.")] = None,
    lot: Annotated[str | None, typer.Option(help="Only this lot.")] = None,
    labeled: Annotated[bool, typer.Option("--labeled", help="Frames that a person has labeled, too.")] = False,
    station: StationOption = DEFAULT_STATION,
    as_json: JsonOption = False,
) -> None:
    """What to label next: the frames with the most unseen in them first."""
    from appliance.measured import measured_by_others
    from appliance.rank import rank
    from appliance.station import Station
    from appliance.verdict_log import VerdictLog

    wanted = Wanted(
        metric=metric, count=count, offset=offset, diverse=diverse, product=product, lot=lot, labeled=labeled
    )
    place = Station.open(station)
    with closing(VerdictLog(place.database, readonly=True)) as log, told_progress(talk()) as told:
        frames = rank(place, log, wanted, progress=lambda done, total: told("reading histograms", done, total))
        others = 0 if as_json else measured_by_others(place, log)
    if as_json:
        say(json.dumps(frames))
        return
    table = Table("", "frame id", "frame", "product", "lot", "M alpha", "M thresh", "regions", metric.value)
    for number, one in enumerate(frames, start=offset + 1):
        table.add_row(
            str(number), str(one["frame_id"]), escape(one["frame"]), escape(one["product"]), escape(one["lot"]),
            f"{one['m_alpha']:.1f}", str(one["m_thresh"]), str(len(one["rois"])), f"{one['value']:.4g}",
        )  # fmt: skip
    wide_console().print(table)
    if others:
        tell(OTHERS.format(others))


@rank_app.command("overlay", epilog="Example: umbra overlay 17 --out d118.png --station station")
def overlay_frame(
    frame_id: Annotated[
        int, typer.Argument(min=1, max=2**63 - 1, help="Number of the frame, as `umbra rank` shows it.")
    ],
    out: Annotated[Path, typer.Option(help="PNG to write.", dir_okay=False)],
    again: Annotated[
        bool, typer.Option("--again", help="As the active bundle saw it, where it judged the frame again.")
    ] = False,
    station: StationOption = DEFAULT_STATION,
) -> None:
    """Write a frame's stretched image with S as heat, its regions outlined and numbered by importance."""
    from appliance.exchange import labeled_frames
    from appliance.measured import looks
    from appliance.station import Station
    from appliance.verdict_log import VerdictLog

    place = Station.open(station)
    with closing(VerdictLog(place.database, readonly=True)) as log:
        if not log.frames("id = ?", [frame_id]):
            raise ApplianceError(f"frame {frame_id}: there is none")
        with looks(place, log) as look:
            [frame] = labeled_frames(log, [frame_id], images=place.images, look=look if again else None)
    if frame.pictures is None or frame.pictures[1] is None:
        raise ApplianceError(f"frame {frame_id}: {'no picture is kept' if frame.pictures is None else 'no unseen map'}")
    out.write_bytes(frame.pictures[1])
    say(str(out))
