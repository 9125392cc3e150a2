"""/livez, /readyz, /metrics and /v1/status: is it alive, may frames be trusted to it, how is it doing."""

from __future__ import annotations

import os
from typing import Any

from fastapi import APIRouter, HTTPException, Request, Response
from fastapi.responses import JSONResponse
from prometheus_client import CollectorRegistry, Gauge, generate_latest

from appliance.api.access import Readers, ReadersOf, StationOf, open_log
from appliance.errors import ApplianceError
from appliance.station import Station, age_s, is_recent

router = APIRouter(tags=["health"])


def not_ready(station: Station, state: dict[str, Any] | None, log_error: str | None) -> list[str]:
    """Why frames should not be dropped now; empty when ready.

    The inbox, which may lie on a share that hangs, is not touched: the screener looks at it and says so each second.

    Args:
        station: its folders and settings.
        state: what the screener last said.
        log_error: why the log cannot be read.
    """
    reasons: list[str] = []
    if state is None:
        reasons.append("the screener has not run here")
    elif not is_recent(state):
        reasons.append(f"the screener has said nothing for {age_s(state):.0f} s")
    elif not state.get("ready"):
        reasons += state.get("reasons") or ["the screener is not ready"]
    if log_error is not None:
        reasons.append(log_error)
    if not os.access(station.root, os.W_OK):
        reasons.append("the station is not writable")
    elif (free := station.free_bytes()) < station.settings.disk.low_bytes:
        reasons.append(f"disk: {free} bytes free, wanted {station.settings.disk.low_bytes}")
    return reasons


@router.get("/livez")
async def livez() -> dict[str, str]:
    """200 while this process answers."""
    return {"status": "alive"}


@router.get("/readyz", responses={503: {"description": "not ready; the reasons are in the body"}})
async def readyz(station: StationOf, readers: ReadersOf, response: Response) -> dict[str, Any]:
    """200 when frames are being screened with checked engines, else 503 with the reasons."""
    reasons = status_of(station, readers)["reasons"]
    response.status_code = 503 if reasons else 200
    return {"ready": not reasons, "reasons": reasons}


def status_of(station: Station, readers: Readers) -> dict[str, Any]:
    """What the screener last said of itself, and counts of all verdicts."""
    state = station.read_state()
    counts: dict[str, int] | None = None
    newest: int | None = None
    log_error: str | None = None
    try:
        with open_log(readers) as log:
            newest = log.last_seq()
            counts = readers.counts(log, newest)
    except HTTPException as error:
        log_error = error.detail
    except ApplianceError as error:
        log_error = readers.told(error)
    reasons = not_ready(station, state, log_error)
    return {
        "ready": not reasons, "reasons": reasons, "station": station.root.name, "free_bytes": station.free_bytes(),
        **{key: (state or {}).get(key) for key in (
            "at", "started_at", "bundle", "engine", "backlog", "frames_per_s", "watching", "events_lost", "decoders_died",
            "golden", "paused")},
        "counts": counts, "last_seq": newest, "hosts": station.hosts(),
    }  # fmt: skip


@router.get("/v1/status", response_model=dict[str, Any])
async def status(station: StationOf, readers: ReadersOf) -> JSONResponse:
    """What the screener last said of itself, and counts of all verdicts."""
    return JSONResponse(status_of(station, readers))


@router.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
async def metrics(station: StationOf, readers: ReadersOf) -> Response:
    """Numbers for Prometheus."""
    registry = CollectorRegistry()

    def gauge(name: str, text: str, value: float) -> None:
        Gauge(f"umbra_{name}", text, registry=registry).set(value)

    now = status_of(station, readers)
    gauge("ready", "1 when frames are being screened with checked engines", now["ready"])
    gauge("backlog_frames", "complete or incomplete files in the inbox", now["backlog"] or 0)
    gauge("frames_per_second", "rate of the last minute", now["frames_per_s"] or 0)
    gauge("events_lost", "files that a look at the inbox found and no event announced", now["events_lost"] or 0)
    gauge("decoders_died", "processes that decode which a frame has cost", now["decoders_died"] or 0)
    gauge("golden_passed", "1 while the golden frames measure as promised", (now["golden"] or {}).get("passed", False))
    gauge("disk_free_bytes", "free space on the station's disk", now["free_bytes"])
    gauge("last_seq", "number of the newest verdict", now["last_seq"] or 0)
    verdicts = Gauge("umbra_verdicts", "verdicts in the log", ["verdict"], registry=registry)
    for verdict, count in (now["counts"] or {}).items():
        verdicts.labels(verdict).set(count)
    return Response(generate_latest(registry), media_type="text/plain; version=0.0.4")


async def _status(request: Request) -> Response | None:
    state = request.app.state
    return None if request.query_params else await status(state.station, state.readers)


STRAIGHT = {"/v1/status": _status}
