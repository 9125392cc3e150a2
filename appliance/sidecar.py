"""`<file>.json` beside a frame: the geometry of a headerless file, and the die it shows."""

from __future__ import annotations

import json
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from appliance.errors import FrameError
from appliance.frame import FARTHEST_DIE, checked_text

SIDECAR_SUFFIX = ".json"
LONGEST_SIDECAR = 1 << 20  # bytes

Text = Annotated[str, Field(max_length=200), AfterValidator(checked_text)]
Place = Annotated[int, Field(gt=-FARTHEST_DIE, lt=FARTHEST_DIE)]


class Sidecar(BaseModel):
    """`<file>.json`: geometry of a headerless file, and the die it shows. Keys of no meaning here are left alone."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    width: int | None = Field(None, ge=1)
    height: int | None = Field(None, ge=1)
    layout: str | None = None
    stride: int | None = Field(None, ge=1)
    offset: int = Field(0, ge=0)
    bits: int | None = Field(None, ge=1, le=16)
    wafer: Text | None = None
    die: tuple[Place, Place] | None = None


def read_sidecar(descriptor: int | None, name: str) -> Sidecar:
    """What a sidecar says; an empty one where there is none.

    Raises:
        FrameError: it is too long, not JSON, or a value is out of range.
    """
    if descriptor is None:
        return Sidecar()
    try:
        with open(descriptor, "rb", closefd=False) as file:
            text = file.read(LONGEST_SIDECAR + 1)
        if len(text) > LONGEST_SIDECAR:
            raise FrameError(f"sidecar {name}: beyond {LONGEST_SIDECAR} bytes")
        return Sidecar.model_validate(json.loads(text))
    except (OSError, ValueError, RecursionError) as error:  # ValidationError and JSONDecodeError are ValueErrors
        detail = (
            "; ".join(f"{e['loc']}: {e['msg']}" for e in error.errors())
            if isinstance(error, ValidationError)
            else error
        )
        raise FrameError(f"sidecar {name}: {detail}") from error
