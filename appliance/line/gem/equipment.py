"""The station as a host finds it by GEM (SEMI E30): reports, state, limits, commands, and the log as the spool."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Coroutine
from contextlib import closing
from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import Any

import secsgem.gem
from secsgem.gem.collection_event_link import CollectionEventLink
from secsgem.gem.collection_event_report import CollectionEventReport
from secsgem.gem.communication_state_machine import CommunicationState
from secsgem.gem.control_state_machine import ControlState

from appliance import log as events
from appliance import pause
from appliance.errors import ApplianceError
from appliance.line.feed import Feed
from appliance.line.fields import SILENT
from appliance.line.gem import hsms
from appliance.line.gem.variables import (
    ALARM,
    CONFIG_SPOOL,
    DATA,
    EVENTS,
    FILE,
    LIMIT,
    MAX_SPOOL_TRANSMIT,
    NOT_READY,
    READY,
    SPOOL,
    SPOOL_ACTIVATED,
    SPOOL_DEACTIVATED,
    STATUS,
    VERDICT,
    Definitions,
    Id,
    Large,
    Real,
    as_ascii,
)
from appliance.station import Station
from appliance.verdict import Row, document
from appliance.verdict_log import VerdictLog

ALL_PRODUCTS = "all products"
START, STOP, SPEC_SET = "START", "STOP", "SPEC_SET"
Message = Any  # secsgem has no types

_log = events.get()


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


class Equipment(secsgem.gem.GemEquipmentHandler):
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
        super().__init__(
            settings, initial_control_state="ONLINE", initial_online_control_state="REMOTE" if remote else "LOCAL"
        )
        self._mdln, self._softrev = "Umbra", version("umbra")[:20]
        self._station, self._host, self._feed, self._ask = station, host, feed, ask
        self._codes = settings.data_items
        self._building = threading.RLock()
        self._told: dict[str, Any] | None = None
        self._spool = Spool()
        self._define()

    # --- what the port asks of it ---------------------------------------------------------------------------------

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
        if code := _code(self.settings.streams_functions.decode(answer)):
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

    # --- definitions ----------------------------------------------------------------------------------------------

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
        links = {_plain(event): link for event, link in self._registered_collection_events.items()}
        self._definitions = replace(
            self._definitions,
            reports=[(_plain(number), [_plain(v) for v in report.vars]) for number, report in self._registered_reports.items()],
            links=[(event, [_plain(r) for r in link.reports]) for event, link in links.items()],
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
        asked = [_plain(one) for one in self.settings.streams_functions.decode(message)] or list(DATA)
        found = [(number, DATA.get(number)) for number in asked]
        return self.stream_function(1, 22)(
            [{"VID": n, "DVVALNAME": v.field.name if v else "", "UNITS": v.field.unit if v else ""} for n, v in found]
        )

    def _on_s01f23(self, _handler: Any, message: Message) -> Any:
        asked = [_plain(one) for one in self.settings.streams_functions.decode(message)] or list(self.collection_events)
        found = [(number, self.collection_events.get(number)) for number in asked]
        return self.stream_function(1, 24)(
            [{"CEID": n, "CENAME": e.name if e else "", "VID": e.data_values if e else []} for n, e in found]
        )

    # --- state and limits -----------------------------------------------------------------------------------------

    @property
    def _is_online(self) -> bool:
        return self._control_state.current in (ControlState.ONLINE_LOCAL, ControlState.ONLINE_REMOTE)

    @property
    def _may_command(self) -> bool:
        return bool(self._control_state.current is ControlState.ONLINE_REMOTE)

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

    def on_ec_value_request(self, equipment_constant_id: Any, equipment_constant: Any) -> Any:
        """Read an equipment constant."""
        del equipment_constant_id
        if equipment_constant.ecid == CONFIG_SPOOL:
            return Large(int(self._definitions.spool))
        if equipment_constant.ecid == MAX_SPOOL_TRANSMIT:
            return Large(self._definitions.max_transmit)
        return Real(equipment_constant.limit)

    def on_ec_value_update(self, equipment_constant_id: Any, equipment_constant: Any, value: Any) -> None:
        """Set an equipment constant; a limit stands in the audit, and holds from the next frame on."""
        del equipment_constant_id
        if equipment_constant.ecid == CONFIG_SPOOL:
            self._keep(spool=bool(value))
        elif equipment_constant.ecid == MAX_SPOOL_TRANSMIT:
            self._keep(max_transmit=int(value))
        elif hasattr(equipment_constant, "product"):
            self._set_limit(equipment_constant.product, float(value), None)

    def _look_up_limits(self) -> None:
        """The limits in force as equipment constants: of all products by a number, of one by its name."""
        for number in [n for n, constant in self.equipment_constants.items() if hasattr(constant, "limit")]:
            del self.equipment_constants[number]
        with closing(VerdictLog(self._station.database, readonly=True)) as log:
            default = self._station.own_limit(log.active_bundle())
            products = sorted({row["product"] for row in log.table("specs") if row["product"] is not None})
            limits: dict[Id, tuple[str | None, float]] = {LIMIT: (None, log.spec_for("", default))}
            limits |= {f"Limit:{as_ascii(p)}": (p, log.spec_for(p, default)) for p in products}
        for number, (product, limit) in limits.items():
            self.equipment_constants[number] = secsgem.gem.EquipmentConstant(
                number, f"Limit of {as_ascii(product or ALL_PRODUCTS)}", 0.0001, 1.0, default, "", Real,
                product=product, limit=limit,
            )  # fmt: skip

    def _on_s02f13(self, handler: Any, message: Message) -> Any:
        self._look_up_limits()
        return super()._on_s02f13(handler, message)

    def _on_s02f15(self, handler: Any, message: Message) -> Any:
        for asked in self.settings.streams_functions.decode(message):
            number, value = _plain(asked.ECID), asked.ECV.get()
            if not self._may_command and (number == LIMIT or isinstance(number, str)):
                return self.stream_function(2, 16)(self._codes.EAC.BUSY)
            if not isinstance(value, int | float) or not math.isfinite(value):
                return self.stream_function(2, 16)(self._codes.EAC.OUT_OF_RANGE)
        self._look_up_limits()
        return super()._on_s02f15(handler, message)

    def _on_s02f29(self, handler: Any, message: Message) -> Any:
        self._look_up_limits()
        return super()._on_s02f29(handler, message)

    def _set_limit(self, product: str | None, limit: float, note: str | None) -> None:
        with closing(VerdictLog(self._station.database)) as log:
            log.set_spec(product, limit, who=self._host, note=note)

    # --- commands -------------------------------------------------------------------------------------------------

    def _on_s02f41(self, _handler: Any, message: Message) -> Any:
        """Host command; unlike secsgem's, what was asked is done before it is acknowledged."""
        told = self.settings.streams_functions.decode(message)
        given = {str(p["CPNAME"]).upper(): p["CPVAL"] for p in told.PARAMS.get()}
        code, wrong = self._command(str(told.RCMD.get()).upper(), given)
        answer = {"HCACK": code, "PARAMS": [{"CPNAME": name, "CPACK": why} for name, why in wrong.items()]}
        return self.stream_function(2, 42)(answer)

    def _command(self, name: str, given: dict[str, Any]) -> tuple[int, dict[str, int]]:
        """Do it: HCACK, and CPACK of the parameters that are wrong."""
        hcack = self._codes.HCACK
        takes = {START: (), STOP: ("WHY",), SPEC_SET: ("LIMIT", "PRODUCT", "NOTE")}
        if name not in takes:
            return hcack.INVALID_COMMAND, {}
        if not self._may_command:
            return hcack.CANT_PERFORM_NOW, {}
        wrong = self._wrong(given, takes[name])
        if wrong or (name == SPEC_SET and "LIMIT" not in given):
            return hcack.PARAMETER_INVALID, wrong
        try:
            return self._do(name, given), {}
        except ApplianceError as error:
            _log.error(events.HOST_REFUSED, host=self._feed.name, command=name, reason=str(error))
            return hcack.CANT_PERFORM_NOW, {}

    def _wrong(self, given: dict[str, Any], takes: tuple[str, ...]) -> dict[str, int]:
        cpack = self._codes.CPACK
        wrong = {name: cpack.PARAMETER_UNKNOWN for name in given if name not in takes}
        if "PRODUCT" in takes and given.get("PRODUCT") == "":  # a field that nobody filled in is not all products
            wrong["PRODUCT"] = cpack.CPVAL_ILLEGAL_VALUE
        if "LIMIT" in takes and "LIMIT" in given:
            try:
                if not 0.0001 <= float(given["LIMIT"]) <= 1.0:
                    wrong["LIMIT"] = cpack.CPVAL_ILLEGAL_VALUE
            except (TypeError, ValueError):
                wrong["LIMIT"] = cpack.CPVAL_ILLEGAL_FORMAT
        return wrong

    def _do(self, name: str, given: dict[str, Any]) -> int:
        done, already = self._codes.HCACK.ACK, self._codes.HCACK.ALREADY_IN_CONDITION
        if name == SPEC_SET:
            product, note = (str(given[key]) if given.get(key) else None for key in ("PRODUCT", "NOTE"))
            self._set_limit(None if product is None else self._known_as(product), float(given["LIMIT"]), note)
            return int(done)
        with closing(VerdictLog(self._station.database)) as log:
            if (pause.find_pause(log) is None) == (name == START):
                return int(already)
            if name == START:
                pause.resume(log, who=self._host)
            else:
                pause.pause(log, who=self._host, why=str(given["WHY"]) if given.get("WHY") else None)
        self.trigger_collection_events([self.remote_commands[name].ce_finished])
        return int(done)

    def _known_as(self, told: str) -> str:
        """The product whose name was told so: one that is not ASCII was told with escapes."""
        with closing(VerdictLog(self._station.database, readonly=True)) as log:
            known = [row["product"] for row in log.select("SELECT DISTINCT product FROM frames", ())]
        return next((product for product in known if as_ascii(product) == told), told)

    # --- spooling -------------------------------------------------------------------------------------------------

    def _on_s02f43(self, _handler: Any, message: Message) -> Any:
        """Which streams and functions are spooled: event reports or none."""
        strack = self._codes.STRACK
        wrong, spooled = [], False
        for asked in self.settings.streams_functions.decode(message):
            stream, functions = int(asked.STRID.get()), [int(_plain(f)) for f in asked.FCNID]
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
        asked = _code(self.settings.streams_functions.decode(message))
        if not self._spool.active:
            return self.stream_function(6, 24)(rsda.DENIED_NO_DATA)
        if asked == self._codes.RSDC.PURGE:
            self._ask(self._feed.skip())
        else:
            self._spool.quota = self._definitions.max_transmit or math.inf
        return self.stream_function(6, 24)(rsda.ACK)

    # --- what secsgem 0.3 leaves out ------------------------------------------------------------------------------

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
        return bool(_code(self.settings.streams_functions.decode(message).COMMACK))

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


def _plain(item: Any) -> Any:
    """What an item of SECS-II holds."""
    return item.get() if hasattr(item, "get") else item


def _code(item: Any) -> int:
    """The number in an item of one byte, or of one number."""
    found = item.get()
    return int(found[0] if isinstance(found, bytes | list) else found)
