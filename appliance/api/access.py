"""What every route shares: the station, a read-only log for one request, and the guard of writes.

What is quick is `async`: a plain function would go to another thread and back, which costs more than it does.
"""

from __future__ import annotations

import hashlib
import hmac
import queue
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated

from fastapi import Depends, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from appliance.errors import RefusedError
from appliance.station import Station
from appliance.verdict_log import VerdictLog
from engines.bundle import SHIPPED

_bearer = HTTPBearer(auto_error=False, description="token whose SHA-256 stands in umbra.toml as api.token_sha256")


async def station_of(request: Request) -> Station:
    """The station this server serves."""
    station: Station = request.app.state.station
    return station


StationOf = Annotated[Station, Depends(station_of)]


class Readers:
    """Read-only logs that are kept open between requests; one that was replaced by another file is opened anew.

    Args:
        path: of the log.

    Attributes:
        written: verdicts of this log as JSON, by their numbers.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.written: dict[int, str] = {}
        self._idle: queue.LifoQueue[tuple[tuple[int, int], VerdictLog]] = queue.LifoQueue()
        self._lock = threading.Lock()
        self._counted: tuple[int, int, dict[str, int]] = 0, 0, {}
        self._identity: tuple[int, int] | None = None

    @contextmanager
    def one(self) -> Iterator[VerdictLog]:
        """A log for one piece of work.

        Raises:
            RefusedError: it cannot be opened.
        """
        try:
            found = self._path.stat()
        except OSError as error:
            raise RefusedError(f"{self._path}: {error.strerror}") from error
        identity = (found.st_dev, found.st_ino)
        if identity != self._identity:  # another log: what was read of the one before says nothing of it
            self._identity, self.written, self._counted = identity, {}, (0, 0, {})
        log = self._kept(identity) or VerdictLog(self._path, readonly=True)
        with ExitStack() as on_error:
            on_error.callback(log.close)
            yield log
            on_error.pop_all()
        self._idle.put((identity, log))

    def counts(self, log: VerdictLog, newest: int) -> dict[str, int]:
        """How many of each verdict up to a number; only new ones are counted, unless some were forgotten."""
        horizon = log.horizon()
        with self._lock:
            known_horizon, upto, counts = self._counted
            if known_horizon != horizon or newest < upto:
                upto, counts = 0, {}
            new = log.counts(after=upto, up_to=newest)
            counts = {verdict: counts.get(verdict, 0) + count for verdict, count in new.items()}
            self._counted = horizon, newest, counts
        return counts

    def told(self, error: Exception) -> str:
        """An error without where the station lies."""
        return without_place(str(error), self._path.parent)

    def close(self) -> None:
        """Close those that are kept."""
        while not self._idle.empty():
            self._idle.get_nowait()[1].close()

    def _kept(self, identity: tuple[int, int]) -> VerdictLog | None:
        while True:
            try:
                known, log = self._idle.get_nowait()
            except queue.Empty:
                return None
            if known == identity:
                return log
            log.close()


async def readers_of(request: Request) -> Readers:
    """The readers of the station this server serves."""
    readers: Readers = request.app.state.readers
    return readers


ReadersOf = Annotated[Readers, Depends(readers_of)]


def without_place(text: str, root: Path) -> str:
    """What is told of a station without where it lies on its machine: paths begin in the station."""
    text = text.replace(f"{SHIPPED}/", "")
    return text.replace(f"{root.resolve()}/", "").replace(f"{root}/", "").replace(str(root), root.name)


@contextmanager
def open_log(readers: Readers) -> Iterator[VerdictLog]:
    """A read-only log for one piece of work.

    Raises:
        HTTPException: 503 where it cannot be opened.
    """
    with ExitStack() as held:
        try:
            log = held.enter_context(readers.one())
        except RefusedError as error:
            raise HTTPException(503, f"the verdict log cannot be opened: {readers.told(error)}") from error
        yield log


def open_to_write(station: Station) -> VerdictLog:
    """The log, to append a label or a limit to.

    Raises:
        HTTPException: 503 where it cannot be opened.
    """
    try:
        return VerdictLog(station.database)
    except RefusedError as error:
        raise HTTPException(
            503, f"the verdict log cannot be opened: {without_place(str(error), station.root)}"
        ) from error


async def read_log(readers: ReadersOf) -> AsyncIterator[VerdictLog]:
    """A read-only log for one request."""
    with open_log(readers) as log:
        yield log


ReadLog = Annotated[VerdictLog, Depends(read_log)]


def unprocessable(message: str, *where: str) -> RequestValidationError:
    """What is wrong with a request whose fields are each well formed; answered as 422 like those that are not."""
    return RequestValidationError([{"type": "value_error", "loc": where, "msg": message}])


async def only_known_keys(request: Request) -> None:
    """Refuse a query with a key that the operation does not know: a mistyped condition would be no condition.

    Raises:
        RequestValidationError: which one, and those that are known.
    """
    if not request.scope["route"].include_in_schema:
        return  # pages read what their forms send
    operation = request.app.openapi()["paths"].get(request.scope["route"].path, {}).get(request.method.lower(), {})
    known = [parameter["name"] for parameter in operation.get("parameters", ()) if parameter["in"] == "query"]
    for key in request.query_params:
        if key not in known:
            raise unprocessable(f"unknown, wanted one of {', '.join(known) or 'none'}", "query", key)


async def may_write(station: StationOf, sent: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]) -> None:
    """Let writes through that carry the station's token.

    Raises:
        HTTPException: 403 where writes are off, 401 where the token is missing or wrong.
    """
    wanted = station.settings.api.token_sha256
    if wanted is None:
        raise HTTPException(403, "writes are off: umbra.toml has no api.token_sha256")
    given = hashlib.sha256(sent.credentials.encode()).hexdigest() if sent else ""
    if not hmac.compare_digest(given, wanted):
        raise HTTPException(401, "a bearer token is wanted", headers={"WWW-Authenticate": "Bearer"})
