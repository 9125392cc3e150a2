"""Answers about the station's health, given once and told again for half a second: the screener speaks once a second."""

from __future__ import annotations

import time
from collections.abc import Callable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

FRESH_S = 0.5
PATHS = ("/readyz", "/metrics")


class RecentAnswers:
    """Answers GETs of PATHS without a query from memory while they are fresh.

    Args:
        app: answers all others.
        clock: monotonic seconds.
    """

    def __init__(self, app: ASGIApp, clock: Callable[[], float] = time.monotonic) -> None:
        self._app, self._clock = app, clock
        self._known: dict[str, tuple[float, list[Message]]] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As ASGI calls an application."""
        if scope["type"] != "http" or scope["method"] != "GET" or scope["path"] not in PATHS or scope["query_string"]:
            await self._app(scope, receive, send)
            return
        until, messages = self._known.get(scope["path"], (0.0, []))
        if self._clock() < until:
            for message in messages:
                await send(message)
            return
        messages = []

        async def keep(message: Message) -> None:
            messages.append(message)
            await send(message)

        await self._app(scope, receive, keep)
        if messages and not messages[-1].get("more_body", False):
            self._known[scope["path"]] = self._clock() + FRESH_S, messages
