"""/bundles: the bundles at hand, which one judges, and the way to another and back."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from appliance.activation import at_hand
from appliance.api.access import ReadLog, StationOf, without_place
from appliance.page.shell import page
from appliance.station import Station

router = APIRouter(include_in_schema=False)


@router.get("/bundles", response_class=HTMLResponse)
def bundles(request: Request, station: StationOf, log: ReadLog) -> HTMLResponse:
    """What the screener uses, what it could use, and all activations."""
    found = [
        {"name": one.name, "identity": one.identity, "wrong": one.wrong and without_place(one.wrong, station.root)}
        for one in at_hand(station)
    ]
    can_write = station.settings.api.token_sha256 is not None
    return page(
        request, "bundles.html", found=found, past=log.table("bundles"), can_write=can_write, **_in_use(station)
    )


@router.get("/page/in-use", response_class=HTMLResponse)
async def in_use(request: Request, station: StationOf) -> HTMLResponse:
    """What the screener uses now, and what it does about another bundle."""
    return page(request, "in_use.html", **_in_use(station))


def _in_use(station: Station) -> dict[str, Any]:
    state = station.read_state() or {}
    activation = state.get("activation") or {}
    refused = activation.get("refused")
    return {
        "in_use": state.get("bundle"), "engine": state.get("engine"), "building": bool(activation.get("building")),
        "refused": refused and without_place(refused, station.root),
    }  # fmt: skip
