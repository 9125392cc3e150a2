"""`umbra lot`: files of a whole lot, now."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from appliance.errors import ApplianceError
from appliance.terminal import DEFAULT_STATION, StationOption, say

lot_app = typer.Typer(help="Files of a whole lot: STDF, wafer maps.", no_args_is_help=True)
ProductArgument = Annotated[str, typer.Argument(help="Product of the lot.")]
LotArgument = Annotated[str, typer.Argument(help="The lot.")]


class NoSuchLotError(ApplianceError):
    """The log has no frame of this lot, or of this wafer."""


@lot_app.command("stdf", epilog="Example: umbra lot stdf IMX1 L7 L7.stdf --station /srv/umbra")
def lot_stdf(
    product: ProductArgument,
    lot: LotArgument,
    out: Annotated[Path, typer.Argument(help="File to write, .stdf.", dir_okay=False)],
    station: StationOption = DEFAULT_STATION,
) -> None:
    """Write STDF V4 of a lot as far as it came."""
    from appliance.line import stdf
    from appliance.line.lots import put, rows_of
    from appliance.station import Station

    place = Station.open(station)
    rows = rows_of(place, (product, lot))
    if not rows:
        raise NoSuchLotError(f"{product}/{lot}: no frame of it was judged here")
    put(out.absolute(), stdf.records(place.line_name, (product, lot), rows))
    say(f"{out}: {len(rows)} verdicts")


@lot_app.command("map", epilog="Example: umbra lot map IMX1 L7 3 wafer.xml --station /srv/umbra")
def lot_map(
    product: ProductArgument,
    lot: LotArgument,
    wafer: Annotated[str, typer.Argument(help="The wafer.")],
    out: Annotated[Path, typer.Argument(help="File to write: .xml (SEMI G85) or .csv.", dir_okay=False)],
    station: StationOption = DEFAULT_STATION,
) -> None:
    """Write the map of a wafer: the newest verdict of each die."""
    from appliance.line import wafer_map
    from appliance.line.lots import put, rows_of
    from appliance.station import Station

    if out.suffix not in (".xml", ".csv"):
        raise typer.BadParameter(f"{out}: wanted a name that ends in .xml or .csv")
    rows = [row for row in rows_of(Station.open(station), (product, lot)) if row["wafer"] == wafer]
    dies = wafer_map.newest_by_die(rows)
    if not dies:
        raise NoSuchLotError(f"{product}/{lot}/{wafer}: no frame of it with a die position was judged here")
    try:
        made = wafer_map.as_csv(dies) if out.suffix == ".csv" else wafer_map.as_xml((product, lot), wafer, dies)
    except ValueError as error:
        raise ApplianceError(str(error)) from error
    put(out.absolute(), [made])
    say(f"{out}: {len(dies)} dies")
