"""/v1/whatif and /v1/rank: questions over all frames of a bundle."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query

from appliance.api.access import ReadLog, StationOf, unprocessable
from appliance.order import Metric, Wanted
from appliance.rank import rank
from appliance.whatif import what_if

router = APIRouter(prefix="/v1", tags=["unseen"])


@router.get("/whatif")
def whatif(
    station: StationOf,
    log: ReadLog,
    spec: Annotated[float | None, Query(gt=0, le=1, description="a limit on the score to try")] = None,
    t: Annotated[float | None, Query(ge=0, lt=1, description="a threshold on S to try")] = None,
    alpha: Annotated[float | None, Query(ge=0.01, le=100, description="an exponent of S to try")] = None,
    product: Annotated[str | None, Query(description="only this product")] = None,
    lot: Annotated[str | None, Query(description="only this lot")] = None,
) -> dict[str, Any]:
    """What another limit, t or alpha would have done to the frames in the log; numbers of S are [at least, at most]."""
    if spec is None and t is None and alpha is None:
        raise unprocessable("wanted spec, t or alpha", "query")
    return what_if(station, log, spec=spec, t=t, alpha=alpha, product=product, lot=lot)


@router.get("/rank")
def ranked(
    station: StationOf,
    log: ReadLog,
    metric: Metric = Metric.M_ALPHA,
    count: Annotated[int, Query(ge=1, le=1000)] = 10,
    offset: Annotated[int, Query(ge=0, le=10**9, description="frames of the order to pass over")] = 0,
    diverse: Annotated[
        bool,
        Query(
            description="leave out what a frame before shows, take what stands for most of the others; of at most 1000"
        ),
    ] = False,
    product: str | None = None,
    lot: str | None = None,
    labeled: Annotated[bool, Query(description="frames that a person has labeled, too")] = False,
) -> list[dict[str, Any]]:
    """What to label next: the frames with the most unseen in them first, with their regions."""
    wanted = Wanted(
        metric=metric, count=count, offset=offset, diverse=diverse, product=product, lot=lot, labeled=labeled
    )
    return rank(station, log, wanted)
