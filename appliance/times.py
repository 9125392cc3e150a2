"""Times as the log and HTTP write them."""

from __future__ import annotations

import datetime as dt


def utc_text(moment: dt.datetime) -> str:
    """A time as 2026-01-31T12:00:00.000Z; one without a zone is thought to be UTC."""
    aware = moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)
    return aware.astimezone(dt.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def utc_of(seconds: float) -> str:
    """Seconds since 1970 as utc_text."""
    return utc_text(dt.datetime.fromtimestamp(seconds, dt.UTC))
