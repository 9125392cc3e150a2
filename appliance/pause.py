"""Screening on hold: who asked for it and why stands in the log, so that it holds over a restart."""

from __future__ import annotations

from dataclasses import dataclass

from appliance import log as events
from appliance.frame import storable
from appliance.verdict_log import VerdictLog


@dataclass(frozen=True, slots=True)
class Pause:
    """A pause that nobody ended yet.

    Attributes:
        who: asked for it.
        why: in their words.
        at: since when.
    """

    who: str
    why: str | None
    at: str

    def __str__(self) -> str:
        """In words, as a reason why the station is not ready."""
        return f"paused by {self.who}" + (f": {self.why}" if self.why else "")


def pause(log: VerdictLog, *, who: str, why: str | None = None) -> None:
    """Ask that no further frame is begun; frames that are dropped wait in the inbox."""
    log.add_event(events.PAUSED, who=storable(who), why=None if why is None else storable(why))


def resume(log: VerdictLog, *, who: str) -> None:
    """Ask that frames are screened again."""
    log.add_event(events.RESUMED, who=storable(who))


def find_pause(log: VerdictLog) -> Pause | None:
    """The pause that was asked for and not ended; None where frames are to be screened."""
    newest = log.newest_event(events.PAUSED, events.RESUMED)
    if newest is None or newest["kind"] == events.RESUMED:
        return None
    return Pause(who=newest["detail"]["who"], why=newest["detail"].get("why"), at=newest["at"])
