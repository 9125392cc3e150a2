"""/: the station at a glance, and verdicts as they land."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Depends, Header, Request
from fastapi.responses import HTMLResponse
from fastapi.sse import EventSourceResponse, ServerSentEvent

from appliance.api.access import Readers, ReadersOf, StationOf, open_log
from appliance.api.filters import Following, asked_as
from appliance.api.following import follow, rows_of
from appliance.api.health import status_of
from appliance.page.shell import page, text
from appliance.pause import find_pause
from appliance.verdict import Row

NEWEST = 20
router = APIRouter(include_in_schema=False)


@router.get("/", response_class=HTMLResponse)
async def station(request: Request, place: StationOf, readers: ReadersOf) -> HTMLResponse:
    """Readiness, rate, backlog and the newest verdicts."""
    now = status_of(place, readers)
    newest, paused = [], None
    if now["last_seq"] is not None:
        with open_log(readers) as log:
            newest, paused = log.verdicts(limit=NEWEST, newest=True), find_pause(log)
    can_write = place.settings.api.token_sha256 is not None
    return page(request, "station.html", now=now, rows=newest, last=now["last_seq"], paused=paused, can_write=can_write)


@router.get("/page/state", response_class=HTMLResponse)
async def state(request: Request, place: StationOf, readers: ReadersOf) -> HTMLResponse:
    """The figures of `/` as they are now."""
    return page(request, "state.html", now=status_of(place, readers))


@router.get("/page/live", response_class=EventSourceResponse)
async def live(
    request: Request,
    readers: ReadersOf,
    wanted: Annotated[Following, Depends(asked_as(Following))],
    last_event_id: Annotated[str | None, Header()] = None,
) -> AsyncIterator[ServerSentEvent]:
    """Rows of the table of verdicts, as they are committed."""
    async for numbers in follow(request, readers, wanted, last_event_id):
        for row in await asyncio.to_thread(_read, readers, numbers):
            html = " ".join(text("row.html", row=row).split())
            yield ServerSentEvent(raw_data=html, id=str(row["seq"]), event="verdict")


def _read(readers: Readers, numbers: list[int]) -> list[Row]:
    with open_log(readers) as log:
        return rows_of(log, numbers)
