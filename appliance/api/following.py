"""Verdicts by their numbers: those that a filter finds, those that come, and each as JSON."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from typing import Any

from fastapi import Request

from appliance.api.access import Readers, open_log
from appliance.api.filters import Filter, Following
from appliance.verdict import Row, document
from appliance.verdict_log import VerdictLog

AT_ONCE = 100  # verdicts that are read between two requests
MOST_WRITTEN = 20_000  # verdicts kept as JSON; 20 MB
LOOK_S = 0.1  # how often one who follows looks for commits


def item(row: Row) -> dict[str, Any]:
    """The schema-1 document and the number that the frame's pictures are asked by."""
    return document(row) | {"frame_id": row["frame_id"]}


def documents(readers: Readers, wanted: Filter, after: int, limit: int) -> dict[int, str]:
    """Items as JSON by their numbers, in order; a verdict never changes, so that each is written out once."""
    with open_log(readers) as log:
        return _written(readers, log, _numbers(log, wanted, after, limit))


def last_seq(readers: Readers) -> int:
    """Number of the newest verdict."""
    with open_log(readers) as log:
        return log.last_seq()


async def follow(
    request: Request, readers: Readers, wanted: Following, last_event_id: str | None
) -> AsyncIterator[list[int]]:
    """Numbers of the verdicts that a filter finds from now on, or after one that was told before, while anybody listens."""
    resumed = int(last_event_id) if last_event_id and last_event_id.isdecimal() and len(last_event_id) < 19 else None
    after = resumed if resumed is not None else wanted.cursor
    if after is None:
        after = await asyncio.to_thread(last_seq, readers)
    while not (request.app.state.stopping() or await request.is_disconnected()):
        newest = await asyncio.to_thread(last_seq, readers)
        while newest > after:
            found = await asyncio.to_thread(_found, readers, wanted, after)
            if found:
                yield found
                after = found[-1]
            if len(found) < AT_ONCE:
                after = max(after, newest)
        await asyncio.sleep(LOOK_S)


def told(readers: Readers, numbers: Sequence[int]) -> dict[int, str]:
    """Those of these verdicts that are still there, as JSON by their numbers."""
    with open_log(readers) as log:
        return _written(readers, log, numbers)


def rows_of(log: VerdictLog, numbers: Sequence[int]) -> list[Row]:
    """Those of these verdicts that are still there, in this order."""
    found = {row["seq"]: row for row in log.verdicts(f"v.seq IN ({', '.join('?' * len(numbers))})", numbers)}
    return [found[number] for number in numbers if number in found]


def _numbers(log: VerdictLog, wanted: Filter, after: int, limit: int) -> list[int]:
    where, values = wanted.sql()
    return log.numbers(where, values, after=after, limit=limit, ranged=wanted.is_ranged)


def _found(readers: Readers, wanted: Filter, after: int) -> list[int]:
    with open_log(readers) as log:
        return _numbers(log, wanted, after, AT_ONCE)


def _written(readers: Readers, log: VerdictLog, numbers: Sequence[int]) -> dict[int, str]:
    written = readers.written  # of this log, whatever replaces it meanwhile
    known = {number: text for number in numbers if (text := written.get(number)) is not None}
    missing = [number for number in numbers if number not in known]
    for start in range(0, len(missing), AT_ONCE):
        for row in rows_of(log, missing[start : start + AT_ONCE]):
            known[row["seq"]] = json.dumps(item(row), ensure_ascii=False, separators=(",", ":"))
    if len(written) + len(missing) > MOST_WRITTEN:
        written.clear()
    written.update({number: known[number] for number in missing if number in known})
    return {number: known[number] for number in numbers if number in known}  # but for those forgotten just now
