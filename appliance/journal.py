"""What happens to a station, told twice: a line on standard error and a row in the log's events."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from appliance import log as events
from appliance.errors import NotNowError
from appliance.verdict_log import VerdictLog

_log = events.get()


@dataclass(frozen=True, slots=True)
class Journal:
    """Tells events.

    Attributes:
        log: where they are kept, as long as the disk takes them.
    """

    log: VerdictLog

    def note(self, kind: str, *, level: int = logging.WARNING, **detail: object) -> None:
        """Tell what happened.

        Raises:
            OutOfServiceError: the log cannot be written, and not because the disk is full.
        """
        _log.log(level, kind, **detail)
        try:
            self.log.add_event(kind, **detail)
        except NotNowError:
            _log.error(events.EVENT_LOST, kind=kind)
