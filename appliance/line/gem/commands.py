"""What a host may change at a station: limits as equipment constants (S2F15), and remote commands (S2F41)."""

from __future__ import annotations

import math
from contextlib import closing
from typing import Any

import secsgem.gem
from secsgem.gem.control_state_machine import ControlState

from appliance import log as events
from appliance import pause
from appliance.errors import ApplianceError
from appliance.line.gem import hsms
from appliance.line.gem.reports import Message, ReportingEquipment, plain
from appliance.line.gem.variables import CONFIG_SPOOL, LIMIT, MAX_SPOOL_TRANSMIT, Id, Large, Real, as_ascii
from appliance.station import Station
from appliance.verdict_log import VerdictLog

ALL_PRODUCTS = "all products"
START, STOP, SPEC_SET = "START", "STOP", "SPEC_SET"

_log = events.get()


class CommandedEquipment(ReportingEquipment):
    """What a host may change; each change stands in the log with who made it.

    Args:
        station: what is commanded.
        settings: of the connection.
        remote: whether the host may command (ONLINE/REMOTE); else it may only read (ONLINE/LOCAL).
        host: who commands, as the audit has it.
        line: the settings' name of the host, as the service's log has it.
    """

    def __init__(self, station: Station, settings: hsms.Settings, *, remote: bool, host: str, line: str) -> None:
        super().__init__(station, settings, remote=remote)
        self._host, self._line = host, line

    @property
    def _may_command(self) -> bool:
        return bool(self._control_state.current is ControlState.ONLINE_REMOTE)

    # --- limits -------------------------------------------------------------------------------------------------------

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
            number, value = plain(asked.ECID), asked.ECV.get()
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

    # --- commands -----------------------------------------------------------------------------------------------------

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
            _log.error(events.HOST_REFUSED, host=self._line, command=name, reason=str(error))
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
