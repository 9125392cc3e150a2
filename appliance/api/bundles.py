"""/v1/bundles: which were active here, and which is to be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fastapi import APIRouter, Depends, HTTPException
from pydantic import BaseModel, ConfigDict

from appliance.activation import the_one_before, write_down
from appliance.api.access import ReadLog, StationOf, may_write, without_place
from appliance.api.records import GUARDED, Limit, Name, Who
from appliance.errors import RefusedError
from appliance.station import Station
from engines import Bundle, BundleError, bundle

router = APIRouter(prefix="/v1/bundles", tags=["bundles"])
_CHANGES = GUARDED | {
    404: {"description": "no such bundle at hand"},
    409: {"description": "no screener runs that would follow, or there was no bundle before"},
}


class Chosen(BaseModel):
    """A bundle at hand."""

    model_config = ConfigDict(extra="forbid")

    name: Name
    who: Name


@router.get("")
def bundles(log: ReadLog, limit: Limit = 1000) -> list[dict[str, Any]]:
    """Bundles that were active here, newest first."""
    return [{key: row[key] for key in ("id", "identity", "who", "at")} for row in log.table("bundles", limit=limit)]


@router.post("/activation", status_code=202, dependencies=[Depends(may_write)], responses=_CHANGES)
def activate(station: StationOf, new: Chosen) -> dict[str, Any]:
    """Make a bundle at hand the active one; the screener changes to it between two frames, through the golden gate."""
    try:
        chosen = bundle.load(_at_hand(station, new.name))
    except BundleError as error:
        raise HTTPException(404, without_place(str(error), station.root)) from error
    return _followed(station, chosen, new.who)


@router.post("/rollback", status_code=202, dependencies=[Depends(may_write)], responses=_CHANGES)
def roll_back(station: StationOf, new: Who) -> dict[str, Any]:
    """Go back to the bundle that was active before, as `activation` does."""
    try:
        chosen = the_one_before(station)
    except RefusedError as error:
        raise HTTPException(409, without_place(str(error), station.root)) from error
    except BundleError as error:
        raise HTTPException(404, without_place(str(error), station.root)) from error
    return _followed(station, chosen, new.who)


def _at_hand(station: Station, name: str) -> Path:
    """The folder of a bundle that is shipped or was brought to the station; the API gets at no other.

    Raises:
        HTTPException: 404 where there is none of this name.
    """
    for folder in bundle.listed(station.bundles):
        if folder.name == name:
            return folder
    raise HTTPException(404, f"bundle {name!r}: there is none of this name at hand")


def _followed(station: Station, chosen: Bundle, who: str) -> dict[str, Any]:
    """Write an activation down where a screener runs that follows it.

    Raises:
        HTTPException: 409 where none does: the golden gate stands in the screener.
    """
    state = station.read_state() or {}
    if not station.is_screened():
        raise HTTPException(
            409, "no screener is running: `umbra bundle activate` lets a bundle through the golden gate"
        )
    if state.get("activation") is None:
        raise HTTPException(409, f"the running screener keeps {state.get('bundle')}, which it was started with")
    return {"id": write_down(station, chosen, who), "identity": chosen.identity}
