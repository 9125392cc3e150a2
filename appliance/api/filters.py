"""Which verdicts a request asks for.

FastAPI would look at each parameter of a query by itself, which takes a third of the time of an answer; here pydantic reads
them all at once, and the OpenAPI document is told of them.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable, Coroutine
from functools import cache
from typing import Annotated, Any, Literal, TypeVar

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from appliance.api.access import unprocessable
from appliance.times import utc_text
from appliance.verdict_log import LARGEST_SEQ

LONGEST_WAIT_S = 60.0
_ERROR = {"$ref": "#/components/schemas/HTTPValidationError"}
INVALID: dict[int | str, dict[str, Any]] = {
    422: {"description": "Validation Error", "content": {"application/json": {"schema": _ERROR}}}
}


def _written_out(moment: object) -> object:
    """A time as ISO 8601 writes it; a number would be taken for seconds since 1970."""
    if isinstance(moment, str) and not re.match(r"\d{4}-", moment):
        raise ValueError("wanted as ISO 8601 writes it: 2026-01-31T13:05:00Z")
    return moment


Moment = Annotated[dt.datetime, BeforeValidator(_written_out)]


class Filter(BaseModel):
    """Which verdicts: all conditions must hold."""

    model_config = ConfigDict(frozen=True)

    product: str | None = Field(None, description="product folder")
    lot: str | None = Field(None, description="lot folder")
    wafer: str | None = Field(None, description="wafer, as the frame's name or sidecar tells it")
    die: str | None = Field(None, pattern=r"^-?\d{1,9},-?\d{1,9}$", description="die position on the wafer: x,y")
    verdict: Literal["PASS", "FAIL", "RETEST"] | None = None
    class_name: Literal["OK", "Spot", "Diagonal", "Error"] | None = Field(None, alias="class")
    since: Moment | None = Field(None, description="decided at or after this time")
    until: Moment | None = Field(None, description="decided before this time")
    min_score: float | None = Field(None, ge=0, le=1, description="score of at least this")
    file: str | None = Field(None, description="file name of the frame")

    @property
    def is_quick(self) -> bool:
        """Whether an index has the matches in order, however many there are."""
        return self.product is self.lot is self.wafer is self.die is None and not self.is_ranged

    @property
    def is_ranged(self) -> bool:
        """Whether a range of scores or times is asked for, as `VerdictLog.numbers` wants to know."""
        return any(bound is not None for bound in (self.since, self.until, self.min_score))

    def sql(self) -> tuple[str, list[Any]]:
        """A condition over v (verdicts) and f (frames), and its values."""
        of = "+v" if self.file is not None else "v"  # a name finds few: no other index is quicker
        x, y = (None, None) if self.die is None else (int(part) for part in self.die.split(","))
        terms: list[tuple[str, Any]] = [
            ("f.product = ?", self.product), ("f.lot = ?", self.lot), ("f.wafer = ?", self.wafer), ("f.die_x = ?", x),
            ("f.die_y = ?", y), (f"{of}.verdict = ?", self.verdict),
            (f"{of}.class = ?", self.class_name), ("v.decided_at >= ?", _utc(self.since)), ("v.decided_at < ?", _utc(self.until)),
            ("v.score >= ?", self.min_score), ("f.name = ?", self.file),
        ]  # fmt: skip
        used = [(term, value) for term, value in terms if value is not None]
        return " AND ".join(["1", *(term for term, _ in used)]), [value for _, value in used]


class Listing(Filter):
    """A page of them."""

    wait: float = Field(0, ge=0, le=LONGEST_WAIT_S, description="seconds to wait for a first match")
    limit: int = Field(100, ge=1, le=1000)
    cursor: int = Field(0, ge=0, le=LARGEST_SEQ, description="verdicts after this seq")


class Following(Filter):
    """Those that come."""

    cursor: int | None = Field(None, ge=0, le=LARGEST_SEQ, description="begin after this seq; default: new ones")


Asked = TypeVar("Asked", bound=Filter)


@cache
def keys_of(model: type[Filter]) -> frozenset[str]:
    """Keys of a query that a model reads."""
    return frozenset(model.model_json_schema()["properties"])


def asked_as(model: type[Asked], *, form: bool = False) -> Callable[[Request], Coroutine[Any, Any, Asked]]:
    """A dependency that reads a query; what is wrong with it is answered as 422.

    Args:
        model: of the query.
        form: fields that were left empty in a form are no conditions.
    """

    async def read(request: Request) -> Asked:
        try:
            return model.model_validate(
                {key: value for key, value in request.query_params.items() if value or not form}
            )
        except ValidationError as error:
            raise RequestValidationError([p | {"loc": ("query", *p["loc"])} for p in error.errors()]) from error

    return read


def told_as(model: type[Filter]) -> dict[str, Any]:
    """`openapi_extra` of a route that reads such a query."""
    properties = model.model_json_schema()["properties"]
    return {"parameters": [
        {"name": name, "in": "query", "required": False, "schema": {k: v for k, v in schema.items() if k != "description"}}
        | ({"description": schema["description"]} if "description" in schema else {})
        for name, schema in properties.items()
    ]}  # fmt: skip


def _utc(moment: dt.datetime | None) -> str | None:
    """As the log writes times; a time without a zone is UTC."""
    if moment is None:
        return None
    try:
        return utc_text(moment)
    except OverflowError as error:
        raise unprocessable(f"time {moment} is out of range", "query") from error
