"""The FastAPI application of one station."""

from __future__ import annotations

from importlib.metadata import version

from fastapi import FastAPI

from appliance.api import health, page, records, verdicts
from appliance.station import Station


def create_app(station: Station) -> FastAPI:
    """All routes over one station."""
    app = FastAPI(title="Umbra", version=version("umbra"), description="Verdicts on dark frames of image sensors.")
    app.state.station = station
    for module in (health, verdicts, records, page):
        app.include_router(module.router)
    return app
