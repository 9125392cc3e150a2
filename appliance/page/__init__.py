"""The engineers' page: HTML made on the server from the log, with htmx for what moves; it reads, and writes only over /v1."""

from fastapi import APIRouter

from appliance.page import bundles, frame, labeling, rating, scores, specs, station, verdicts, wafers

router = APIRouter()
for _module in (station, verdicts, frame, scores, wafers, labeling, rating, bundles, specs):
    router.include_router(_module.router)
