"""`umbra report`: the station in one page, and agreement of levels with raters."""

from __future__ import annotations

import csv
import datetime as dt
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from typer.core import TyperGroup

from appliance.errors import ApplianceError
from appliance.terminal import (
    DEFAULT_STATION,
    JsonOption,
    StationOption,
    say,
    talk,
    train_extra,
    wide_console,
    without_nan,
)
from appliance.times import utc_text

if TYPE_CHECKING:
    from engines.training.agreement import Opinion


class _ReportGroup(TyperGroup):
    """`umbra report OUT.html` is `umbra report page OUT.html`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """A first word that is no command is the file to write."""
        if args and args[0] not in self.commands and args[0] != "--help":
            args = ["page", *args]
        return super().parse_args(ctx, args)


report_app = typer.Typer(
    cls=_ReportGroup,
    help="The station in one page: `umbra report OUT.html`. And how levels agree with raters.",
    no_args_is_help=True,
)
COLUMNS = ("frame", "level", "rater", "score")


class RatingsError(ApplianceError):
    """A file of ratings is not what it should be."""


def read_ratings(path: Path) -> list[Opinion]:
    """The rows of a CSV file with columns frame, level, rater, score.

    Raises:
        RatingsError: a column is missing, or a level or score is no number in 0..10.
    """
    from engines.training.agreement import Opinion

    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        if missing := [c for c in COLUMNS if c not in (reader.fieldnames or ())]:
            raise RatingsError(f"{path}: no column {', '.join(missing)}; wanted {', '.join(COLUMNS)}")
        found = []
        for number, row in enumerate(reader, start=2):
            try:
                level, score = int(row["level"]), float(row["score"])
            except (TypeError, ValueError) as error:
                raise RatingsError(f"{path} line {number}: {error}") from error
            if not (0 <= level <= 10 and 0 <= score <= 10):
                raise RatingsError(f"{path} line {number}: level {level}, score {score}; wanted both in 0..10")
            found.append(Opinion(row["frame"], level, row["rater"], score))
    return found


@report_app.command(
    "page", epilog="Example: umbra report july.html --since 2026-07-01 --until 2026-08-01 --station /srv/umbra"
)
def report_page(
    out: Annotated[Path, typer.Argument(help="HTML file to write; it needs nothing beside it.", dir_okay=False)],
    since: Annotated[str | None, typer.Option(help="Only verdicts decided at or after this time, 2026-01-31.")] = None,
    until: Annotated[str | None, typer.Option(help="Only verdicts decided before this time.")] = None,
    product: Annotated[str | None, typer.Option(help="Only this product.")] = None,
    station: StationOption = DEFAULT_STATION,
) -> None:
    """Yield over time, scores by product, worst and most novel frames, and drift from the bundle's test set."""
    from appliance import report
    from appliance.station import Station

    span = report.Span(_as_logged("since", since), _as_logged("until", until), product)
    found = report.write(Station.open(station), out, span)
    alarms = [one for one in found["drift"] if one.alarms]
    say(f"{out}: {found['frames']} frames, {len(alarms)} alarms of drift")
    for one in alarms:
        say(f"drift: {one.product}, {one.metric}")


def _as_logged(name: str, given: str | None) -> str | None:
    """A time as the log writes it; one without a zone is UTC.

    Raises:
        typer.BadParameter: it is none.
    """
    if given is None:
        return None
    try:
        moment = dt.datetime.fromisoformat(given)
    except ValueError:
        raise typer.BadParameter(f"--{name} {given!r}: wanted a time, as 2026-01-31 or 2026-01-31T12:00") from None
    return utc_text(moment)


@report_app.command("agreement", epilog="Example: umbra report agreement ratings.csv --picture agreement.png")
def report_agreement(
    ratings: Annotated[
        Path, typer.Argument(help="CSV: frame, level, rater, score (0..10).", exists=True, dir_okay=False)
    ],
    picture: Annotated[Path | None, typer.Option(help="PNG to draw.", dir_okay=False)] = None,
    as_json: JsonOption = False,
) -> None:
    """Do levels follow the opinion of many raters? Box plot of mean opinion scores by level, and correlations."""
    module = train_extra("agreement")
    opinions = read_ratings(ratings)
    try:
        report = module.agreement(opinions)
    except ValueError as error:
        raise RatingsError(f"{ratings}: {error}") from error
    if picture is not None:
        train_extra("pictures").draw_agreement(report, picture)
        talk().print(f"picture in {picture}")
    if as_json:
        say(json.dumps(without_nan(report), indent=1))
        return
    table = Table("level", "frames", "mean", "q1", "median", "q3", title="mean opinion score")
    for level, row in report["mos_by_level"].items():
        table.add_row(level, str(row["n"]), *(f"{row[key]:.2f}" for key in ("mean", "q1", "median", "q3")))
    console = wide_console()
    console.print(table)
    console.print(
        f"{report['frames']} frames, {report['raters']} raters ({report['left_out']} frames of level 10 left out); Pearson of "
        f"levels with the mean {report['pcc_mean']:.3f}, with the median {report['pcc_median']:.3f}, over frames "
        f"{report['pcc_frames']:.3f}; {report['within_1']:.1%} of frames within one level"
    )
