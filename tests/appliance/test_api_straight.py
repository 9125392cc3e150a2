"""What goes straight to its function is answered as FastAPI would answer it, and what is wrong with a question is told."""

from __future__ import annotations

import asyncio
from contextlib import closing

import httpx
import pytest
from fastapi import FastAPI
from starlette.types import Receive, Scope, Send

from appliance.api.app import create_app
from appliance.api.straight import Straight
from appliance.station import Station
from appliance.verdict_log import VerdictLog
from tests.appliance.test_decide import frame
from tests.appliance.test_verdict_log import row_of

STRAIGHT = (
    "/v1/verdicts", "/v1/verdicts?limit=2", "/v1/verdicts?cursor=3&limit=2", "/v1/verdicts?verdict=FAIL&class=Spot",
    "/v1/verdicts?file=f3.tif", "/v1/verdicts?file=none.tif&wait=0.05", "/v1/verdicts?min_score=0.1",
    "/v1/verdicts?product=P&lot=L&since=2026-01-01T00:00:00Z", "/v1/verdicts?die=3,-4", "/v1/verdicts/3", "/v1/verdicts/003",
    "/v1/status",
)  # fmt: skip
USUAL = (
    "/v1/verdicts?limit=0", "/v1/verdicts?limit=some", "/v1/verdicts?colour=red", "/v1/verdicts?verdict=GOOD",
    "/v1/verdicts?since=0", "/v1/verdicts?since=0001-01-01T00:00:00%2B14:00", "/v1/verdicts/99", "/v1/verdicts/3?x=1",
    "/v1/verdicts/-1", "/v1/verdicts/3.5", "/v1/verdicts/%D9%A3", f"/v1/verdicts/{10**19}", "/v1/verdicts/", "/v1/status?x=1",
    "/v1/status/3", "/v1/nothing",
)  # fmt: skip


class _ReachedError(Exception):
    """What was asked came to FastAPI's routes."""


@pytest.fixture
def app(station: Station) -> FastAPI:
    with closing(VerdictLog(station.database)) as log:
        for number in range(6):
            log.record(frame(), row_of(f"P/L/f{number}.tif", f"{number:064d}"))
    return create_app(station)


def ask(app: FastAPI, path: str, *, method: str = "GET", body: bytes | None = None) -> httpx.Response:
    async def asked() -> httpx.Response:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://here") as http:
            return await http.request(method, path, content=body)

    return asyncio.run(asked())


def close(app: FastAPI, monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on nobody is answered by a route."""

    async def closed(_scope: Scope, _receive: Receive, _send: Send) -> None:
        raise _ReachedError

    monkeypatch.setattr(app.router, "middleware_stack", closed)


@pytest.mark.parametrize("path", STRAIGHT)
def test_a_plain_question_gets_the_same_answer_past_the_routes(
    app: FastAPI, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as usual:
        usual.setattr(Straight, "_answered", _nothing)
        wanted = ask(app, path)
    close(app, monkeypatch)
    found = ask(app, path)
    assert found.status_code == wanted.status_code == 200
    assert (found.json(), found.headers) == (wanted.json(), wanted.headers)


@pytest.mark.parametrize("path", USUAL)
def test_whatever_is_wrong_is_told_the_usual_way(app: FastAPI, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = ask(app, path)
    with monkeypatch.context() as usual:
        usual.setattr(Straight, "_answered", _nothing)
        wanted = ask(app, path)
    assert found.status_code == wanted.status_code >= 300
    assert found.text == wanted.text
    close(app, monkeypatch)
    with pytest.raises(_ReachedError):
        ask(app, path)


@pytest.mark.parametrize(("method", "body"), [("HEAD", None), ("POST", None), ("GET", b"{}")])
def test_only_a_get_without_a_body_goes_straight(
    app: FastAPI, method: str, body: bytes | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    close(app, monkeypatch)
    with pytest.raises(_ReachedError):
        ask(app, "/v1/status", method=method, body=body)


def test_a_log_that_cannot_be_read_is_told(station: Station) -> None:
    station.database.write_bytes(b"no database" * 1000)
    app = create_app(station)
    assert ask(app, "/v1/verdicts").status_code == 503
    assert ask(app, "/v1/verdicts/1").status_code == 503


async def _nothing(_self: Straight, _scope: Scope, _receive: Receive) -> None:
    return None
