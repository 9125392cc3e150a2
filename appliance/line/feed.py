"""A host's feed: verdicts on frames of the inbox in the order of their commits, from where the host last acknowledged."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from appliance.errors import NotNowError
from appliance.station import Station
from appliance.verdict import Row
from appliance.verdict_log import VerdictLog

LOOK_S = 0.1  # how often it looks for commits
STORE_S = 1.0  # how often an acknowledgement is stored: after a crash at most so much is told again
AT_ONCE = 100
MOST_COUNTED = 10_000  # of what waits
Answer = TypeVar("Answer")


def key_of(name: str) -> str:
    """Under which the log keeps the cursor of a protocol."""
    return f"line.{name}"


class Feed:
    """Where one host is in the log. The log is read and written in a thread of its own: a busy disk keeps no other host waiting.

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
        self.cursor = 0
        self._path = station.database
        self._key = key_of(name)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=self._key)
        self._store_at = 0.0
        self._open()

    async def rows(self, *, within_s: float, after: int | None = None) -> list[Row]:
        """The next verdicts after the cursor, or after this number, oldest first; none where none came within the time."""
        end = time.monotonic() + within_s
        while True:
            rows = await self._in_thread(lambda: self._read(after))
            if rows or time.monotonic() >= end:
                return rows
            await asyncio.sleep(LOOK_S)

    async def first(self) -> Row | None:
        """The first verdict that waits."""
        rows = await self._in_thread(lambda: self._some(self.cursor, 1))
        return rows[0] if rows else None

    async def newest(self) -> Row | None:
        """The newest verdict on a frame of the inbox, whether it waits or not."""
        rows = await self._in_thread(lambda: self._log.verdicts("v.origin = 'inbox'", limit=1, newest=True))
        return rows[0] if rows else None

    async def skip(self) -> None:
        """Let go of all that waits: the host wants none of it."""
        self.cursor = max(self.cursor, await self._in_thread(self._log.last_seq))
        await self._in_thread(self._store)

    async def acknowledge(self, seq: int) -> None:
        """The host has this verdict, and all before it."""
        self.cursor = max(self.cursor, int(seq))
        if time.monotonic() >= self._store_at:
            await self._in_thread(self._store)

    def is_told(self) -> None:
        """The host is connected and takes what comes."""
        self.error = None

    def is_not_told(self, why: str) -> None:
        """The host is not there, or refuses."""
        self.error = why

    async def state(self) -> dict[str, Any]:
        """As line.json holds it; of what waits at most MOST_COUNTED are counted."""
        behind = await self._in_thread(self._count)
        return {"connected": self.error is None, "error": self.error, "cursor": self.cursor, "behind": behind}

    async def close(self) -> None:
        """Store and close."""
        await self._in_thread(self._store)
        self._thread.shutdown()
        self._log.close()

    async def _in_thread(self, work: Callable[[], Answer]) -> Answer:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def _open(self) -> None:
        found = self._path.stat() if self._path.exists() else None
        self._log = VerdictLog(self._path)
        found = found or self._path.stat()
        self._identity = found.st_dev, found.st_ino
        self._stored = self._log.find_cursor(self._key)
        self.cursor = self._log.last_seq() if self._stored is None else self._stored
        self._looked = -1, -1  # after the first number nothing came up to the second
        self._store()

    def _read(self, after: int | None) -> list[Row]:
        self._follow_log()
        start, newest = self.cursor if after is None else after, self._log.last_seq()
        if (start, newest) == self._looked:
            return []
        rows = self._some(start, AT_ONCE)
        if not rows:
            self._looked = start, newest
        return rows

    def _some(self, after: int, most: int) -> list[Row]:
        return self._log.verdicts("v.seq > ? AND v.origin = 'inbox'", (after,), limit=most)

    def _count(self) -> int:
        """How many wait; and what was acknowledged a while ago is stored, though nothing came since."""
        self._follow_log()
        if time.monotonic() >= self._store_at:
            self._store()
        return self._log.count_after(self.cursor, most=MOST_COUNTED)

    def _follow_log(self) -> None:
        """Where the log was restored, another one stands there now."""
        found = self._path.stat()
        if (found.st_dev, found.st_ino) != self._identity:
            before = self._log
            self._open()
            before.close()

    def _store(self) -> None:
        """Remember the cursor beyond this process; what the disk does not take now is stored the next time."""
        self._store_at = time.monotonic() + STORE_S
        acknowledged = self.cursor
        if acknowledged == self._stored:
            return
        try:
            self._log.set_cursor(self._key, acknowledged)
        except NotNowError:
            return
        self._stored = acknowledged
