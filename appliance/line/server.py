"""`python -m appliance.line.server STATION`: tells every host that umbra.toml names, until stopped; line.json says how it goes."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from contextlib import ExitStack, suppress
from functools import partial
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TextIO

from appliance import log as events
from appliance.errors import ApplianceError, RefusedError
from appliance.line.feed import Feed
from appliance.station import LINE_FILE, Station
from appliance.verdict import now_utc

LOCK_FILE = ".line.lock"
STATE_S = 1.0
FAREWELL_S = 2.5  # for what is under way, and to say goodbye; who starts this waits for five
FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 30.0
Port = Callable[[Feed, asyncio.Event], Awaitable[None]]

_log = events.get()


def ports_of(station: Station) -> dict[str, Port]:
    """The protocols that are on, by their names; what a protocol needs is imported with it.

    Raises:
        RefusedError: what one needs is not installed.
    """
    return {
        name: partial(_protocol(name).run, station, settings)
        for name, settings in station.settings.line.protocols.items()
    }


def _protocol(name: str) -> ModuleType:
    try:
        return import_module(f"appliance.line.{name}")
    except ImportError as error:
        raise RefusedError(
            f"umbra.toml has [line.{name}], which wants: pip install 'umbra[{name.replace('_', '-')}]' ({error})"
        ) from error


async def keep(port: Port, feed: Feed, stopping: asyncio.Event) -> None:
    """Tell one host; where it goes away, again and again with growing pauses."""
    pause = FIRST_PAUSE_S
    while not stopping.is_set():
        before = feed.cursor
        try:
            await port(feed, stopping)
        except Exception as error:  # noqa: BLE001  (a library's own errors: whatever goes wrong with a host is that host's)
            feed.is_not_told(f"{type(error).__name__}: {error}")
            known = isinstance(error, OSError | ApplianceError)
            _log.error(
                events.HOST_LOST, host=feed.name, reason=feed.error, again_in_s=pause, exc_info=None if known else error
            )
        if feed.cursor > before:
            pause = FIRST_PAUSE_S
        with suppress(TimeoutError):
            await asyncio.wait_for(stopping.wait(), pause)
        pause = min(LONGEST_PAUSE_S, 2 * pause)


async def serve(station: Station, *, parent: int | None = None) -> None:
    """Tell all hosts until SIGTERM or SIGINT, or until `parent` is gone.

    One process of a station does: another one waits until it ends.
    """
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    ports = ports_of(station)
    with ExitStack() as held:
        lock = held.enter_context((station.root / LOCK_FILE).open("w"))
        while not _is_alone(lock):
            if await _stops_within(stopping, parent):
                return
        feeds = {name: Feed(station, name) for name in ports}
        tasks = [asyncio.create_task(keep(port, feeds[name], stopping)) for name, port in ports.items()]
        try:
            while True:
                await _write(station, feeds)
                if await _stops_within(stopping, parent):
                    break
            done, late = await asyncio.wait(tasks, timeout=FAREWELL_S) if tasks else (set(), set())
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
            for task in done:
                task.result()
        finally:
            await _write(station, feeds)
            for feed in feeds.values():
                await feed.close()


def _is_alone(lock: TextIO) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


async def _stops_within(stopping: asyncio.Event, parent: int | None) -> bool:
    """Whether to stop, after a second or as soon as it is asked for."""
    with suppress(TimeoutError):
        await asyncio.wait_for(stopping.wait(), STATE_S)
    if parent is not None and os.getppid() != parent:
        stopping.set()
    return stopping.is_set()


async def _write(station: Station, feeds: dict[str, Feed]) -> None:
    temporary = station.root / f".{LINE_FILE}.tmp"
    with suppress(OSError, ApplianceError):  # a full disk: the hosts are told all the same
        told = {name: await feed.state() for name, feed in feeds.items()}
        temporary.write_text(json.dumps({"at": now_utc(), "hosts": told}), encoding="utf-8")
        temporary.replace(station.root / LINE_FILE)


if __name__ == "__main__":
    events.configure()
    asyncio.run(serve(Station.open(Path(sys.argv[1])), parent=int(sys.argv[2])))
