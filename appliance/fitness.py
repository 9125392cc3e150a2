"""Whether frames may be screened now: the station's disk and its engines; looked at once a second."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

from appliance import log as events
from appliance.journal import Journal
from appliance.station import Station
from appliance.verdict import now_utc
from engines import EngineError, EngineFaultError, Inspector
from engines.build import check_golden

RETRY_S = 5.0  # after the disk refused something while it seemed to have room
DRIFT_RETRY_S = 30.0
MARGIN = 1.25  # of the mark that stopped screening must be free before it goes on


class DiskGate:
    """Stops screening while the station's disk has no room.

    Args:
        station: whose disk.
        journal: where it is told.
        clock: monotonic seconds.

    Attributes:
        reason: why frames should not be trusted to it; None while it takes everything.
    """

    def __init__(self, station: Station, journal: Journal, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._station, self._journal, self._clock = station, journal, clock
        self._below = False
        self._again_at: float | None = None  # set by a refusal, until something was stored again
        self.reason: str | None = None

    @property
    def closed(self) -> bool:
        """Whether nothing is screened now. After a refusal one frame after the other is tried, whatever the reason says."""
        return self._below or (self._again_at is not None and self._clock() < self._again_at)

    def look(self, *, idle: bool = True) -> None:
        """See how much room there is.

        Args:
            idle: no frame waits: nothing could show that a refusal is over.
        """
        mark = self._station.settings.disk.stop_bytes
        free = self._station.free_bytes()
        self._below = free < mark * (MARGIN if self._below else 1.0)
        if self._below:
            self._stop(f"disk: {free} bytes free, screening stops below {mark}")
        elif self._again_at is None or (idle and not self.closed):
            self._go_on(free)

    def refused(self, error: Exception) -> None:
        """Something was not stored, whatever the disk says of its room."""
        self._again_at = self._clock() + RETRY_S
        self._stop(f"storage: {error}")

    def took(self) -> None:
        """A frame went all its way."""
        if self._again_at is not None and not self._below:
            self._go_on(self._station.free_bytes())

    def _stop(self, reason: str) -> None:
        before, self.reason = self.reason, reason
        if before is None:
            self._journal.note(events.DISK_FULL, reason=reason)

    def _go_on(self, free: int) -> None:
        self._again_at = None
        if self.reason is not None:
            self.reason = None
            self._journal.note(events.DISK_BACK, level=logging.INFO, free=free)


class GoldenWatch:
    """Measures the golden frames again and again: an engine that drifts judges nothing.

    Args:
        station: how often.
        journal: where it is told, and asked for.
        clock: monotonic seconds.
    """

    def __init__(self, station: Station, journal: Journal, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._every_s = station.settings.engine.golden_s
        self._journal, self._clock = journal, clock
        self._asked = self._newest_wish()
        self.reason: str | None = None
        self.passed()

    def passed(self) -> None:
        """The engines have just gone through the golden gate."""
        self._last, self.reason = self._clock(), None
        self.told: dict[str, Any] = {"at": now_utc(), "passed": True, "score_difference": None}

    def look(self, inspector: Inspector) -> None:
        """Measure where it is time or somebody asked.

        Raises:
            EngineFaultError: an engine failed.
        """
        wish = self._newest_wish()
        every = self._every_s if self.reason is None else min(self._every_s, DRIFT_RETRY_S)
        if wish != self._asked or self._clock() - self._last >= every:
            told = wish != self._asked or self.reason is not None
            self._asked = wish
            self._measure(inspector, told=told)

    def _measure(self, inspector: Inspector, *, told: bool) -> None:
        try:
            report = check_golden(inspector)
        except EngineFaultError:
            raise
        except EngineError as error:
            self.reason = f"engines: {error}"
            self.told = {"at": now_utc(), "passed": False, "score_difference": None}
            self._journal.note(events.GOLDEN_FAILED, reason=str(error))
        else:
            self.reason = None
            self.told = {"at": now_utc(), "passed": True, "score_difference": round(report.score_difference, 6)}
            if told:
                self._journal.note(events.GOLDEN_PASSED, level=logging.INFO, frames=report.frames,
                                   score_difference=self.told["score_difference"])  # fmt: skip
        self._last = self._clock()

    def _newest_wish(self) -> int:
        event = self._journal.log.newest_event(events.GOLDEN_ASKED)
        return event["id"] if event else 0
