"""/specs: the limits in force, who set which, and a form to set another."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from appliance.api.access import ReadLog, StationOf
from appliance.page.shell import page

router = APIRouter(include_in_schema=False)


@router.get("/specs", response_class=HTMLResponse)
def specs(request: Request, station: StationOf, log: ReadLog) -> HTMLResponse:
    """Limits by product, and all that were ever set."""
    audit = log.table("specs")
    in_force: dict[str | None, object] = {}
    for row in audit:  # newest first
        in_force.setdefault(row["product"], row)
    products = [row["product"] for row in log.select("SELECT DISTINCT product FROM frames ORDER BY 1")]
    can_write = station.settings.api.token_sha256 is not None
    return page(request, "specs.html", audit=audit, in_force=in_force, products=products, can_write=can_write)
