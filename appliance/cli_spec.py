"""`umbra spec`: limits on the score, per product, audited."""

from __future__ import annotations

import json
import os
from contextlib import closing
from typing import Annotated

import typer
from rich.table import Table

from appliance.terminal import (
    DEFAULT_STATION,
    JsonOption,
    StationOption,
    say,
    talk,
    told_progress,
    wide_console,
)

spec_app = typer.Typer(help="Limits on the score, per product.", no_args_is_help=True)


@spec_app.command("show", epilog="Example: umbra spec show --station station")
def spec_show(station: StationOption = DEFAULT_STATION, as_json: JsonOption = False) -> None:
    """All limits ever set, newest first."""
    from appliance.station import Station
    from appliance.verdict_log import VerdictLog

    with closing(VerdictLog(Station.open(station).database, readonly=True)) as log:
        rows = log.table("specs")
    if as_json:
        say(json.dumps(rows))
        return
    table = Table("id", "product", "limit", "who", "at", "note")
    for row in rows:
        table.add_row(
            str(row["id"]), row["product"] or "all", f"{row['spec']:g}", row["who"], row["at"], row["note"] or ""
        )
    wide_console().print(table)


@spec_app.command("set", epilog="Example: umbra spec set 0.3 --product IMX1 --who jo --note 'customer return'")
def spec_set(
    spec: Annotated[float, typer.Argument(min=0.0001, max=1.0, help="FAIL above this score.")],
    product: Annotated[str | None, typer.Option(help="Default: all products without a limit of their own.")] = None,
    station: StationOption = DEFAULT_STATION,
    who: Annotated[str, typer.Option(help="Who says so.")] = os.environ.get("USER", "unknown"),
    note: Annotated[str | None, typer.Option(help="Why.")] = None,
) -> None:
    """Set a limit; it holds from the next frame on, and stays in the audit."""
    from appliance.station import Station
    from appliance.verdict_log import VerdictLog

    with closing(VerdictLog(Station.open(station).database)) as log:
        log.set_spec(product, spec, who=who, note=note)
    say(f"limit {spec:g} for {product or 'all products'}")


def _below_1(value: float | None) -> float | None:
    if value is not None and not value < 1:
        raise typer.BadParameter(f"{value}, wanted less than 1")
    return value


@spec_app.command("whatif", epilog="Example: umbra spec whatif 0.25 --product IMX1")
def spec_whatif(
    spec: Annotated[float | None, typer.Argument(min=0.0001, max=1.0, help="A limit to try.")] = None,
    t: Annotated[float | None, typer.Option("--t", min=0.0, callback=_below_1, help="A threshold on S to try.")] = None,
    alpha: Annotated[float | None, typer.Option(min=0.01, max=100.0, help="An exponent of S to try.")] = None,
    product: Annotated[str | None, typer.Option(help="Only this product.")] = None,
    lot: Annotated[str | None, typer.Option(help="Only this lot.")] = None,
    station: StationOption = DEFAULT_STATION,
    as_json: JsonOption = False,
) -> None:
    """What another limit, t or alpha would have done to the frames in the log, against labels where there are any."""
    from appliance.station import Station
    from appliance.verdict_log import VerdictLog
    from appliance.whatif import what_if

    if spec is None and t is None and alpha is None:
        raise typer.BadParameter("wanted a limit, --t or --alpha")
    place = Station.open(station)
    with closing(VerdictLog(place.database, readonly=True)) as log, told_progress(talk()) as told:
        result = what_if(
            place, log, spec=spec, t=t, alpha=alpha, product=product, lot=lot,
            progress=lambda done, total: told("reading histograms", done, total),
        )  # fmt: skip
    if as_json:
        say(json.dumps(result))
    else:
        wide_console().print_json(data=result)
