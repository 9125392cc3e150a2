"""What a SECS/GEM host finds at a station: numbers of variables, events and constants, and what the host defined itself."""

from __future__ import annotations

import json
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from secsgem.secs import variables

from appliance import log as events
from appliance.line.fields import STATE_FIELDS, VERDICT_FIELDS, Field, Kind

_log = events.get()

Id = int | str  # SECS-II numbers things or names them
Text, Real, Large = variables.String, variables.F8, variables.U8
_TYPES = {
    Kind.TEXT: Text, Kind.REAL: Real, Kind.WHOLE: variables.I4, Kind.LARGE: Large, Kind.FLAG: variables.Boolean
}  # fmt: skip

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
        field: what it tells.
        type: of its value, an item of SECS-II.
    """

    field: Field
    type: Any

    def value(self, source: dict[str, Any] | None) -> Any:
        """The item; what is null has no elements, and is never 0."""
        found = None if source is None else self.field.read(source)
        if self.type is Text:
            return Text("" if found is None else as_ascii(str(found)))
        return self.type([] if found is None else found)


def as_ascii(text: str) -> str:
    """The text as an item of type A holds it: what is not ASCII becomes escapes."""
    return text.encode("ascii", "backslashreplace").decode()


def _numbered(first: int, fields: Iterable[Field]) -> dict[int, Variable]:
    return {number: Variable(one, _TYPES[one.kind]) for number, one in enumerate(fields, first)}


_SPOOL = (
    Field("SpoolActive", Kind.FLAG, lambda spool: spool["active"]),
    Field("SpoolCountActual", Kind.LARGE, lambda spool: spool["actual"], "messages"),
    Field("SpoolCountTotal", Kind.LARGE, lambda spool: spool["total"], "messages"),
    Field("SpoolStartTime", Kind.TEXT, lambda spool: spool["since"]),
)
DATA = _numbered(4001, VERDICT_FIELDS)
STATUS = _numbered(2001, STATE_FIELDS)
SPOOL = _numbered(2001 + len(STATE_FIELDS), _SPOOL)
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
        """As the file has them; a file that is none of ours counts as none."""
        try:
            found = cls(**json.loads(path.read_text(encoding="utf-8")))
            if found._holds():
                return found
            reason = "numbers or names are wanted"
        except FileNotFoundError:
            return cls()
        except (OSError, ValueError, TypeError, LookupError) as error:
            reason = f"{type(error).__name__}: {error}"
        _log.error(events.DEFINITIONS_LOST, file=path.name, reason=reason)
        return cls()

    def _holds(self) -> bool:
        """Whether everything is numbered or named by one number or name."""
        some = [self.enabled, *(ids for one, ids in (*self.reports, *self.links) for ids in ([one], ids))]
        return all(isinstance(one, int | str) for ids in some for one in ids)

    def write(self, path: Path) -> None:
        """Replace the file."""
        temporary = path.with_name(f".{path.name}.tmp")
        with suppress(OSError):  # a full disk: they hold until a restart
            temporary.write_text(json.dumps(asdict(self)), encoding="utf-8")
            temporary.replace(path)
