"""What a SECS/GEM host finds at a station: numbers of variables, events and constants, and what the host defined itself."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from secsgem.secs import variables

Id = int | str  # SECS-II numbers things or names them
Text, Real, Whole, Large, Flag = variables.String, variables.F8, variables.I4, variables.U8, variables.Boolean

VERDICT, READY, NOT_READY, SPOOL_ACTIVATED, SPOOL_DEACTIVATED = 5001, 5002, 5003, 5004, 5005
EVENTS = {
    VERDICT: "VerdictCommitted", READY: "StationReady", NOT_READY: "StationNotReady",
    SPOOL_ACTIVATED: "SpoolActivated", SPOOL_DEACTIVATED: "SpoolDeactivated",
}  # fmt: skip
ALARM = 1
REPORT = 1  # all data variables of a verdict, until the host defines reports of its own


@dataclass(frozen=True, slots=True)
class Variable:
    """A status or data variable.

    Attributes:
        name, unit: as S1F11 and S1F21 tell them.
        type: of its value, an item of SECS-II.
        read: from a verdict's document, or the station's state.
    """

    name: str
    type: Any
    read: Callable[[dict[str, Any]], Any]
    unit: str = ""

    def value(self, source: dict[str, Any] | None) -> Any:
        """The item; what is null has no elements, and is never 0."""
        found = None if source is None else self.read(source)
        if self.type is Text:
            return Text("" if found is None else as_ascii(str(found)))
        return self.type([] if found is None else found)


def as_ascii(text: str) -> str:
    """The text as an item of type A holds it: what is not ASCII becomes escapes."""
    return text.encode("ascii", "backslashreplace").decode()


def _inside(*path: str) -> Callable[[dict[str, Any]], Any]:
    """Reads a field of a document; None where a part of the way is null."""

    def read(document: dict[str, Any]) -> Any:
        found: Any = document
        for key in path:
            found = None if found is None else found[key]
        return found

    return read


DATA = {
    4001: Variable("Seq", Large, _inside("seq")),
    4002: Variable("Frame", Text, _inside("frame")),
    4003: Variable("Sha256", Text, _inside("sha256")),
    4004: Variable("Product", Text, _inside("product")),
    4005: Variable("Lot", Text, _inside("lot")),
    4006: Variable("Wafer", Text, _inside("wafer")),
    4007: Variable("DieX", Whole, lambda told: told["die"] and told["die"][0]),
    4008: Variable("DieY", Whole, lambda told: told["die"] and told["die"][1]),
    4009: Variable("Verdict", Text, _inside("verdict")),
    4010: Variable("HardBin", Whole, _inside("bin", "hard")),
    4011: Variable("SoftBin", Text, _inside("bin", "soft")),
    4012: Variable("Reason", Text, _inside("reason")),
    4013: Variable("Class", Text, _inside("class")),
    4014: Variable("PNotGood", Real, _inside("p_ng")),
    4015: Variable("Level", Real, _inside("level")),
    4016: Variable("Score", Real, _inside("score")),
    4017: Variable("Limit", Real, _inside("spec")),
    4018: Variable("UnseenMThresh", Real, _inside("unseen", "m_thresh")),
    4019: Variable("UnseenMAlpha", Real, _inside("unseen", "m_alpha")),
    4020: Variable("UnseenRegions", Whole, _inside("unseen", "rois")),
    4021: Variable("NoiseMedian", Real, _inside("noise", "median"), "DN"),
    4022: Variable("NoiseSigma", Real, _inside("noise", "sigma"), "DN"),
    4023: Variable("Bundle", Text, _inside("bundle")),
    4024: Variable("Engine", Text, _inside("engine")),
    4025: Variable("DecidedAt", Text, _inside("decided_at")),
}
STATUS = {
    2001: Variable("Ready", Flag, lambda state: bool(state.get("ready"))),
    2002: Variable("NotReadyReasons", Text, lambda state: "; ".join(state.get("reasons") or ())),
    2003: Variable("Paused", Flag, lambda state: bool(state.get("paused"))),
    2004: Variable("Backlog", Large, _inside("backlog"), "frames"),
    2005: Variable("Rate", Real, _inside("frames_per_s"), "frames/s"),
    2006: Variable("LastSeq", Large, _inside("last_seq")),
    2007: Variable("ActiveBundle", Text, _inside("bundle")),
    2008: Variable("ActiveEngine", Text, _inside("engine")),
    2009: Variable("SpoolActive", Flag, _inside("spool", "active")),
    2010: Variable("SpoolCountActual", Large, _inside("spool", "actual"), "messages"),
    2011: Variable("SpoolCountTotal", Large, _inside("spool", "total"), "messages"),
    2012: Variable("SpoolStartTime", Text, _inside("spool", "since")),
}
FILE = "secs_gem.json"  # GEM has definitions survive a restart
CONFIG_SPOOL, MAX_SPOOL_TRANSMIT, LIMIT = 3001, 3002, 3003


@dataclass(frozen=True, slots=True)
class Definitions:
    """What the host set, as secs_gem.json holds it.

    Attributes:
        reports: numbers of reports, each with its variables.
        links: numbers of events, each with its reports.
        enabled: events that are reported.
        alarms: whether S5F1 is wanted.
        spool: ConfigSpool: whether what waited is held back until the host asks for it (S6F23).
        spooled: whether event reports are among what S2F43 has spooled.
        max_transmit: messages a request; 0: all.
    """

    reports: list[tuple[Id, list[Id]]] = field(default_factory=lambda: [(REPORT, list(DATA))])
    links: list[tuple[Id, list[Id]]] = field(default_factory=lambda: [(VERDICT, [REPORT])])
    enabled: list[Id] = field(default_factory=lambda: [VERDICT])
    alarms: bool = False
    spool: bool = False
    spooled: bool = True
    max_transmit: int = 0

    @classmethod
    def read(cls, path: Path) -> Definitions:
        """As the file has them; a file that cannot be read counts as none."""
        try:
            return cls(**json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return cls()

    def write(self, path: Path) -> None:
        """Replace the file."""
        temporary = path.with_name(f".{path.name}.tmp")
        with suppress(OSError):  # a full disk: they hold until a restart
            temporary.write_text(json.dumps(asdict(self)), encoding="utf-8")
            temporary.replace(path)
