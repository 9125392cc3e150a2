"""What a repeatability study takes for one part."""

from __future__ import annotations

from enum import StrEnum


class Part(StrEnum):
    """What makes two verdicts trials of one part."""

    FRAME = "frame"  # the same bytes, wherever they lay
    DIE = "die"  # product, lot, wafer and die
    NAME = "name"  # product, lot and file name
