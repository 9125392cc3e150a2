"""What all pages share: templates, how numbers are written, the headers that keep a browser to this server."""

from __future__ import annotations

from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from fastapi import Request
from fastapi.responses import HTMLResponse, Response
from fastapi.staticfiles import StaticFiles
from jinja2 import Environment, FileSystemLoader, StrictUndefined

FOLDER = Path(__file__).parent
STATIC = FOLDER / "static"
# Where a browser may take what from: this server, and nothing that stands in the page itself.
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; "
        "base-uri 'none'; frame-ancestors 'none'"
    ),
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}
NAVIGATION = (
    ("/", "Station"), ("/verdicts", "Verdicts"), ("/scores", "Scores"), ("/wafers", "Wafers"), ("/label", "Label"),
    ("/rate", "Rate"), ("/specs", "Limits"), ("/bundles", "Bundles"),
)  # fmt: skip


def _number(value: float | None, digits: int = 3) -> str:
    """A number, or a dash where nothing was measured."""
    return "–" if value is None else f"{value:.{digits}f}"


def _size(count: float | None) -> str:
    """Bytes as people read them."""
    if count is None:
        return "–"
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def _clock(at: str | None) -> str:
    """A time of the log, to the second, in UTC."""
    return "–" if at is None else at[:19].replace("T", " ")


def _stamp(key: str) -> str:
    """The beginning of a time of the log, without the year: a day, or an hour of one."""
    return f"{key[5:10]} {key[11:13]}:00" if len(key) > len("2026-01-31") else key[5:10]


def address(base: str, **values: object) -> str:
    """An address with those values that there are."""
    given = {key: value for key, value in values.items() if value is not None and value != ""}
    return f"{base}?{urlencode(given)}" if given else base


_templates = Environment(
    loader=FileSystemLoader(FOLDER / "templates"), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
    lstrip_blocks=True,
)  # fmt: skip
_templates.filters |= {
    "number": _number,
    "size": _size,
    "clock": _clock,
    "stamp": _stamp,
    "combine": lambda given, **more: {**given, **more},
}
_templates.globals |= {"navigation": NAVIGATION, "address": address}


def text(name: str, **values: Any) -> str:
    """A template, filled in."""
    return _templates.get_template(name).render(**values)


def page(request: Request, name: str, *, status: int = 200, **values: Any) -> HTMLResponse:
    """A template as an answer.

    Args:
        request: that is answered.
        name: of the template.
        status: of HTTP.
        values: for the template.
    """
    station = request.app.state.station.root.name
    body = text(name, station=station, path=request.url.path, **values)
    return HTMLResponse(body, status, headers=HEADERS)


class Assets(StaticFiles):
    """Scripts and styles; a browser asks each time whether they are still the same, so that none outlives an upgrade."""

    def file_response(self, *args: Any, **named: Any) -> Response:
        """As StaticFiles, and with how long it may be kept."""
        answer = super().file_response(*args, **named)
        answer.headers["Cache-Control"] = "no-cache"
        return answer


def is_for_people(request: Request) -> bool:
    """Whether a browser asked for a page, and not a program for data."""
    return "text/html" in request.headers.get("accept", "") and not request.url.path.startswith("/v1/")


def error_page(request: Request, status: int, problems: list[str]) -> HTMLResponse:
    """What is wrong, as a page."""
    return page(request, "error.html", status=status, title=HTTPStatus(status).phrase, problems=problems)
