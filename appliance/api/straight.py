"""Questions that line control asks hundreds of times a second, answered past FastAPI's machinery.

Finding a route and resolving what it depends on takes FastAPI longer than an answer takes (`make queries`). So a plain GET
of a route in the table goes straight to that route's own function. Whatever is wrong with a question, it is asked again the
usual way, which says what.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from appliance.errors import ApplianceError

Answer = Callable[[Request], Awaitable[Response | None]]  # None: to be asked the usual way
NUMBER = "{number}"  # in a path of the table: its last part, told to the answer as request.path_params["number"]
_MOST_DIGITS = 18
_HAS_BODY = (b"content-length", b"transfer-encoding")


class Straight:
    """Asks the table first.

    Args:
        app: answers the rest.
        answers: by path.
    """

    def __init__(self, app: ASGIApp, answers: Mapping[str, Answer]) -> None:
        self._app, self._answers = app, answers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As ASGI calls an application."""
        response = await self._answered(scope, receive) if scope["type"] == "http" else None
        await (response or self._app)(scope, receive, send)

    async def _answered(self, scope: Scope, receive: Receive) -> Response | None:
        if scope["method"] != "GET" or any(name in _HAS_BODY for name, _ in scope["headers"]):
            return None
        answer, number = self._answers.get(scope["path"]), None
        if answer is None:
            before, _, last = scope["path"].rpartition("/")
            if not (last.isascii() and last.isdecimal() and len(last) <= _MOST_DIGITS):
                return None
            answer, number = self._answers.get(f"{before}/{NUMBER}"), int(last)
        if answer is None:
            return None
        asked = scope if number is None else {**scope, "path_params": {"number": number}}
        try:
            return await answer(Request(asked, receive))
        except (HTTPException, RequestValidationError, ApplianceError):
            return None
