"""What protocols with typed fields tell: the parts of a verdict's document, and of what the screener last said."""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any


class Kind(enum.Enum):
    """What a field holds, where it is not null."""

    TEXT = "text"
    REAL = "real"
    WHOLE = "whole"  # signed, 32 bits
    LARGE = "large"  # unsigned, 64 bits
    FLAG = "flag"


@dataclass(frozen=True, slots=True)
class Field:
    """A field by the name that hosts see.

    Attributes:
        name, unit: as hosts see them.
        kind: of its values.
        read: from the document or the state; None for what was not measured or is not known.
    """

    name: str
    kind: Kind
    read: Callable[[Mapping[str, Any]], Any]
    unit: str = ""


def _inside(*path: str | int) -> Callable[[Mapping[str, Any]], Any]:
    """Reads a field; None where a part of the way is null or missing."""

    def read(source: Mapping[str, Any]) -> Any:
        found: Any = source
        for key in path:
            if found is None:
                return None
            found = found.get(key) if isinstance(found, Mapping) else found[key]
        return found

    return read


VERDICT_FIELDS = (
    Field("Seq", Kind.LARGE, _inside("seq")),
    Field("Frame", Kind.TEXT, _inside("frame")),
    Field("Sha256", Kind.TEXT, _inside("sha256")),
    Field("Product", Kind.TEXT, _inside("product")),
    Field("Lot", Kind.TEXT, _inside("lot")),
    Field("Wafer", Kind.TEXT, _inside("wafer")),
    Field("DieX", Kind.WHOLE, _inside("die", 0)),
    Field("DieY", Kind.WHOLE, _inside("die", 1)),
    Field("Verdict", Kind.TEXT, _inside("verdict")),
    Field("HardBin", Kind.WHOLE, _inside("bin", "hard")),
    Field("SoftBin", Kind.TEXT, _inside("bin", "soft")),
    Field("Reason", Kind.TEXT, _inside("reason")),
    Field("Class", Kind.TEXT, _inside("class")),
    Field("PNotGood", Kind.REAL, _inside("p_ng")),
    Field("Level", Kind.REAL, _inside("level")),
    Field("Score", Kind.REAL, _inside("score")),
    Field("Limit", Kind.REAL, _inside("spec")),
    Field("UnseenMThresh", Kind.REAL, _inside("unseen", "m_thresh")),
    Field("UnseenMAlpha", Kind.REAL, _inside("unseen", "m_alpha")),
    Field("UnseenRegions", Kind.WHOLE, _inside("unseen", "rois")),
    Field("NoiseMedian", Kind.REAL, _inside("noise", "median"), "DN"),
    Field("NoiseSigma", Kind.REAL, _inside("noise", "sigma"), "DN"),
    Field("Bundle", Kind.TEXT, _inside("bundle")),
    Field("Engine", Kind.TEXT, _inside("engine")),
    Field("DecidedAt", Kind.TEXT, _inside("decided_at")),
)
STATE_FIELDS = (
    Field("Ready", Kind.FLAG, lambda state: bool(state.get("ready"))),
    Field("NotReadyReasons", Kind.TEXT, lambda state: "; ".join(state.get("reasons") or ())),
    Field("Paused", Kind.FLAG, lambda state: bool(state.get("paused"))),
    Field("Backlog", Kind.LARGE, _inside("backlog"), "frames"),
    Field("Rate", Kind.REAL, _inside("frames_per_s"), "frames/s"),
    Field("LastSeq", Kind.LARGE, _inside("last_seq")),
    Field("ActiveBundle", Kind.TEXT, _inside("bundle")),
    Field("ActiveEngine", Kind.TEXT, _inside("engine")),
)
SILENT = {"ready": False, "reasons": ["the screener says nothing"]}  # the state of a station whose screener says none
