"""A host's feed: verdicts on frames of the inbox in the order of their commits, from where the host last acknowledged."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from appliance.errors import NotNowError
from appliance.station import Station
from appliance.verdict import Row
from appliance.verdict_log import VerdictLog

LOOK_S = 0.02  # how often it looks for commits
STORE_S = 1.0  # how often an acknowledgement is stored: after a crash at most so much is told again
AT_ONCE = 100


class Feed:
    """Where one host is in the log.

    Args:
        station: whose log.
        name: of the protocol; its cursor is `line.<name>`.

    Attributes:
        cursor: number of the last verdict that the host acknowledged. A host that is new begins with what comes.
        error: why the host is not told now; None while it is.
    """

    def __init__(self, station: Station, name: str) -> None:
        self.name = name
        self.error: str | None = "not connected yet"
        self._log = VerdictLog(station.database)
        self._key = f"line.{name}"
        self._stored = self._log.find_cursor(self._key)
        self.cursor = self._log.last_seq() if self._stored is None else self._stored
        self._store_at = 0.0
        self.store()

    async def rows(self, *, within_s: float) -> list[Row]:
        """The next verdicts after the cursor, oldest first; none where none came within the time."""
        end = time.monotonic() + within_s
        while True:
            rows = await asyncio.to_thread(self._read)
            if rows or time.monotonic() >= end:
                return rows
            await asyncio.sleep(LOOK_S)

    def acknowledge(self, seq: int) -> None:
        """The host has this verdict, and all before it."""
        self.cursor = max(self.cursor, seq)
        if time.monotonic() >= self._store_at:
            self.store()

    def store(self) -> None:
        """Remember the cursor beyond this process; what the disk does not take now is stored the next time."""
        self._store_at = time.monotonic() + STORE_S
        if self.cursor == self._stored:
            return
        try:
            self._log.set_cursor(self._key, self.cursor)
        except NotNowError:
            return
        self._stored = self.cursor

    def is_told(self) -> None:
        """The host is connected and takes what comes."""
        self.error = None

    def is_not_told(self, why: str) -> None:
        """The host is not there, or refuses."""
        self.error = why

    def state(self) -> dict[str, Any]:
        """As line.json holds it."""
        behind = self._log.count_after(self.cursor)
        return {"connected": self.error is None, "error": self.error, "cursor": self.cursor, "behind": behind}

    def close(self) -> None:
        """Store and close."""
        self.store()
        self._log.close()

    def _read(self) -> list[Row]:
        return self._log.verdicts("v.seq > ? AND v.origin = 'inbox'", (self.cursor,), limit=AT_ONCE)
