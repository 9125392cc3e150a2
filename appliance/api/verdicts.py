"""/v1/verdicts, /v1/frames, /v1/summary and /v1/stream: reading the log."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import time
from collections.abc import AsyncIterator, Iterator
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Header, HTTPException, Query, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from fastapi.sse import EventSourceResponse, ServerSentEvent

from appliance.api.access import Readers, ReadersOf, ReadLog, StationOf, open_log
from appliance.api.filters import INVALID, Filter, Following, Listing, asked_as, keys_of, told_as
from appliance.api.following import AT_ONCE, documents, follow, item, last_seq, told
from appliance.api.straight import NUMBER
from appliance.images import kept_pictures
from appliance.labels import fields_of, standing
from appliance.measured import Look, looks, stretched_image
from appliance.overlay import overlay_of
from appliance.verdict import Row, per_pixel
from appliance.verdict_log import LARGEST_SEQ, VerdictLog

LOOK_S = 0.02  # how often a waiting request looks for a commit
CSV_COLUMNS = (
    "seq", "decided_at", "path", "name", "product", "lot", "wafer", "die_x", "die_y", "verdict", "hard", "soft", "reason",
    "class", "p_ok", "p_spot", "p_diagonal", "p_error", "p_ng", "level", "score", "spec", "m_thresh", "m_alpha", "t", "alpha",
    "noise_median", "noise_sigma", "bundle", "engine", "sha256", "width", "height", "ms_decode", "ms_inspect", "ms_total", "origin",
)  # fmt: skip
PAGE = 1000  # verdicts that a table holds in memory
router = APIRouter(prefix="/v1", tags=["verdicts"])


@router.get("/verdicts", response_model=dict[str, Any], openapi_extra=told_as(Listing), responses=INVALID)
async def verdicts(
    request: Request, readers: ReadersOf, wanted: Annotated[Listing, Depends(asked_as(Listing))]
) -> Response:
    """Verdicts in order of seq after `cursor`; the answer's `cursor` continues the list.

    With `wait`, an empty answer is held back until a verdict matches or the time is over.
    """
    until = time.monotonic() + wanted.wait
    looked, found = -1, dict[int, str]()
    while True:
        newest = last_seq(readers) if wanted.wait else 0
        if newest != looked:
            after = max(wanted.cursor, looked) if newest > looked else wanted.cursor  # fewer than before: another log
            # What an index finds at once, or lies among a few new ones, is not worth the way to another thread and back.
            few = wanted.limit if wanted.is_quick else newest - after if wanted.wait else LARGEST_SEQ
            found = (documents(readers, wanted, after, wanted.limit) if few <= AT_ONCE else
                     await asyncio.to_thread(documents, readers, wanted, after, wanted.limit))  # fmt: skip
            looked = newest
        if found or time.monotonic() >= until or request.app.state.stopping():
            last = next(reversed(found)) if found else wanted.cursor
            body = f'{{"verdicts":[{",".join(found.values())}],"cursor":{last}}}'
            return Response(body, media_type="application/json")
        await asyncio.sleep(LOOK_S)


def _all(readers: Readers, wanted: Filter) -> Iterator[list[Row]]:
    """All verdicts of a filter up to now, in order; the log is not held between two pages."""
    where, values = wanted.sql()
    with open_log(readers) as log:
        last = log.last_seq()
    for first in range(1, last + 1, PAGE):
        with open_log(readers) as log:
            yield log.span(where, values, first=first, last=min(last, first + PAGE - 1))


@router.get(
    "/verdicts.csv",
    response_class=StreamingResponse,
    openapi_extra=told_as(Filter),
    responses=INVALID | {200: {"content": {"text/csv": {}}}},
)
def verdicts_csv(readers: ReadersOf, wanted: Annotated[Filter, Depends(asked_as(Filter))]) -> StreamingResponse:
    """The same as a table, all of it."""

    def lines() -> Iterator[str]:
        yield ",".join(CSV_COLUMNS) + "\r\n"
        for rows in _all(readers, wanted):
            buffer = io.StringIO()
            csv.DictWriter(buffer, CSV_COLUMNS, extrasaction="ignore").writerows(rows)
            yield buffer.getvalue()

    return StreamingResponse(lines(), media_type="text/csv")


@router.get("/verdicts/{seq}", response_model=dict[str, Any], responses={404: {"description": "no such verdict"}})
async def verdict(log: ReadLog, seq: Annotated[int, "number of the verdict"]) -> JSONResponse:
    """One verdict with its regions, histogram of S and labels."""
    row = log.verdict(seq) if 0 <= seq <= LARGEST_SEQ else None
    if row is None:
        raise HTTPException(404, f"verdict {seq}: there is none")
    histogram = None if row["histogram"] is None else list(memoryview(row["histogram"]).cast("I"))
    regions = [] if row["rois"] is None else json.loads(row["rois"])
    labels = log.labels(row["frame_id"]).get(row["frame_id"], [])
    holds = standing(labels)
    answer = item(row) | {
        "rois": regions, "histogram": histogram, "unseen_per_pixel": per_pixel(row),
        "labels": [fields_of(label) for label in labels],
        "label": fields_of(holds.label) if holds.label else None, "disputed": holds.disputed,
    }  # fmt: skip
    return JSONResponse(answer)  # all of it is JSON already


def _frame(log: VerdictLog, frame_id: int) -> Row:
    """The newest verdict of a frame."""
    rows = log.verdicts("f.id = ?", [frame_id], limit=1, newest=True) if 0 <= frame_id <= LARGEST_SEQ else []
    if not rows:
        raise _no_picture(frame_id)
    return rows[0]


def _no_picture(frame_id: int) -> HTTPException:
    return HTTPException(404, f"frame {frame_id}: no picture is kept")


_PNG: dict[int | str, dict[str, Any]] = {
    200: {"content": {"image/png": {}}},
    404: {"description": "no picture is kept"},
}


@router.get("/frames/{frame_id}/image.png", response_class=Response, responses=_PNG)
def image(station: StationOf, log: ReadLog, frame_id: int) -> Response:
    """The stretched image."""
    image = stretched_image(station, _frame(log, frame_id))
    if image is None:
        raise _no_picture(frame_id)
    return Response(image, media_type="image/png")


@router.get("/frames/{frame_id}/unseen.png", response_class=Response, responses=_PNG)
def unseen(
    station: StationOf, log: ReadLog, frame_id: int,
    again: Annotated[bool, Query(description="as the active bundle saw it, where it judged the frame again")] = False,
) -> Response:  # fmt: skip
    """The stretched image with the unseen map as heat and its regions numbered."""
    row = _frame(log, frame_id)
    seen = Look(row, kept_pictures(station.images, frame_id, row["seq"]))
    if again:
        with looks(station, log) as look:
            seen = look(frame_id) or seen
    if seen.pictures is None:
        raise _no_picture(frame_id)
    size = (seen.row["width"], seen.row["height"]) if seen.row["width"] else None
    overlay = overlay_of(seen.pictures, json.loads(seen.row["rois"] or "[]"), size)
    if overlay is None:
        raise HTTPException(404, f"frame {frame_id}: its unseen map was not measured, or is not kept")
    return Response(overlay, media_type="image/png")


@router.get("/summary")
def summary(log: ReadLog, by: Literal["product", "lot", "day"] = "product") -> list[dict[str, Any]]:
    """Counts and mean score by product, lot or day."""
    key = {"product": "f.product", "lot": "f.product || '/' || f.lot", "day": "substr(v.decided_at, 1, 10)"}[by]
    sql = f"""
        SELECT {key} AS "{by}", COUNT(*) AS frames, SUM(v.verdict = 'PASS') AS "PASS", SUM(v.verdict = 'FAIL') AS "FAIL",
            SUM(v.verdict = 'RETEST') AS "RETEST", AVG(v.score) AS mean_score
        FROM verdicts v JOIN frames f ON f.id = v.frame_id GROUP BY 1 ORDER BY 1
    """  # noqa: S608  (the key is one of three constants)
    return log.select(sql)


@router.get("/stream", response_class=EventSourceResponse, openapi_extra=told_as(Following))
async def stream(
    request: Request,
    readers: ReadersOf,
    wanted: Annotated[Following, Depends(asked_as(Following))],
    last_event_id: Annotated[str | None, Header()] = None,
) -> AsyncIterator[ServerSentEvent]:
    """Verdicts as server-sent events whose id is the seq; a client that comes back goes on after its Last-Event-ID."""
    async for numbers in follow(request, readers, wanted, last_event_id):
        for number, document in (await asyncio.to_thread(told, readers, numbers)).items():
            yield ServerSentEvent(raw_data=document, id=str(number), event="verdict")


async def _verdicts(request: Request) -> Response | None:
    wanted = await asked_as(Listing)(request)
    known = keys_of(Listing).issuperset(request.query_params)
    return await verdicts(request, request.app.state.readers, wanted) if known else None


async def _verdict(request: Request) -> Response | None:
    if request.query_params:
        return None
    with open_log(request.app.state.readers) as log:
        return await verdict(log, request.path_params["number"])


STRAIGHT = {"/v1/verdicts": _verdicts, f"/v1/verdicts/{NUMBER}": _verdict}
