"""SECS/GEM (SEMI E5, E30) over HSMS: each verdict an S6F11 that the host acknowledges; state, limits, commands, spooling.

The log is the spool: what the host has not acknowledged waits there, and nothing else is kept.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, TypeVar

from appliance import log as events
from appliance.line.feed import Feed
from appliance.line.gem import hsms
from appliance.line.gem.equipment import Equipment, HostRefusesError
from appliance.settings import SecsGemSettings
from appliance.station import Station

LOOK_S = 0.1
STATE_S = 0.5
ASK_S = 5.0  # longest wait for the feed
FAREWELL_S = 1.0  # how long a second host is kept waiting for the first one's end
FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 30.0  # after a host that refuses a verdict
Answer = TypeVar("Answer")

_log = events.get()


class _Port:
    """Listens, and talks to one host at a time."""

    def __init__(self, station: Station, settings: SecsGemSettings, feed: Feed, stopping: asyncio.Event) -> None:
        self._station, self._settings, self._feed, self._stopping = station, settings, feed, stopping
        self._loop = asyncio.get_running_loop()
        self._talking: asyncio.Task[None] | None = None

    async def run(self, listener: socket.socket) -> None:
        listener.setblocking(False)
        self._feed.is_not_told("no host is connected")
        accepting = asyncio.create_task(self._accept(listener))
        stopped = asyncio.create_task(self._stopping.wait())
        try:
            await asyncio.wait((accepting, stopped), return_when=asyncio.FIRST_COMPLETED)
            if self._talking is not None:
                await self._talking
            if accepting.done():
                accepting.result()
        finally:
            ending = [task for task in (accepting, stopped, self._talking) if task is not None]
            for task in ending:
                task.cancel()
            await asyncio.gather(*ending, return_exceptions=True)

    async def _accept(self, listener: socket.socket) -> None:
        while True:
            accepted, (address, *_) = await self._loop.sock_accept(listener)
            if self._talking is not None:  # a host that comes back may be quicker than its own farewell
                await asyncio.wait((self._talking,), timeout=FAREWELL_S)
            if self._talking is not None and not self._talking.done():
                accepted.close()
                _log.warning(
                    events.HOST_REFUSED, host=self._feed.name, address=address, reason="another host is connected"
                )
                continue
            self._talking = asyncio.create_task(self._talk(accepted, address))

    async def _talk(self, accepted: socket.socket, address: str) -> None:
        """All of one connection."""
        ended: asyncio.Future[str] = self._loop.create_future()

        def on_end(why: str) -> None:
            with suppress(RuntimeError):  # the loop is closed: nobody asks any more
                self._loop.call_soon_threadsafe(lambda: None if ended.done() else ended.set_result(why))

        wanted = self._settings
        settings = hsms.Settings(
            accepted, device_id=wanted.device_id, t3_s=wanted.t3_s, t6_s=wanted.t6_s, t8_s=wanted.t8_s,
            linktest_s=wanted.linktest_s, on_end=on_end,
        )  # fmt: skip
        try:
            equipment = Equipment(
                self._station, settings, remote=wanted.control == "remote", host=f"SECS/GEM host {address}",
                feed=self._feed, ask=self._ask,
            )  # fmt: skip
        except Exception as error:  # noqa: BLE001  (what goes wrong with a host is that host's)
            accepted.close()
            _log.exception(events.HOST_LOST, host=self._feed.name, address=address)
            self._feed.is_not_told(f"{type(error).__name__}: {error}")
            return
        leaving = asyncio.create_task(self._leave(equipment))
        try:
            await asyncio.to_thread(equipment.enable)
            await self._tell(equipment, ended)
        except Exception as error:  # noqa: BLE001  (what goes wrong with a host is that host's)
            _log.exception(events.HOST_LOST, host=self._feed.name, address=address)
            equipment.end(f"{type(error).__name__}: {error}")
        finally:
            leaving.cancel()
            await asyncio.to_thread(equipment.close)
            why = await ended
            self._feed.is_not_told(f"no host is connected; the last one: {why}")
            _log.info(events.HOST_LOST, host=self._feed.name, address=address, reason=why)

    async def _leave(self, equipment: Equipment) -> None:
        """Whoever waits for the host's answer waits no longer when this station stops."""
        await self._stopping.wait()
        await asyncio.to_thread(equipment.leave)

    async def _tell(self, equipment: Equipment, ended: asyncio.Future[str]) -> None:
        """Verdicts in their order, each once the one before is acknowledged."""
        if not await self._comes(equipment, ended):
            return
        equipment.begin((await self._feed.state())["behind"])
        self._feed.is_told()
        pause_s, look_at = FIRST_PAUSE_S, 0.0
        while not self._stopping.is_set() and not ended.done():
            if self._loop.time() >= look_at:
                await asyncio.to_thread(equipment.tell_state)
                look_at = self._loop.time() + STATE_S
            if equipment.spools and await self._feed.first() is None:
                equipment.nothing_waits()
            if not equipment.takes_verdicts:
                await asyncio.sleep(LOOK_S)
                continue
            try:
                await self._report_some(equipment, ended)
            except HostRefusesError as error:
                self._feed.is_not_told(str(error))
                await asyncio.wait((ended,), timeout=pause_s)
                pause_s = min(LONGEST_PAUSE_S, 2 * pause_s)
                continue
            except ConnectionResetError:
                return
            pause_s = FIRST_PAUSE_S
            self._feed.is_told()

    async def _report_some(self, equipment: Equipment, ended: asyncio.Future[str]) -> None:
        rows = await self._feed.rows(within_s=STATE_S)
        for row in rows:
            if self._stopping.is_set() or ended.done() or not await asyncio.to_thread(equipment.report, row):
                return
            await self._feed.acknowledge(row["seq"])

    async def _comes(self, equipment: Equipment, ended: asyncio.Future[str]) -> bool:
        """Whether the host selected the session within T7, and then communicates."""
        until = self._loop.time() + self._settings.t7_s
        while not self._stopping.is_set() and not ended.done():
            if equipment.communicating:
                return True
            if not equipment.selected and self._loop.time() > until:
                equipment.end("it did not select within T7")
                return False
            await asyncio.sleep(LOOK_S)
        return False

    def _ask(self, question: Coroutine[Any, Any, Answer]) -> Answer:
        return asyncio.run_coroutine_threadsafe(question, self._loop).result(ASK_S)


async def run(station: Station, settings: SecsGemSettings, feed: Feed, stopping: asyncio.Event) -> None:
    """Be there for a host until told to stop.

    Raises:
        OSError: the port cannot be listened at.
    """
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    with socket.create_server((settings.host, settings.port), family=family) as listener:
        await _Port(station, settings, feed, stopping).run(listener)
