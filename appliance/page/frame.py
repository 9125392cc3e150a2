"""/frames/{id}: one frame with all that is known of it."""

from __future__ import annotations

import json
from typing import Any

from fastapi import APIRouter, HTTPException, Request
from fastapi.responses import HTMLResponse

from appliance.api.access import ReadLog, StationOf
from appliance.images import kept_pictures
from appliance.labels import standing
from appliance.measured import stretched_image
from appliance.page.shell import page
from appliance.verdict import Row, per_pixel
from appliance.verdict_log import LARGEST_SEQ, VerdictLog

router = APIRouter(include_in_schema=False)
AROUND = tuple((x, y) for y in (1, 0, -1) for x in (-1, 0, 1))  # y upwards, as on the map


@router.get("/frames/{frame_id}", response_class=HTMLResponse)
def frame(request: Request, station: StationOf, log: ReadLog, frame_id: int) -> HTMLResponse:
    """Pictures, numbers, history, labels, and the dies beside it."""
    rows = log.verdicts("f.id = ?", [frame_id], newest=True) if 0 < frame_id <= LARGEST_SEQ else []
    if not rows:
        raise HTTPException(404, f"frame {frame_id}: there is none")
    newest = rows[0]
    pictures = kept_pictures(station.images, frame_id, newest["seq"])
    labels = log.labels(frame_id).get(frame_id, [])
    return page(
        request, "frame.html", row=newest, per_pixel=per_pixel(newest), rois=json.loads(newest["rois"] or "[]"),
        has_image=pictures is not None or stretched_image(station, newest) is not None,
        has_map=pictures is not None and pictures[1] is not None,
        history=log.verdicts("f.path = ?", [newest["path"]], newest=True), neighbours=_neighbours(log, newest),
        labels=labels, holds=standing(labels),
    )  # fmt: skip


def _neighbours(log: VerdictLog, row: Row) -> list[Row | dict[str, Any]]:
    """The nine dies around and at a frame's, in rows; of a die without a frame only its position. None off a wafer."""
    if row["wafer"] is None or row["die_x"] is None or row["die_y"] is None:
        return []
    found = log.verdicts(
        "f.product = ? AND f.lot = ? AND f.wafer = ? AND f.die_x BETWEEN ? AND ? AND f.die_y BETWEEN ? AND ?",
        [row["product"], row["lot"], row["wafer"], row["die_x"] - 1, row["die_x"] + 1, row["die_y"] - 1, row["die_y"] + 1],
    )  # fmt: skip
    newest = {(r["die_x"], r["die_y"]): r for r in found}
    places = [(row["die_x"] + x, row["die_y"] + y) for x, y in AROUND]
    return [newest.get(place, {"frame_id": None, "die_x": place[0], "die_y": place[1]}) for place in places]
