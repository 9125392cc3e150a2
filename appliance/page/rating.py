"""/rate: blind rating sessions, and the station's levels against what people saw."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse

from appliance import ratings
from appliance.api.access import ReadLog, StationOf
from appliance.api.ratings import the_session
from appliance.page.shell import page

router = APIRouter(include_in_schema=False)
SCORES = range(11)


@router.get("/rate", response_class=HTMLResponse)
def sessions(request: Request, station: StationOf, log: ReadLog) -> HTMLResponse:
    """All sessions, and a form to begin one."""
    products = [row["product"] for row in log.select("SELECT DISTINCT product FROM frames ORDER BY 1")]
    can_write = station.settings.api.token_sha256 is not None
    return page(request, "sessions.html", sessions=ratings.sessions(log), products=products, can_write=can_write,
                most=ratings.MOST_FRAMES)  # fmt: skip


@router.get("/rate/{session_id}", response_class=HTMLResponse)
def rate(
    request: Request,
    log: ReadLog,
    session_id: int,
    rater: Annotated[str, Query(max_length=200)] = "",
    again: Annotated[int | None, Query()] = None,
) -> HTMLResponse:
    """The next frame of a rater, with nothing beside it but the scores to give; who rates is asked first."""
    session = the_session(log, session_id)
    rater = rater.strip()
    order = ratings.order_of(log, session_id, rater)
    given = {row["frame_id"] for row in ratings.scores(log, session_id, rater)} if rater else set()
    left = [frame for frame in order if frame not in given]
    chosen = again if again in order else left[0] if left else None
    before = order[order.index(chosen) - 1] if chosen in order and order.index(chosen) else None
    if chosen is None and order:
        before = order[-1]
    return page(request, "rate.html", session=session, rater=rater, frame=chosen if rater else None, before=before,
                done=len(given), total=len(order), scores=SCORES)  # fmt: skip


@router.get("/rate/{session_id}/result", response_class=HTMLResponse)
def result(request: Request, log: ReadLog, session_id: int) -> HTMLResponse:
    """Levels against mean opinion scores: the dark-blemish paper's Figure 6."""
    session = the_session(log, session_id)
    return page(request, "rated.html", session=session, result=ratings.result(log, session_id))
