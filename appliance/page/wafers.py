"""/wafers: the verdicts of a wafer by die."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse

from appliance.api.access import ReadLog
from appliance.page.shell import page

router = APIRouter(include_in_schema=False)
Name = Annotated[str | None, Query()]
WIDEST = 400  # dies across, on a map
_WAFERS = """
SELECT product, lot, wafer, COUNT(*) AS frames FROM frames WHERE wafer IS NOT NULL AND die_x IS NOT NULL AND die_y IS NOT NULL
GROUP BY 1, 2, 3 ORDER BY 1, 2, 3
"""


@router.get("/wafers", response_class=HTMLResponse)
def wafers(request: Request, log: ReadLog, product: Name = None, lot: Name = None, wafer: Name = None) -> HTMLResponse:
    """The wafer that is asked for, else the first, and all that there are."""
    known = log.select(_WAFERS)
    asked = {"product": product, "lot": lot, "wafer": wafer}
    chosen = next((w for w in known if all(value in (None, w[key]) for key, value in asked.items())), None)
    dies: dict[tuple[int, int], dict[str, Any]] = {}
    if chosen is not None:
        for row in log.verdicts(
            "f.product = ? AND f.lot = ? AND f.wafer = ? AND f.die_x IS NOT NULL AND f.die_y IS NOT NULL",
            [chosen["product"], chosen["lot"], chosen["wafer"]], limit=100_000,
        ):  # fmt: skip
            dies[row["die_x"], row["die_y"]] = row  # the newest last
    counts = {
        verdict: sum(row["verdict"] == verdict for row in dies.values()) for verdict in ("PASS", "FAIL", "RETEST")
    }
    if dies and any(
        max(place[axis] for place in dies) - min(place[axis] for place in dies) >= WIDEST for axis in (0, 1)
    ):
        return page(
            request, "wafers.html", wafers=known, chosen=chosen, dies={}, far=len(dies), counts=counts, span=None
        )
    xs, ys = ([place[axis] for place in dies] or [0] for axis in (0, 1))
    span = {"x0": min(xs), "y0": min(ys), "columns": max(xs) - min(xs) + 1, "rows": max(ys) - min(ys) + 1}
    return page(request, "wafers.html", wafers=known, chosen=chosen, dies=dies, far=0, counts=counts, span=span)
