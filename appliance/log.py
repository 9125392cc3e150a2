"""One JSON line an event on standard error; event names are constants."""

from __future__ import annotations

import logging
import sys
from collections.abc import MutableMapping
from contextlib import suppress
from typing import Any, TextIO, cast

import structlog

STARTED = "screener.started"
STOPPED = "screener.stopped"
SCREENED = "frame.screened"
SEEN_AGAIN = "frame.seen_again"
VANISHED = "frame.vanished"
STUCK = "frame.stuck"
BLOCKED = "outbox.blocked"
PICTURES_LOST = "pictures.lost"
AGAIN_UNREADABLE = "again.unreadable"
NO_EVENTS = "watch.no_events"
REPUBLISHED = "outbox.republished"
INBOX_GONE = "inbox.gone"
INBOX_BACK = "inbox.back"
API_STARTED = "api.started"
API_DIED = "api.died"
LINE_STARTED = "line.started"
LINE_DIED = "line.died"
HOST_LOST = "host.lost"
MAP_REFUSED = "map.refused"
DEFINITIONS_LOST = "definitions.lost"
HOST_REFUSED = "host.refused"
BUNDLE_SWITCHED = "bundle.switched"
BUNDLE_REFUSED = "bundle.refused"
GPU_OFF = "gpu.off"
DECODER_DIED = "decoder.died"
EVENT_LOST = "event.lost"
DISK_FULL = "disk.full"
DISK_BACK = "disk.back"
GOLDEN_ASKED = "golden.asked"
GOLDEN_PASSED = "golden.passed"
GOLDEN_FAILED = "golden.failed"
PAUSED = "screening.paused"
RESUMED = "screening.resumed"
CRASHED = "screener.crashed"
SUSPECT = "frame.suspect"
FOLDER_CLOSED = "folder.closed"
BACKING_OFF = "screener.backing_off"


class _Stderr:
    """Standard error, whose reader may be gone and whose disk may be full: a lost line stops nobody."""

    def write(self, text: str) -> int:
        with suppress(OSError):
            return sys.stderr.write(text)
        return 0

    def flush(self) -> None:
        with suppress(OSError):
            sys.stderr.flush()


def _in_words(_logger: object, _method: str, event: MutableMapping[str, Any]) -> str:
    """For a person at a terminal."""
    return f"umbra: {event.pop('event')}: {', '.join(str(value) for value in event.values())}"


def configure(level: int = logging.INFO) -> None:
    """Set structlog up for a service: ISO times in UTC, JSON, standard error."""
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(cast("TextIO", _Stderr())),
        cache_logger_on_first_use=True,
    )


# Until a service says otherwise: what a command prints is its own.
structlog.configure(
    processors=[_in_words],
    wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING),
    logger_factory=structlog.PrintLoggerFactory(cast("TextIO", _Stderr())),
)


def get() -> structlog.stdlib.BoundLogger:
    """The logger."""
    logger: structlog.stdlib.BoundLogger = structlog.get_logger()
    return logger
