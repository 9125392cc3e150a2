"""A class map: how the columns and class names of somebody else's labels.csv read in Umbra's words."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from appliance.errors import ApplianceError
from engines.classes import CLASSES
from engines.training.data import Pictures

CLASS_MAP_FILE = "classes.toml"
LEFT_OUT = "-"


class ClassMapError(ApplianceError):
    """A class map is missing something or says what cannot be."""


class ClassMap(BaseModel):
    """Columns and classes of a labels.csv.

    Attributes:
        file: path of a row's frame in the folder; `{file}` is the row's column `file`.
        label: column of the class.
        level: column of the level, or None.
        level_scale: what a level is multiplied by to lie in 0..10.
        sensor: column of the product, or None.
        group: column that names what must not be divided between training and test, or None.
        pictures: for ordinary pictures that are no raw frames: "turned" where they may be turned any way, "upright" where
            rows stay rows.
        classes: their class names -> OK, Spot, Diagonal, Error; "-" leaves a row out.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    file: str = "{file}"
    label: str = "class"
    level: str | None = "level"
    level_scale: Annotated[float, Field(gt=0)] = 1.0
    sensor: str | None = "sensor"
    group: str | None = None
    pictures: Pictures | None = None
    classes: dict[str, str] = Field(default_factory=lambda: {name: name for name in CLASSES})

    @field_validator("classes")
    @classmethod
    def _known(cls, classes: dict[str, str]) -> dict[str, str]:
        if wrong := sorted({ours for ours in classes.values() if ours not in (*CLASSES, LEFT_OUT)}):
            raise ValueError(f"{', '.join(wrong)}: wanted {', '.join(CLASSES)}, or {LEFT_OUT} to leave rows out")
        return classes

    @field_validator("file")
    @classmethod
    def _template(cls, file: str) -> str:
        try:
            file.format(file="")
        except (LookupError, ValueError, AttributeError) as error:
            raise ValueError(f"{file!r}: {error!r}, wanted a path with {{file}} for the row's column") from None
        return file

    @classmethod
    def read(cls, path: Path) -> ClassMap:
        """A class map from a TOML file.

        Raises:
            ClassMapError: no TOML, an unknown key, or a class that is none of Umbra's.
        """
        try:
            return cls.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise ClassMapError(f"{path}: {error}") from error
        except ValidationError as error:
            first = error.errors()[0]
            raise ClassMapError(f"{path}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from error
