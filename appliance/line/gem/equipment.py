"""The station as a host finds it by GEM (SEMI E30): its state, its verdicts, and the log as the spool."""

from __future__ import annotations

import math
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from secsgem.gem.communication_state_machine import CommunicationState

from appliance.errors import ApplianceError
from appliance.line.feed import Feed
from appliance.line.fields import SILENT
from appliance.line.gem import hsms
from appliance.line.gem.commands import CommandedEquipment
from appliance.line.gem.reports import Message, code_of, plain
from appliance.line.gem.variables import ALARM, DATA, SPOOL, SPOOL_ACTIVATED, SPOOL_DEACTIVATED, STATUS, VERDICT
from appliance.station import Station
from appliance.verdict import Row, document


class HostRefusesError(ApplianceError):
    """The host answered an event report otherwise than that it took it."""


@dataclass(slots=True)
class Spool:
    """What waits while the host has not asked for it.

    Attributes:
        active: whether verdicts are held back.
        quota: messages that the host asked for and has not got yet.
        sent: messages since it became active.
    """

    active: bool = False
    quota: float = 0
    sent: int = 0


class Equipment(CommandedEquipment):
    """The station as GEM has it, for one connection.

    Args:
        station: what is told of, and commanded.
        settings: of the connection.
        remote: whether the host may command (ONLINE/REMOTE); else it may only read (ONLINE/LOCAL).
        host: who commands, as the audit has it.
        feed: what waits.
        ask: runs a coroutine of the feed from a thread of secsgem.
    """

    def __init__(
        self, station: Station, settings: hsms.Settings, *, remote: bool, host: str, feed: Feed,
        ask: Callable[[Coroutine[Any, Any, Any]], Any],
    ) -> None:  # fmt: skip
        super().__init__(station, settings, remote=remote, host=host, line=feed.name)
        self._feed, self._ask = feed, ask
        self._told: dict[str, Any] | None = None
        self._spool = Spool()

    # --- what the port asks of it -------------------------------------------------------------------------------------

    @property
    def selected(self) -> bool:
        """Whether the host selected the session."""
        return bool(
            self._communication_state.current not in (CommunicationState.DISABLED, CommunicationState.NOT_COMMUNICATING)
        )

    @property
    def communicating(self) -> bool:
        """Whether S1F13 and S1F14 were exchanged."""
        return bool(self._communication_state.current is CommunicationState.COMMUNICATING)

    @property
    def takes_verdicts(self) -> bool:
        """Whether the next verdict may be reported now."""
        link = self._registered_collection_events.get(VERDICT)
        return (
            self.communicating and self._is_online and link is not None and link.enabled
            and (not self._spool.active or self._spool.quota > 0)
        )  # fmt: skip

    def begin(self, waiting: int) -> None:
        """The host is there, and so many verdicts wait: they are held back where it wants to ask for them."""
        if waiting and self._definitions.spool and self._definitions.spooled:
            self._spool = Spool(active=True)
            self.trigger_collection_events([SPOOL_ACTIVATED])

    @property
    def spools(self) -> bool:
        """Whether what waits is held back until the host asks for it."""
        return self._spool.active

    def report(self, row: Row) -> bool:
        """Report a verdict, and wait until the host has it; False where it is not to be told any more.

        Raises:
            ConnectionResetError: it is gone, or does not answer within T3.
            HostRefusesError: it does not take it.
        """
        with self._building:
            if not self.takes_verdicts:  # the host has just said so
                return False
            self._told = document(row)
            reports = self._build_collection_event(VERDICT)
        said = self.stream_function(6, 11)({"DATAID": 1, "CEID": VERDICT, "RPT": reports})
        answer = self.send_and_waitfor_response(said)
        if answer is None:
            self.end("the host does not acknowledge an event report within T3")
            raise ConnectionResetError("no acknowledgement")
        if (answer.header.stream, answer.header.function) != (6, 12):
            raise HostRefusesError(f"the host answers S{answer.header.stream}F{answer.header.function} to S6F11")
        if code := code_of(self.settings.streams_functions.decode(answer)):
            raise HostRefusesError(f"the host does not take verdict {row['seq']}: ACKC6 {code}")
        if self._spool.active:
            self._spool.quota -= 1
            self._spool.sent += 1
        return True

    def nothing_waits(self) -> None:
        """Everything was reported: the spool is empty."""
        if self._spool.active:
            self._spool.active = False
            self.trigger_collection_events([SPOOL_DEACTIVATED])

    def tell_state(self) -> None:
        """Raise or clear the alarm where the station's readiness changed."""
        if not self._is_online:
            return
        if (self._station.recent_state() or {}).get("ready"):
            self.clear_alarm(ALARM)
        else:
            self.set_alarm(ALARM)

    def end(self, why: str) -> None:
        """Let nothing more come or go; the first reason counts."""
        self.protocol._connection.end(why)

    def leave(self) -> None:
        """Tell the host that this station goes, and end the connection."""
        self.protocol.send_separate_req()
        self.end("this station stops")

    def close(self) -> None:
        """Take leave, and end the connection and its threads."""
        self.leave()
        self.disable()

    # --- variables ----------------------------------------------------------------------------------------------------

    def on_sv_value_request(self, svid: Any, status_variable: Any) -> Any:
        """Read a status variable: from what the screener last said, or of the spool."""
        del svid
        if status_variable.svid in STATUS:
            return STATUS[status_variable.svid].value(self._station.recent_state() or SILENT)
        told = {"active": self._spool.active, "actual": 0, "total": 0, "since": None}
        if self._spool.active:
            waiting = self._ask(self._feed.state())["behind"]
            first = self._ask(self._feed.first())
            told |= {"actual": waiting, "total": waiting + self._spool.sent, "since": first and first["decided_at"]}
        return SPOOL[status_variable.svid].value(told)

    def on_dv_value_request(self, data_value_id: Any, data_value: Any) -> Any:
        """Read a data variable: of the verdict that is reported, else of the last one that was."""
        del data_value_id
        return DATA[data_value.dvid].value(self._told)

    # --- spooling -----------------------------------------------------------------------------------------------------

    def _on_s02f43(self, _handler: Any, message: Message) -> Any:
        """Which streams and functions are spooled: event reports or none."""
        strack = self._codes.STRACK
        wrong, spooled = [], False
        for asked in self.settings.streams_functions.decode(message):
            stream, functions = int(asked.STRID.get()), [int(plain(f)) for f in asked.FCNID]
            others = [f for f in functions if f != 11]
            if stream == 6 and not others:
                spooled = True
                continue
            why = strack.NOT_ALLOWED if stream == 1 else strack.STREAM_UNKNOWN
            if stream == 6:
                why = strack.SECONDARY if any(f % 2 == 0 for f in others) else strack.FUNCTION_UNKNOWN
            wrong.append({"STRID": stream, "STRACK": why, "FCNID": others})
        rspack = self._codes.RSPACK.REJECTED if wrong else self._codes.RSPACK.ACK
        if not wrong:
            self._keep(spooled=spooled)
        return self.stream_function(2, 44)({"RSPACK": rspack, "DATA": wrong})

    def _on_s06f23(self, _handler: Any, message: Message) -> Any:
        """The host asks for what waits, or has it dropped."""
        rsda = self._codes.RSDA
        asked = code_of(self.settings.streams_functions.decode(message))
        if not self._spool.active:
            return self.stream_function(6, 24)(rsda.DENIED_NO_DATA)
        if asked == self._codes.RSDC.PURGE:
            self._ask(self._feed.skip())
        else:
            self._spool.quota = self._definitions.max_transmit or math.inf
        return self.stream_function(6, 24)(rsda.ACK)
