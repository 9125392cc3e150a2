"""/v1/ratings: blind rating sessions, scores, and levels against them."""

from __future__ import annotations

from contextlib import closing
from typing import Annotated, Any

from fastapi import APIRouter, Depends, HTTPException
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from appliance import ratings
from appliance.api.access import ReadLog, StationOf, may_write, open_to_write
from appliance.api.records import GUARDED, Name
from appliance.images import kept_frames
from appliance.verdict_log import LARGEST_SEQ, VerdictLog

router = APIRouter(prefix="/v1/ratings", tags=["ratings"])
EXACT = 2**53 - 1  # largest number that JSON's readers agree on
_NONE: dict[int | str, dict[str, Any]] = {404: {"description": "no such session, or no such frame in it"}}


def _number(value: object) -> object:
    """JSON has one kind of number: 6.0 is whole, too; "6" and true are none."""
    if isinstance(value, bool | str):
        raise ValueError("wanted a whole number")  # noqa: TRY004  (pydantic tells of this one)
    return value


Whole = Annotated[int, BeforeValidator(_number)]


class NewSession(BaseModel):
    """A session to begin, over frames of all levels."""

    model_config = ConfigDict(extra="forbid")

    name: Name
    who: Name
    count: Whole = Field(ge=1, le=ratings.MOST_FRAMES, description="frames, at most")
    product: str | None = Field(None, min_length=1, max_length=200, description="only this one; none: all")


class NewRating(BaseModel):
    """What one rater says of one frame."""

    model_config = ConfigDict(extra="forbid")

    session_id: Whole = Field(ge=1, le=EXACT)
    frame_id: Whole = Field(ge=1, le=EXACT)
    rater: Name
    score: float = Field(strict=True, ge=0, le=10, allow_inf_nan=False, description="0: nothing to see; 10: all of it")


def the_session(log: VerdictLog, session_id: int) -> dict[str, Any]:
    """One session.

    Raises:
        HTTPException: 404 where there is none.
    """
    found = ratings.sessions(log, session_id) if 0 < session_id <= LARGEST_SEQ else []
    if not found:
        raise HTTPException(404, f"session {session_id}: there is none")
    return found[0]


@router.get("/sessions")
def sessions(log: ReadLog) -> list[dict[str, Any]]:
    """All sessions, newest first, with how many frames, raters and scores they have."""
    return ratings.sessions(log)


@router.get("/sessions/{session_id}", responses=_NONE)
def session(log: ReadLog, session_id: int) -> dict[str, Any]:
    """One session: the last score of each rater on each frame, and levels against mean opinion scores (null: too few yet)."""
    return the_session(log, session_id) | {
        "scores": [
            {key: row[key] for key in ("rater", "frame_id", "score")} for row in ratings.scores(log, session_id)
        ],
        "result": ratings.result(log, session_id),
    }


@router.post("/sessions", status_code=201, dependencies=[Depends(may_write)],
             responses=GUARDED | {409: {"description": "no frame to rate"}})  # fmt: skip
def start(station: StationOf, new: NewSession) -> dict[str, int]:
    """Begin a session over measured frames, spread over their levels."""
    with closing(open_to_write(station)) as log:
        shown = kept_frames(station.images)
        frames = ratings.spread(log, new.count, shown=shown, product=new.product, seed=log.last_seq())
        if not frames:
            raise HTTPException(409, "no picture of a measured frame is kept, or none of this product")
        return {"id": ratings.start(log, new.name, frames, who=new.who), "frames": len(frames)}


@router.post("", status_code=201, dependencies=[Depends(may_write)], responses=GUARDED | _NONE)
def rate(station: StationOf, new: NewRating) -> dict[str, int]:
    """Score a frame; the last score of a rater on it counts."""
    with closing(open_to_write(station)) as log:
        the_session(log, new.session_id)
        try:
            ratings.rate(log, new.session_id, new.frame_id, rater=new.rater, score=new.score)
        except ratings.RatingError as error:
            raise HTTPException(404, str(error)) from error
        return {"rated": len(ratings.scores(log, new.session_id, new.rater))}
