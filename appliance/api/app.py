"""The FastAPI application of one station."""

from __future__ import annotations

from importlib.metadata import version

from fastapi import Depends, FastAPI, Request
from fastapi.encoders import jsonable_encoder
from fastapi.exception_handlers import http_exception_handler
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.routing import Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from appliance import page
from appliance.api import bundles, health, ratings, records, unseen, verdicts
from appliance.api.access import Readers, only_known_keys
from appliance.api.recent import RecentAnswers
from appliance.api.straight import Straight
from appliance.errors import OutOfServiceError, RefusedError
from appliance.page.shell import STATIC, Assets, error_page, is_for_people
from appliance.station import Station

LONGEST_BODY = 1 << 20  # bytes


def create_app(station: Station) -> FastAPI:
    """All routes over one station."""
    app = FastAPI(
        title="Umbra", version=version("umbra"), description="Verdicts on dark frames of image sensors.",
        docs_url=None, redoc_url=None,  # their pages fetch scripts from the internet
        dependencies=[Depends(only_known_keys)],
        responses={503: {"description": "the log cannot be read or written now"}},
    )  # fmt: skip
    app.state.station, app.state.readers = station, Readers(station.database)
    app.state.stopping = lambda: False
    for module in (health, verdicts, unseen, records, ratings, bundles, page):
        app.include_router(module.router)
    app.mount("/static", Assets(directory=STATIC), name="static")
    app.add_middleware(BodyLimit)
    app.add_middleware(RecentAnswers)
    app.add_middleware(Straight, answers=health.STRAIGHT | verdicts.STRAIGHT)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(StarletteHTTPException, _refused)
    app.add_exception_handler(405, _not_allowed)
    for error in (OutOfServiceError, RefusedError):
        app.add_exception_handler(error, _unavailable)
    return app


class BodyLimit:
    """Refuses a request whose body is longer than LONGEST_BODY, before it is held in memory."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As ASGI calls an application."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        body, more = b"", True
        while more:
            message = await receive()
            if message["type"] != "http.request":
                return  # gone
            body += message.get("body", b"")
            more = message.get("more_body", False)
            if len(body) > LONGEST_BODY:
                answer = JSONResponse({"detail": f"body beyond {LONGEST_BODY} bytes"}, 413, {"Connection": "close"})
                await answer(scope, receive, send)
                return
        told = False

        async def whole() -> Message:
            nonlocal told
            if told:
                return await receive()
            told = True
            return {"type": "http.request", "body": body, "more_body": False}

        await self._app(scope, whole, send)


def _not_allowed(request: Request, _error: Exception) -> JSONResponse:
    """Which methods a path takes; each has a route of its own."""

    def takes(method: str) -> bool:
        asked = dict(request.scope) | {"method": method}
        return any(route.matches(asked)[0] is Match.FULL for route in request.app.routes)

    methods = [method for method in ("DELETE", "GET", "HEAD", "PATCH", "POST", "PUT") if takes(method)]
    return JSONResponse({"detail": "Method Not Allowed"}, 405, {"Allow": ", ".join(methods)})


def _invalid(request: Request, error: Exception) -> Response:
    """What is wrong and where, without the input: it may be no JSON (NaN) or no Unicode."""
    problems = error.errors() if isinstance(error, RequestValidationError) else []
    detail = [{key: p[key] for key in ("type", "loc", "msg") if key in p} for p in problems]
    if is_for_people(request):
        return error_page(request, 422, [f"{p['loc'][-1]}: {p['msg']}" for p in problems])
    return JSONResponse({"detail": jsonable_encoder(detail)}, 422)


async def _refused(request: Request, error: Exception) -> Response:
    """As FastAPI answers, but a page to a browser."""
    told = error if isinstance(error, StarletteHTTPException) else StarletteHTTPException(500)
    if is_for_people(request):
        return error_page(request, told.status_code, [str(told.detail)])
    return await http_exception_handler(request, told)


def _unavailable(request: Request, error: Exception) -> Response:
    """The database is locked, full, damaged or gone."""
    readers: Readers = request.app.state.readers
    if is_for_people(request):
        return error_page(request, 503, [readers.told(error)])
    return JSONResponse({"detail": readers.told(error)}, 503)
