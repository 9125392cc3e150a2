"""The FastAPI application of one station."""

from __future__ import annotations

from importlib.metadata import version

from fastapi import FastAPI, Request
from fastapi.encoders import jsonable_encoder
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse

from appliance.api import health, page, records, unseen, verdicts
from appliance.errors import OutOfServiceError, RefusedError
from appliance.station import Station


def create_app(station: Station) -> FastAPI:
    """All routes over one station."""
    app = FastAPI(
        title="Umbra", version=version("umbra"), description="Verdicts on dark frames of image sensors.",
        docs_url=None, redoc_url=None,  # their pages fetch scripts from the internet
    )  # fmt: skip
    app.state.station = station
    app.state.stopping = lambda: False
    for module in (health, verdicts, unseen, records, page):
        app.include_router(module.router)
    app.add_exception_handler(RequestValidationError, _invalid)
    for error in (OutOfServiceError, RefusedError):
        app.add_exception_handler(error, _unavailable)
    return app


def _invalid(_request: Request, error: Exception) -> JSONResponse:
    """What is wrong and where, without the input: it may be no JSON (NaN) or no Unicode."""
    problems = error.errors() if isinstance(error, RequestValidationError) else []
    detail = [{key: p[key] for key in ("type", "loc", "msg") if key in p} for p in problems]
    return JSONResponse({"detail": jsonable_encoder(detail)}, 422)


def _unavailable(_request: Request, error: Exception) -> JSONResponse:
    """The database is locked, full or gone."""
    return JSONResponse({"detail": str(error)}, 503)
