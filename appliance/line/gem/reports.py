"""A station's GEM handler (SEMI E30): when it listens, and the reports, links and events that the host defines."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import version
from typing import Any

import secsgem.gem
from secsgem.gem.collection_event_link import CollectionEventLink
from secsgem.gem.collection_event_report import CollectionEventReport
from secsgem.gem.communication_state_machine import CommunicationState
from secsgem.gem.control_state_machine import ControlState

from appliance.line.gem import hsms
from appliance.line.gem.variables import (
    ALARM,
    CONFIG_SPOOL,
    DATA,
    EVENTS,
    FILE,
    MAX_SPOOL_TRANSMIT,
    NOT_READY,
    READY,
    SPOOL,
    STATUS,
    VERDICT,
    Definitions,
    Id,
    Large,
)
from appliance.station import Station

Message = Any  # secsgem has no types


class ReportingEquipment(secsgem.gem.GemEquipmentHandler):
    """What a host may ask for and define: secs_gem.json keeps it over restarts.

    Args:
        station: whose definitions they are.
        settings: of the connection.
        remote: whether the host may command (ONLINE/REMOTE); else it may only read (ONLINE/LOCAL).
    """

    def __init__(self, station: Station, settings: hsms.Settings, *, remote: bool) -> None:
        super().__init__(
            settings, initial_control_state="ONLINE", initial_online_control_state="REMOTE" if remote else "LOCAL"
        )
        self._mdln, self._softrev = "Umbra", version("umbra")[:20]
        self._station = station
        self._codes = settings.data_items
        self._building = threading.RLock()
        self._define()

    @property
    def _is_online(self) -> bool:
        return self._control_state.current in (ControlState.ONLINE_LOCAL, ControlState.ONLINE_REMOTE)

    # --- definitions --------------------------------------------------------------------------------------------------

    def _define(self) -> None:
        self._definitions = Definitions.read(self._station.root / FILE)
        gem = secsgem.gem
        for number, name in EVENTS.items():
            self.collection_events[number] = gem.CollectionEvent(number, name, list(DATA) if number == VERDICT else [])
        for number, variable in (STATUS | SPOOL).items():
            one = variable.field
            self.status_variables[number] = gem.StatusVariable(number, one.name, one.unit, variable.type)
        for number, variable in DATA.items():
            self.data_values[number] = gem.DataValue(number, variable.field.name, variable.type)
        for number, name, most in ((CONFIG_SPOOL, "ConfigSpool", 1), (MAX_SPOOL_TRANSMIT, "MaxSpoolTransmit", 10**9)):
            self.equipment_constants[number] = gem.EquipmentConstant(number, name, 0, most, 0, "", Large)
        self.alarms[ALARM] = gem.Alarm(ALARM, "NotReady", "the station is not ready: see NotReadyReasons",
                                       self._codes.ALCD.EQUIPMENT_STATUS_WARNING, NOT_READY, READY)  # fmt: skip
        self.alarms[ALARM].enabled = self._definitions.alarms
        for report, variables in self._definitions.reports:
            self._registered_reports[report] = CollectionEventReport(report, variables)
        for linked, reports in self._definitions.links:
            if linked in self.collection_events:
                self._link(linked).reports.extend(reports)
        for event in self._definitions.enabled:
            if event in self.collection_events:
                self._link(event).enabled = True

    def _link(self, event: Id) -> Any:
        """What is registered of an event; it may be enabled before any report is linked to it."""
        if event not in self._registered_collection_events:
            self._registered_collection_events[event] = CollectionEventLink(self.collection_events[event], [])
        return self._registered_collection_events[event]

    def _keep(self, **changed: Any) -> None:
        """Write down what the host defined."""
        links = {plain(event): link for event, link in self._registered_collection_events.items()}
        self._definitions = replace(
            self._definitions,
            reports=[(plain(number), [plain(v) for v in report.vars]) for number, report in self._registered_reports.items()],
            links=[(event, [plain(r) for r in link.reports]) for event, link in links.items()],
            enabled=[event for event, link in links.items() if link.enabled],
            alarms=self.alarms[ALARM].enabled, **changed,
        )  # fmt: skip
        self._definitions.write(self._station.root / FILE)

    def _defined(self, define: Callable[[Any, Message], Any], handler: Any, message: Message) -> Any:
        """Let secsgem define, while no report is built, and write it down."""
        with self._building:
            answer = define(handler, message)
            self._keep()
        return answer

    def _on_s02f33(self, handler: Any, message: Message) -> Any:
        asked = self.settings.streams_functions.decode(message).DATA.get()
        if not all(_is_id(one) for report in asked for one in (report["RPTID"], *report["VID"])):
            return self.stream_function(2, 34)(self._codes.DRACK.INVALID_FORMAT)
        return self._defined(super()._on_s02f33, handler, message)

    def _on_s02f35(self, handler: Any, message: Message) -> Any:
        asked = self.settings.streams_functions.decode(message).DATA.get()
        if not all(_is_id(one) for link in asked for one in (link["CEID"], *link["RPTID"])):
            return self.stream_function(2, 36)(self._codes.LRACK.INVALID_FORMAT)
        return self._defined(super()._on_s02f35, handler, message)

    def _on_s02f37(self, handler: Any, message: Message) -> Any:
        return self._defined(super()._on_s02f37, handler, message)

    def _set_ce_state(self, ceed: bool, ceids: list[Id]) -> bool:
        wanted = ceids or list(self.collection_events)
        if any(event not in self.collection_events for event in wanted):
            return False
        for event in wanted:
            self._link(event).enabled = ceed
        return True

    def _on_s05f03(self, handler: Any, message: Message) -> Any:
        answer = super()._on_s05f03(handler, message)
        self._keep()
        return answer

    def _on_s01f21(self, _handler: Any, message: Message) -> Any:
        asked = [plain(one) for one in self.settings.streams_functions.decode(message)] or list(DATA)
        found = [(number, DATA.get(number)) for number in asked]
        return self.stream_function(1, 22)(
            [{"VID": n, "DVVALNAME": v.field.name if v else "", "UNITS": v.field.unit if v else ""} for n, v in found]
        )

    def _on_s01f23(self, _handler: Any, message: Message) -> Any:
        asked = [plain(one) for one in self.settings.streams_functions.decode(message)] or list(self.collection_events)
        found = [(number, self.collection_events.get(number)) for number in asked]
        return self.stream_function(1, 24)(
            [{"CEID": n, "CENAME": e.name if e else "", "VID": e.data_values if e else []} for n, e in found]
        )

    # --- what secsgem 0.3 leaves out ----------------------------------------------------------------------------------

    def _on_message_received(self, data: dict[str, Any]) -> None:
        """S1F13 counts in the delay between two attempts as well, and an S1F14 that denies is no agreement."""
        message, state = data["message"], self._communication_state.current
        kind = message.header.stream, message.header.function
        if kind == (1, 13) and state is CommunicationState.WAIT_DELAY:
            self.send_response(self._on_s01f13(self, message), message.header.system)
            self._communication_state.s1f13received()
        elif kind == (1, 14) and state is CommunicationState.WAIT_CRA and self._denies(message):
            self._communication_state._on_wait_cra_timeout()
        else:
            super()._on_message_received(data)

    def _denies(self, message: Message) -> bool:
        return bool(code_of(self.settings.streams_functions.decode(message).COMMACK))

    def _handle_stream_function(self, message: Message) -> None:
        """Offline, nothing is answered but the request to go online."""
        kind = message.header.stream, message.header.function
        if self._is_online or kind in ((1, 13), (1, 17)):
            super()._handle_stream_function(message)
        elif message.header.require_response:
            self.send_response(self.stream_function(message.header.stream, 0)(), message.header.system)


def _is_id(found: Any) -> bool:
    """Whether it numbers or names one thing; SECS-II lets an item hold several numbers."""
    return isinstance(found, int | str) and not isinstance(found, bool)


def plain(item: Any) -> Any:
    """What an item of SECS-II holds."""
    return item.get() if hasattr(item, "get") else item


def code_of(item: Any) -> int:
    """The number in an item of one byte, or of one number."""
    found = item.get()
    return int(found[0] if isinstance(found, bytes | list) else found)
