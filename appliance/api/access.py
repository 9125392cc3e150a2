"""What every route shares: the station, a read-only log for one request, and the guard of writes."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

from fastapi import Depends, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from appliance.errors import RefusedError
from appliance.station import Station
from appliance.verdict_log import VerdictLog

_bearer = HTTPBearer(auto_error=False, description="token whose SHA-256 stands in umbra.toml as api.token_sha256")


def station_of(request: Request) -> Station:
    """The station this server serves."""
    station: Station = request.app.state.station
    return station


StationOf = Annotated[Station, Depends(station_of)]


@contextmanager
def open_log(station: Station, *, readonly: bool = True) -> Iterator[VerdictLog]:
    """The log for one piece of work.

    Raises:
        HTTPException: 503 where it cannot be opened.
    """
    try:
        log = VerdictLog(station.database, readonly=readonly)
    except RefusedError as error:
        raise HTTPException(503, f"the verdict log cannot be opened: {error}") from error
    try:
        yield log
    finally:
        log.close()


def read_log(station: StationOf) -> Iterator[VerdictLog]:
    """A read-only log for one request."""
    with open_log(station) as log:
        yield log


ReadLog = Annotated[VerdictLog, Depends(read_log)]


def unprocessable(message: str, *where: str) -> RequestValidationError:
    """What is wrong with a request whose fields are each well formed; answered as 422 like those that are not."""
    return RequestValidationError([{"type": "value_error", "loc": where, "msg": message}])


def only_known_keys(request: Request) -> None:
    """Refuse a query with a key that the operation does not know: a mistyped condition would be no condition.

    Raises:
        RequestValidationError: which one, and those that are known.
    """
    operation = request.app.openapi()["paths"].get(request.scope["route"].path, {}).get(request.method.lower(), {})
    known = [parameter["name"] for parameter in operation.get("parameters", ()) if parameter["in"] == "query"]
    for key in request.query_params:
        if key not in known:
            raise unprocessable(f"unknown, wanted one of {', '.join(known) or 'none'}", "query", key)


def may_write(station: StationOf, sent: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]) -> None:
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
