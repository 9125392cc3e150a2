"""/label: what to label next, and the bench at which it is labeled."""

from __future__ import annotations

import json
from typing import Annotated

from fastapi import APIRouter, Depends, HTTPException, Query, Request
from fastapi.responses import HTMLResponse, RedirectResponse

from appliance.api.access import ReadLog, StationOf
from appliance.labels import standing
from appliance.measured import Look, looks
from appliance.order import Metric, Wanted
from appliance.page.shell import address, page
from appliance.rank import rank
from appliance.verdict_log import LARGEST_SEQ
from engines import CLASSES

CARDS = 24
METRICS = {
    Metric.ROIS: "regions, each by its peak",
    Metric.M_ALPHA: "M alpha",
    Metric.M_THRESH: "M thresh",
    Metric.BALANCED: "balanced by labels so far",
}
router = APIRouter(include_in_schema=False)


async def the_order(
    metric: Metric = Metric.ROIS,
    product: str = "",
    lot: str = "",
    diverse: bool = False,
    offset: Annotated[int, Query(ge=0, le=10**9)] = 0,
) -> Wanted:
    """The order of the queue, and how many of it were passed over; as `umbra loop next` asks where nothing is said."""
    return Wanted(metric=metric, count=CARDS, offset=offset, diverse=diverse, product=product or None, lot=lot or None)


OrderOf = Annotated[Wanted, Depends(the_order)]


def _asked(wanted: Wanted) -> dict[str, object]:
    """The order as it stands in an address."""
    diverse = "true" if wanted.diverse else None
    return {"metric": wanted.metric.value, "product": wanted.product, "lot": wanted.lot, "diverse": diverse,
            "offset": wanted.offset or None}  # fmt: skip


@router.get("/label", response_class=HTMLResponse)
def queue(request: Request, station: StationOf, log: ReadLog, wanted: OrderOf) -> HTMLResponse:
    """The frames with the most in them that was never seen, as pictures."""
    cards = rank(station, log, wanted)
    products = [row["product"] for row in log.select("SELECT DISTINCT product FROM frames ORDER BY 1")]
    return page(request, "queue.html", cards=cards, wanted=wanted, asked=_asked(wanted), metrics=METRICS,
                products=products, step=CARDS)  # fmt: skip


@router.get("/label/next")
def following(station: StationOf, log: ReadLog, wanted: OrderOf) -> RedirectResponse:
    """The next frame of the queue; the queue itself where it is empty."""
    order = Wanted(metric=wanted.metric, count=1, offset=wanted.offset, diverse=wanted.diverse, product=wanted.product,
                   lot=wanted.lot)  # fmt: skip
    found = rank(station, log, order)
    where = f"/label/{found[0]['frame_id']}" if found else "/label"
    return RedirectResponse(address(where, **_asked(wanted)), status_code=303)


@router.get("/label/{frame_id}", response_class=HTMLResponse)
def bench(request: Request, station: StationOf, log: ReadLog, wanted: OrderOf, frame_id: int) -> HTMLResponse:
    """One frame to label: class, level, boxes."""
    rows = log.verdicts("f.id = ?", [frame_id], newest=True) if 0 < frame_id <= LARGEST_SEQ else []
    if not rows:
        raise HTTPException(404, f"frame {frame_id}: there is none")
    row = rows[0]
    labels = log.labels(frame_id).get(frame_id, [])
    names = sorted({name for given in log.labels().values() for label in given for name in label.box_classes if name})
    with looks(station, log) as look:
        seen = look(frame_id) or Look(row, None)
    return page(
        request, "bench.html", row=row, rois=json.loads(seen.row["rois"] or "[]"), has_image=seen.pictures is not None,
        has_map=seen.has_map, labels=labels, holds=standing(labels).label,
        classes=CLASSES, names=names, asked=_asked(wanted), offset=wanted.offset,
        can_write=station.settings.api.token_sha256 is not None,
    )  # fmt: skip
