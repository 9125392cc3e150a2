"""/scores: yield and the distribution of scores by product and lot, and what another limit would have done."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse

from appliance.api.access import ReadLog, StationOf
from appliance.page.shell import page
from appliance.station import Station
from appliance.verdict_log import VerdictLog
from appliance.whatif import what_if

BINS = 50
router = APIRouter(include_in_schema=False)
Name = Annotated[str | None, Query()]
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
WHERE n.score IS NOT NULL AND (? IS NULL OR f.product = ?) AND (? IS NULL OR f.lot = ?) GROUP BY 1, 2
"""  # noqa: S608  (constants)


@router.get("/scores", response_class=HTMLResponse)
def scores(request: Request, station: StationOf, log: ReadLog, product: Name = None, lot: Name = None) -> HTMLResponse:
    """Yield of each lot, the histogram of scores, and a limit to move."""
    lots = log.select(_YIELD)
    product, lot = product or None, lot or None
    spec = log.spec_for(product or "", station.own_limit(log.active_bundle()))
    return page(
        request, "scores.html", lots=lots, products=sorted({row["product"] for row in lots}),
        **_under(station, log, spec, product=product, lot=lot),
    )  # fmt: skip


@router.get("/page/limit", response_class=HTMLResponse)
def limit(
    request: Request, station: StationOf, log: ReadLog, spec: Annotated[float, Query(gt=0, le=1)], product: Name = None,
    lot: Name = None,
) -> HTMLResponse:  # fmt: skip
    """The histogram under another limit, and what it would have done."""
    return page(request, "limit.html", **_under(station, log, spec, product=product or None, lot=lot or None))


def _under(station: Station, log: VerdictLog, spec: float, *, product: str | None, lot: str | None) -> dict[str, Any]:
    """The limit, scores in bins by verdict, and what the limit would have done."""
    bins = [{"PASS": 0, "FAIL": 0, "RETEST": 0} for _ in range(BINS)]
    for row in log.select(_BINS, (product, product, lot, lot)):
        bins[row["bin"]][row["verdict"]] = row["count"]
    would = what_if(station, log, spec=spec, product=product, lot=lot)
    return {"spec": spec, "product": product, "lot": lot, "bins": bins, "would": would}
