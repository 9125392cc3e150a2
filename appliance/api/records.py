"""/v1/specs, /v1/labels, /v1/pause and /v1/resume: what people say of limits and frames, and that screening is to wait."""

from __future__ import annotations

from contextlib import closing
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, HTTPException, Query
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from appliance import pause as pauses
from appliance.api.access import ReadLog, StationOf, may_write, open_to_write, unprocessable
from appliance.frame import checked_text
from appliance.labels import OVERHANG, Label, LabelError, checked, fields_of
from appliance.verdict import now_utc
from appliance.verdict_log import LARGEST_SEQ

router = APIRouter(prefix="/v1", tags=["records"])
Limit = Annotated[int, Query(ge=1, le=10000)]
GUARDED: dict[int | str, dict[str, Any]] = {
    400: {"description": "no JSON"},
    413: {"description": "too long"},
    401: {"description": "token missing or wrong"},
    403: {"description": "writes are off"},
}


Name = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(checked_text)]
Note = Annotated[str, Field(max_length=2000), AfterValidator(checked_text)]
Pixel = Annotated[int, Field(strict=True, ge=-OVERHANG, le=32768 + OVERHANG)]


class NewSpec(BaseModel):
    """A limit on the score."""

    model_config = ConfigDict(extra="forbid")

    spec: float = Field(strict=True, gt=0, le=1, allow_inf_nan=False, description="FAIL above it")
    product: str | None = Field(
        None, min_length=1, max_length=200, description="none: all products without one of their own"
    )
    who: Name
    note: Note | None = None


class NewLabel(BaseModel):
    """What a person says of a frame."""

    model_config = ConfigDict(extra="forbid")

    frame_id: int = Field(strict=True, ge=1, le=2**63 - 1)
    class_name: Literal["OK", "Spot", "Diagonal", "Error"] | None = Field(None, alias="class")
    level: float | None = Field(None, strict=True, ge=0, le=10, allow_inf_nan=False)
    boxes: list[tuple[Pixel, Pixel, Pixel, Pixel]] = Field(
        [], max_length=1000, description="x0, y0, x1, y1 in pixels of the frame, ends exclusive"
    )
    box_classes: list[Name | None] | None = Field(None, max_length=1000, description="one for each box; any names")
    who: Name
    note: Note | None = None
    empty: bool = Field(False, strict=True, description="there is nothing to draw a box around")
    settles: bool = Field(
        False, strict=True, description="ends a dispute: earlier labels of the frame no longer count in it"
    )

    def label(self) -> Label:
        """The label itself, from now."""
        classes = tuple(self.box_classes) if self.box_classes is not None else (None,) * len(self.boxes)
        return Label(
            class_name=self.class_name, level=self.level, boxes=tuple(self.boxes), box_classes=classes, who=self.who,
            at=now_utc(), note=self.note, settles=self.settles, empty=self.empty,
        )  # fmt: skip


@router.get("/specs")
def specs(log: ReadLog, limit: Limit = 1000) -> list[dict[str, Any]]:
    """All limits ever set, newest first."""
    return log.table("specs", limit=limit)


@router.post("/specs", status_code=201, dependencies=[Depends(may_write)], responses=GUARDED)
def set_spec(station: StationOf, new: NewSpec) -> dict[str, int]:
    """Set a limit; it holds from the next frame on."""
    with closing(open_to_write(station)) as log:
        return {"id": log.set_spec(new.product, new.spec, who=new.who, note=new.note)}


@router.get("/labels")
def labels(
    log: ReadLog,
    frame_id: Annotated[int | None, Query(ge=1, le=2**63 - 1, description="of this frame only")] = None,
    retracted: Annotated[bool, Query(description="those too that were taken back, with who did so and when")] = False,
    limit: Limit = 1000,
) -> list[dict[str, Any]]:
    """Labels, newest first; classes of boxes by the names that they have now."""
    labels = log.labels(frame_id, taken_back=retracted)
    found = [{"frame_id": frame} | fields_of(label) for frame, given in labels.items() for label in given]
    return sorted(found, key=lambda row: -row["id"])[:limit]


@router.post("/labels", status_code=201, dependencies=[Depends(may_write)],
             responses=GUARDED | {404: {"description": "no such frame"}})  # fmt: skip
def add_label(station: StationOf, new: NewLabel) -> dict[str, int]:
    """Append a label; earlier ones of the frame stay."""
    with closing(open_to_write(station)) as log:
        frames = log.frames("id = ?", [new.frame_id])
        if not frames:
            raise HTTPException(404, f"frame {new.frame_id}: there is none")
        size = (frames[0]["width"], frames[0]["height"]) if frames[0]["width"] else None
        try:
            label = checked(new.label(), size)
        except LabelError as error:
            raise unprocessable(str(error), "body") from error
        [stored] = log.add_labels([(new.frame_id, label)], said_now=True)
        return {"id": stored.id}


class Who(BaseModel):
    """Who says so."""

    model_config = ConfigDict(extra="forbid")

    who: Name


@router.post("/labels/{label_id}/retraction", status_code=201, dependencies=[Depends(may_write)],
             responses=GUARDED | {404: {"description": "no such label, or it was taken back before"}})  # fmt: skip
def retract_label(station: StationOf, label_id: int, new: Who) -> dict[str, int]:
    """Take a label back: it stays in the log, and says nothing any more."""
    with closing(open_to_write(station)) as log:
        try:
            taken_back = 0 < label_id <= LARGEST_SEQ and log.retract_label(label_id, who=new.who)
        except LabelError as error:
            raise unprocessable(str(error), "body") from error
        if not taken_back:
            raise HTTPException(404, f"label {label_id}: there is none")
    return {"id": label_id}


class NewPause(Who):
    """Why screening is to wait."""

    why: Note | None = None


@router.post("/pause", status_code=201, dependencies=[Depends(may_write)], responses=GUARDED)
def pause(station: StationOf, new: NewPause) -> pauses.Pause | None:
    """Begin no further frame until resumed, restarts included; `paused` in /v1/status says when the one in hand is done."""
    with closing(open_to_write(station)) as log:
        pauses.pause(log, who=new.who, why=new.why)
        return pauses.find_pause(log)


@router.post("/resume", status_code=201, dependencies=[Depends(may_write)], responses=GUARDED)
def resume(station: StationOf, new: Who) -> pauses.Pause | None:
    """End a pause, whoever asked for it; null."""
    with closing(open_to_write(station)) as log:
        pauses.resume(log, who=new.who)
        return pauses.find_pause(log)
