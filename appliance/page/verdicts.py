"""/verdicts: the table of verdicts, newest first, by what stands in the address."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Request
from fastapi.responses import HTMLResponse
from pydantic import Field

from appliance.api.access import ReadLog
from appliance.api.filters import Filter, asked_as
from appliance.api.following import rows_of
from appliance.page.shell import page
from appliance.verdict_log import LARGEST_SEQ

ROWS = 50
router = APIRouter(include_in_schema=False)


class Shown(Filter):
    """A page of the table."""

    before: int | None = Field(None, ge=1, le=LARGEST_SEQ, description="verdicts before this seq")


@router.get("/verdicts", response_class=HTMLResponse)
def verdicts(
    request: Request, log: ReadLog, wanted: Annotated[Shown, Depends(asked_as(Shown, form=True))]
) -> HTMLResponse:
    """The verdicts that match, newest first."""
    where, values = wanted.sql()
    numbers = log.numbers(where, values, before=wanted.before, limit=ROWS + 1, newest=True, ranged=wanted.is_ranged)
    rows = rows_of(log, numbers[:ROWS])
    products = [row["product"] for row in log.select("SELECT DISTINCT product FROM frames ORDER BY 1")]
    asked = wanted.model_dump(by_alias=True, exclude={"before"}, exclude_none=True, mode="json")
    older = numbers[ROWS - 1] if len(numbers) > ROWS else None
    return page(request, "verdicts.html", rows=rows, asked=asked, older=older, before=wanted.before, products=products)
