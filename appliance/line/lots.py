"""Files of whole lots: written when a lot has rested, anew when more of it comes; a host that reads folders needs no more."""

from __future__ import annotations

import asyncio
import datetime as dt
import os
import threading
from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from appliance.line.feed import Feed
from appliance.line.files import sync_folder
from appliance.station import Station
from appliance.verdict import Row
from appliance.verdict_log import VerdictLog

LOOK_S = 1.0
RETRY_S = 10.0
SHORT = 40  # letters of a name that a temporary one keeps
LONGEST_NAME = 200  # bytes of a name that a suffix is put to
_ROWS = """
SELECT v.seq, v.verdict, v.hard, v.reason, v.class, v.p_ng, v.level, v.score, v.spec, v.t, v.m_thresh, v.m_alpha,
       CASE WHEN v.t IS NULL THEN NULL ELSE json_array_length(v.rois) END AS rois, v.noise_median, v.noise_sigma, v.bundle,
       v.engine, v.decided_at, v.ms_total, f.name, f.sha256, f.wafer, f.die_x, f.die_y
FROM frames f CROSS JOIN verdicts v ON v.frame_id = f.id
WHERE f.product = ? AND f.lot = ? AND v.origin = 'inbox' ORDER BY f.wafer, v.seq
"""
Lot = tuple[str, str]


@dataclass(slots=True)
class _Open:
    """A lot that is not written yet: its first verdict that waits, and when its last one was decided."""

    first: int
    last_at: dt.datetime
    again_at: float = 0.0  # after its files could not be written


def rows_of(station: Station, lot: Lot) -> list[Row]:
    """All verdicts on frames of a lot, by wafer, then in their order; frames without a wafer come first."""
    with closing(VerdictLog(station.database, readonly=True)) as log:
        return log.select(_ROWS, lot)


async def follow(
    station: Station, feed: Feed, stopping: asyncio.Event, *, rest_s: float, write: Callable[[Station, Lot], None]
) -> None:
    """Write each lot that nothing came to for `rest_s`; its verdicts are acknowledged when its files are there."""
    waiting: dict[Lot, _Open] = {}
    seen = feed.cursor
    clock = asyncio.get_running_loop().time
    feed.is_told()
    while not stopping.is_set():
        for row in await feed.rows(within_s=LOOK_S, after=seen):
            at, lot = dt.datetime.fromisoformat(row["decided_at"]), (row["product"], row["lot"])
            waiting.setdefault(lot, _Open(row["seq"], at)).last_at = at
            seen = row["seq"]
        rested = dt.datetime.now(dt.UTC) - dt.timedelta(seconds=rest_s)
        for lot, found in [(lot, found) for lot, found in waiting.items() if found.last_at <= rested]:
            if clock() < found.again_at:
                continue
            try:
                await asyncio.to_thread(write, station, lot)
            except OSError as error:
                found.again_at = clock() + RETRY_S
                feed.is_not_told(f"lot {'/'.join(lot)}: {error.strerror}")
                continue
            del waiting[lot]
        if not any(found.again_at for found in waiting.values()):
            feed.is_told()
        done = min((found.first for found in waiting.values()), default=seen + 1) - 1
        if done > feed.cursor:
            await feed.acknowledge(done)


def put(path: Path, content: Iterable[bytes]) -> None:
    """Write a file, durably; a reader sees the whole file or none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name[:SHORT]}.{os.getpid()}.{threading.get_ident()}.tmp")
    with temporary.open("wb") as file:
        file.writelines(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    sync_folder(path.parent)


def file_of(station: Station, lot: Lot, name: str, suffix: str) -> Path:
    """lots/<product>/<lot>/<name><suffix>."""
    name = name.replace("/", "_").replace("\0", "_")  # a sidecar names wafers as it likes
    short = name if len(name.encode()) <= LONGEST_NAME else name.encode()[:LONGEST_NAME].decode(errors="ignore")
    return station.lots.joinpath(*lot, f"{short}{suffix}")
