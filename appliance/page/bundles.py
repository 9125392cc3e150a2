"""/bundles: the bundles at hand, which one judges, and the way to another and back."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from appliance.activation import at_hand
from appliance.api.access import ReadLog, StationOf, without_place
from appliance.page.shell import page

router = APIRouter(include_in_schema=False)


@router.get("/bundles", response_class=HTMLResponse)
def bundles(request: Request, station: StationOf, log: ReadLog) -> HTMLResponse:
    """What the screener uses, what it could use, and all activations."""
    state = station.read_state() or {}
    found = [
        {"name": one.name, "identity": one.identity, "wrong": one.wrong and without_place(one.wrong, station.root)}
        for one in at_hand(station)
    ]
    activation = state.get("activation") or {}
    if activation.get("refused"):
        activation["refused"] = without_place(activation["refused"], station.root)
    return page(
        request, "bundles.html", in_use=state.get("bundle"), engine=state.get("engine"),
        activation=activation, found=found, past=log.table("bundles"),
        can_write=station.settings.api.token_sha256 is not None,
    )  # fmt: skip
