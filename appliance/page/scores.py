"""/scores: yield and the distribution of scores by product and lot, and what another limit would have done."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse

from appliance.api.access import ReadLog, StationOf
from appliance.page.shell import page
from appliance.verdict_log import VerdictLog
from appliance.whatif import what_if

BINS = 50
router = APIRouter(include_in_schema=False)
Product = Annotated[str | None, Query()]
# Of a group the columns beside MAX(seq) are those of its newest row.
_NEWEST = "SELECT frame_id, MAX(seq), verdict, score FROM verdicts GROUP BY frame_id"
_YIELD = f"""
SELECT f.product, f.lot, COUNT(*) AS frames, SUM(n.verdict = 'PASS') AS "PASS", SUM(n.verdict = 'FAIL') AS "FAIL",
    SUM(n.verdict = 'RETEST') AS "RETEST", AVG(n.score) AS mean_score
FROM ({_NEWEST}) n JOIN frames f ON f.id = n.frame_id GROUP BY 1, 2 ORDER BY 1, 2
"""  # noqa: S608  (constants)
_BINS = f"""
SELECT MIN(CAST(n.score * {BINS} AS INTEGER), {BINS - 1}) AS bin, n.verdict, COUNT(*) AS count
FROM ({_NEWEST}) n JOIN frames f ON f.id = n.frame_id
WHERE n.score IS NOT NULL AND (? IS NULL OR f.product = ?) GROUP BY 1, 2
"""  # noqa: S608  (constants)


@router.get("/scores", response_class=HTMLResponse)
def scores(request: Request, station: StationOf, log: ReadLog, product: Product = None) -> HTMLResponse:
    """Yield of each lot, the histogram of scores, and a limit to move."""
    product = product or None
    lots = log.select(_YIELD)
    spec = log.spec_for(product or "", _shipped(log))
    return page(
        request, "scores.html", lots=lots, products=sorted({lot["product"] for lot in lots}), product=product, spec=spec,
        **_under(station, log, product, spec),
    )  # fmt: skip


@router.get("/page/limit", response_class=HTMLResponse)
def limit(
    request: Request,
    station: StationOf,
    log: ReadLog,
    spec: Annotated[float, Query(gt=0, le=1)],
    product: Product = None,
) -> HTMLResponse:
    """The histogram under another limit, and what it would have done."""
    return page(
        request, "limit.html", product=product or None, spec=spec, **_under(station, log, product or None, spec)
    )


def _shipped(log: VerdictLog) -> float:
    """The limit of the newest verdict: what holds where nobody set one."""
    newest = log.verdicts(limit=1, newest=True)
    return float(newest[0]["spec"]) if newest else 0.5


def _under(station: Any, log: VerdictLog, product: str | None, spec: float) -> dict[str, Any]:
    bins = [{"PASS": 0, "FAIL": 0, "RETEST": 0} for _ in range(BINS)]
    for row in log.select(_BINS, (product, product)):
        bins[row["bin"]][row["verdict"]] = row["count"]
    return {"bins": bins, "would": what_if(station, log, spec=spec, product=product)}
