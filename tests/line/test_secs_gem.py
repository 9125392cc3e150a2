"""SECS/GEM with a real host over HSMS: verdicts in order, state, limits, commands, spooling, and hosts that misbehave."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from typing import Any

import pytest
import secsgem.common
import secsgem.gem
import secsgem.hsms
from secsgem.secs import variables

from appliance.line.gem.variables import CONFIG_SPOOL, DATA, LIMIT, MAX_SPOOL_TRANSMIT, SPOOL, STATUS, VERDICT
from appliance.station import Station
from appliance.verdict import document
from appliance.verdict_log import VerdictLog
from tests.appliance.running import Daemon, drop, outbox, wait_until
from tests.line.conftest import free_port, line_state

NAMES = [variable.field.name for variable in DATA.values()]
SVID = {variable.field.name: number for number, variable in (STATUS | SPOOL).items()}


class Host(secsgem.gem.GemHostHandler):
    """A host of the line; keeps the reports it is sent, and answers them as it is told."""

    def __init__(self, port: int, *, ackc6: int | None = 0) -> None:
        self.reports: list[dict[int, list[Any]]] = []
        self.asked = 0
        self.ackc6 = ackc6
        settings = secsgem.hsms.HsmsSettings(
            address="127.0.0.1", port=port, connect_mode=secsgem.hsms.HsmsConnectMode.ACTIVE,
            device_type=secsgem.common.DeviceType.HOST, t3=10, t5=1, establish_communication_timeout=1,
        )  # fmt: skip
        super().__init__(settings)

    def _on_s06f11(self, _handler: Any, message: Any) -> Any:
        told = self.settings.streams_functions.decode(message)
        if told.CEID.get() == VERDICT:
            self.asked += 1
            if self.ackc6 is None:
                return None
            if self.ackc6 == 0:
                self.reports.append({r["RPTID"]: r["V"] for r in told.RPT.get()})
            return self.stream_function(6, 12)(self.ackc6)
        return self.stream_function(6, 12)(0)

    def ask(self, stream: int, function: int, body: Any = None) -> Any:
        """Send and return what is answered; None where that is an abort or a stream 9."""
        answer = self.send_and_waitfor_response(self.stream_function(stream, function)(body))
        assert answer is not None, f"S{stream}F{function} is not answered"
        if (answer.header.stream, answer.header.function) != (stream, function + 1):
            return None
        return self.settings.streams_functions.decode(answer).get()

    def command(self, name: str, **parameters: Any) -> tuple[int, list[Any]]:
        told = self.ask(2, 41, {"RCMD": name, "PARAMS": [{"CPNAME": n, "CPVAL": v} for n, v in parameters.items()]})
        return told["HCACK"], told["PARAMS"]

    def value(self, name: str) -> Any:
        """Of a status variable."""
        [found] = self.ask(1, 3, [SVID[name]])
        return found

    def verdicts(self) -> list[dict[str, Any]]:
        """By the report that the station has until the host defines its own; each once."""
        found = [dict(zip(NAMES, told[1], strict=True)) for told in self.reports]
        return list({told["Seq"]: told for told in found}.values())


@pytest.fixture
def connect() -> Iterator[Callable[..., Host]]:
    made: list[Host] = []

    def start(port: int, **how: Any) -> Host:
        host = Host(port, **how)
        made.append(host)
        host.enable()
        assert host.waitfor_communicating(30)
        return host

    yield start
    for host in made:
        with suppress(Exception):
            host.disable()


def settings_of(port: int, extra: str = "") -> str:
    return (
        f'[line]\nname = "bay 3"\n[line.secs_gem]\nport = {port}\nt3_s = 2\nt7_s = 2\nt8_s = 1\nlinktest_s = 1\n{extra}'
    )


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def running(with_hosts: Callable[[str], Station], port: int) -> Iterator[Daemon]:
    started = Daemon(with_hosts(settings_of(port, 'control = "remote"')))
    started.wait_ready()
    wait_until(lambda: line_state(started.station, "secs_gem"), "the line is there")
    yield started
    assert started.stop() == 0


def rows_of(station: Station) -> list[dict[str, Any]]:
    with closing(VerdictLog(station.database, readonly=True)) as log:
        return [document(row) for row in log.verdicts()]


def test_every_verdict_in_order_with_its_data_variables(
    running: Daemon, port: int, connect: Callable[..., Host]
) -> None:
    host = connect(port)
    for number in range(3):
        drop(running.station, f"f{number}_W2_X{number}_Y-4", seed=number, folder="IMX Ä/L 7")
    (running.station.inbox / "P").mkdir()
    (running.station.inbox / "P" / "broken.tif").write_bytes(b"no picture")
    wait_until(lambda: len(host.verdicts()) == 4, "four verdicts")
    for told, row in zip(host.verdicts(), rows_of(running.station), strict=True):
        assert (told["Seq"], told["Sha256"], told["Verdict"], told["HardBin"]) == (
            row["seq"], row["sha256"], row["verdict"], row["bin"]["hard"])  # fmt: skip
        assert told["Score"] == ([] if row["score"] is None else row["score"])
        assert told["DieX"] == ([] if row["die"] is None else row["die"][0])
        assert told["Reason"] == (row["reason"] or "")
    first, broken = host.verdicts()[0], host.verdicts()[-1]
    assert (first["Product"], first["Lot"], first["Wafer"], first["DieY"]) == ("IMX \\xc4", "L 7", "2", -4)
    assert (broken["Verdict"], broken["Score"], broken["NoiseSigma"]) == ("RETEST", [], []), "not measured is no 0"
    wait_until(lambda: line_state(running.station, "secs_gem").get("behind") == 0, "all went")


def test_the_host_defines_reports_which_survive_both_processes(
    running: Daemon, port: int, connect: Callable[..., Host]
) -> None:
    host = connect(port)
    host.clear_collection_events()
    number = {name: vid for vid, name in zip(DATA, NAMES, strict=True)}
    host.subscribe_collection_event(VERDICT, [number["Seq"], number["Score"], SVID["ActiveBundle"]], 77)
    drop(running.station, "first")
    wait_until(lambda: host.reports, "a report as the host defined it")
    [row] = rows_of(running.station)
    assert host.reports == [{77: [1, row["score"], row["bundle"]]}]
    host.disable()
    assert running.stop() == 0
    again = Daemon(running.station)
    again.wait_ready()
    later = connect(port)
    drop(running.station, "second", seed=2)
    wait_until(lambda: later.reports, "the same report from another process")
    assert later.reports[0][77][0] == 2
    assert later.ask(2, 33, {"DATAID": 0, "DATA": [{"RPTID": 78, "VID": [999999]}]}) == 4, "no such variable"
    assert later.ask(2, 33, {"DATAID": 0, "DATA": [{"RPTID": variables.U4([7, 8]), "VID": [number["Seq"]]}]}) == 2
    assert later.ask(2, 35, {"DATAID": 0, "DATA": [{"CEID": VERDICT, "RPTID": [variables.U4([7, 8])]}]}) == 2
    later.disable()
    assert again.stop() == 0


def test_names_and_values_of_state_and_limits(running: Daemon, port: int, connect: Callable[..., Host]) -> None:
    host = connect(port)
    assert {told["SVID"]: told["SVNAME"] for told in host.ask(1, 11, [])}.items() >= {
        (n, v.field.name) for n, v in (STATUS | SPOOL).items()
    }
    assert [told["DVVALNAME"] for told in host.ask(1, 21, [])] == NAMES
    events = {told["CEID"]: told for told in host.ask(1, 23, [])}
    assert (events[VERDICT]["CENAME"], events[VERDICT]["VID"]) == ("VerdictCommitted", list(DATA))
    assert (host.value("Ready"), host.value("NotReadyReasons"), host.value("Backlog")) == (True, "", 0)
    assert host.value("ActiveBundle").startswith("starter@")
    assert host.ask(1, 3, [424242]) == [[]], "no such variable"
    with closing(VerdictLog(running.station.database)) as log:
        log.set_spec("IMX1", 0.25, who="jo")
    assert host.ask(2, 13, [LIMIT, "Limit:IMX1"])[1] == 0.25
    assert host.ask(2, 15, [{"ECID": LIMIT, "ECV": variables.F8(0.375)}]) == 0
    assert host.ask(2, 13, [LIMIT]) == [0.375]
    for wrong in (0.0, 1.5, float("nan")):
        assert host.ask(2, 15, [{"ECID": LIMIT, "ECV": variables.F8(wrong)}]) == 3, wrong
    names = {told["ECID"]: told["ECNAME"] for told in host.ask(2, 29, [])}
    assert (names[CONFIG_SPOOL], names["Limit:IMX1"]) == ("ConfigSpool", "Limit of IMX1")
    assert host.ask(2, 15, [{"ECID": 1, "ECV": variables.U4(20)}, {"ECID": 2, "ECV": variables.U4(2)}]) == 0, (
        "GEM's own"
    )
    assert host.ask(2, 13, [1, 2]) == [20, 2]
    drop(running.station, "judged")
    wait_until(host.verdicts, "a verdict")
    assert host.verdicts()[0]["Limit"] == 0.375
    with closing(VerdictLog(running.station.database, readonly=True)) as log:
        assert [row["who"] for row in log.table("specs")] == ["SECS/GEM host 127.0.0.1", "jo"]


def test_commands(running: Daemon, port: int, connect: Callable[..., Host]) -> None:
    host, station = connect(port), running.station
    assert host.command("START") == (5, []), "it screens already"
    assert host.command("STOP", WHY="lens change")[0] == 0
    wait_until(lambda: host.value("Paused"), "paused")
    assert host.value("NotReadyReasons") == "paused by SECS/GEM host 127.0.0.1: lens change"
    drop(station, "waits")
    wait_until(lambda: host.value("Backlog") == 1, "it waits")
    assert outbox(station) == {}
    assert host.command("STOP")[0] == 5
    assert host.command("START")[0] == 0
    wait_until(lambda: len(host.verdicts()) == 1, "screened after all")
    assert host.command("SPEC_SET", LIMIT="0.125", PRODUCT="IMX1", NOTE="lot 7 only")[0] == 0
    assert host.command("SPEC_SET", LIMIT="0.5")[0] == 0
    drop(station, "umlaut", folder="IMX Ä/L", seed=3)
    wait_until(lambda: len(host.verdicts()) == 2, "of a product whose name is not ASCII")
    assert host.command("SPEC_SET", LIMIT="0.75", PRODUCT=host.verdicts()[1]["Product"])[0] == 0
    assert host.command("SPEC_SET", LIMIT="0.75", PRODUCT="") == (3, [{"CPNAME": "PRODUCT", "CPACK": 2}])
    with closing(VerdictLog(station.database, readonly=True)) as log:
        assert [(row["product"], row["spec"], row["note"]) for row in log.table("specs")] == [
            ("IMX Ä", 0.75, None), (None, 0.5, None), ("IMX1", 0.125, "lot 7 only")]  # fmt: skip
    assert host.command("SPEC_SET", LIMIT="7.0") == (3, [{"CPNAME": "LIMIT", "CPACK": 2}])
    assert host.command("SPEC_SET", LIMIT="much") == (3, [{"CPNAME": "LIMIT", "CPACK": 3}])
    assert host.command("SPEC_SET", PRODUCT="IMX1")[0] == 3
    assert host.command("START", NOW=True) == (3, [{"CPNAME": "NOW", "CPACK": 1}])
    assert host.command("DANCE")[0] == 1


def test_in_local_control_the_host_only_reads(
    with_hosts: Callable[[str], Station], port: int, connect: Callable[..., Host]
) -> None:
    running = Daemon(with_hosts(settings_of(port)))
    running.wait_ready()
    host = connect(port)
    assert host.command("STOP")[0] == 2
    assert host.command("SPEC_SET", LIMIT="0.5")[0] == 2
    assert host.ask(2, 15, [{"ECID": LIMIT, "ECV": variables.F8(0.5)}]) == 2
    assert host.ask(2, 15, [{"ECID": CONFIG_SPOOL, "ECV": variables.U8(1)}]) == 0, "how it is told is the host's affair"
    drop(running.station, "a")
    wait_until(host.verdicts, "a verdict all the same")
    assert host.ask(1, 15) == 0, "the host takes the station offline"
    drop(running.station, "b", seed=2)
    wait_until(lambda: len(outbox(running.station)) == 2, "judged")
    assert host.ask(1, 3, []) is None, "offline nothing is answered"
    assert len(host.verdicts()) == 1
    assert host.ask(1, 17) == 0
    wait_until(lambda: len(host.verdicts()) == 2, "online again it is told")
    host.disable()
    assert running.stop() == 0


def test_a_host_that_was_away_gets_all_in_order(running: Daemon, port: int, connect: Callable[..., Host]) -> None:
    station = running.station
    first = connect(port)
    drop(station, "f0")
    wait_until(lambda: len(first.verdicts()) == 1, "one")
    first.disable()
    wait_until(lambda: not line_state(station, "secs_gem")["connected"], "it is seen that the host went")
    for number in range(1, 5):
        drop(station, f"f{number}", seed=number)
        wait_until(lambda n=number: len(outbox(station)) == n + 1, "judged in this order")  # type: ignore[misc]
    wait_until(lambda: line_state(station, "secs_gem")["behind"] == 4, "they wait")
    second = connect(port)
    wait_until(lambda: len(second.verdicts()) == 4, "all of them")
    assert [told["Frame"] for told in second.verdicts()] == [f"f{n}.tif" for n in range(1, 5)]


def test_spooling_as_the_host_wants_it(running: Daemon, port: int, connect: Callable[..., Host]) -> None:
    station = running.station
    first = connect(port)
    assert first.ask(2, 43, [{"STRID": 6, "FCNID": []}]) == {"RSPACK": 0, "DATA": []}
    assert first.ask(2, 43, [{"STRID": 1, "FCNID": []}, {"STRID": 6, "FCNID": [12]}]) == {
        "RSPACK": 1, "DATA": [{"STRID": 1, "STRACK": 1, "FCNID": []}, {"STRID": 6, "STRACK": 4, "FCNID": [12]}]}  # fmt: skip
    for constant, value in ((CONFIG_SPOOL, 1), (MAX_SPOOL_TRANSMIT, 2)):
        assert first.ask(2, 15, [{"ECID": constant, "ECV": variables.U8(value)}]) == 0
    assert first.ask(6, 23, 0) == 2, "nothing is spooled"
    first.disable()
    wait_until(lambda: not line_state(station, "secs_gem")["connected"], "it went")
    for number in range(5):
        drop(station, f"f{number}", seed=number)
    wait_until(lambda: len(outbox(station)) == 5, "judged meanwhile")
    host = connect(port)
    wait_until(lambda: host.value("SpoolActive"), "what waits is held back")
    assert (host.value("SpoolCountActual"), host.value("SpoolStartTime")) == (5, rows_of(station)[0]["decided_at"])
    for most in (2, 4):
        assert host.ask(6, 23, 0) == 0
        wait_until(lambda n=most: len(host.verdicts()) == n, "as many as MaxSpoolTransmit allows")  # type: ignore[misc]
        assert (host.value("SpoolActive"), host.value("SpoolCountActual"), host.value("SpoolCountTotal")) == (
            True,
            5 - most,
            5,
        )
    drop(station, "meanwhile", seed=9)
    wait_until(lambda: host.value("SpoolCountActual") == 2, "one more is spooled")
    assert host.ask(6, 23, 0) == 0
    wait_until(lambda: len(host.verdicts()) == 6, "the rest")
    assert [told["Seq"] for told in host.verdicts()] == [1, 2, 3, 4, 5, 6]
    wait_until(lambda: not host.value("SpoolActive"), "what is empty is no spool, though the host asked for no more")
    assert host.ask(6, 23, 0) == 2
    drop(station, "live", seed=10)
    wait_until(lambda: len(host.verdicts()) == 7, "told at once")
    host.disable()
    wait_until(lambda: not line_state(station, "secs_gem")["connected"], "it went again")
    drop(station, "unwanted", seed=11)
    wait_until(lambda: len(outbox(station)) == 8, "judged")
    last = connect(port)
    wait_until(lambda: last.value("SpoolActive"), "held back")
    assert last.ask(6, 23, 1) == 0, "purge"
    wait_until(lambda: line_state(station, "secs_gem")["behind"] == 0, "nothing waits")
    assert last.verdicts() == []
    wait_until(lambda: not last.value("SpoolActive"), "purged")
    drop(station, "after", seed=12)
    wait_until(lambda: [told["Frame"] for told in last.verdicts()] == ["after.tif"], "told at once")


def test_a_host_that_refuses_or_never_acknowledges_gets_it_again(
    running: Daemon, port: int, connect: Callable[..., Host]
) -> None:
    station = running.station
    host = connect(port, ackc6=1)
    drop(station, "a")
    wait_until(lambda: "ACKC6 1" in (line_state(station, "secs_gem").get("error") or ""), "why nothing goes")
    assert "P/L/a.json" in outbox(station)
    host.ackc6 = 0
    wait_until(lambda: len(host.verdicts()) == 1, "told once it takes it")
    host.disable()
    mute = connect(port, ackc6=None)
    drop(station, "b", seed=2)
    wait_until(lambda: "does not acknowledge" in (line_state(station, "secs_gem").get("error") or ""), "T3")
    mute.disable()
    last = connect(port)
    wait_until(lambda: [told["Frame"] for told in last.verdicts()] == ["b.tif"], "told to one that answers")


def raw(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=30)


def message(
    s_type: int, body: bytes = b"", *, session: int = 0xFFFF, stream: int = 0, function: int = 0, system: int = 1
) -> bytes:
    head = struct.pack(">HBBBBL", session, stream, function, 0, s_type, system)
    return struct.pack(">L", len(head) + len(body)) + head + body


SELECT, LINKTEST = message(1), message(5, system=2)


def test_peers_that_talk_nonsense_or_nothing_are_left_and_slow_nobody(
    running: Daemon, port: int, connect: Callable[..., Host]
) -> None:
    station = running.station
    peers = {
        "it did not select within T7": b"",
        "no HSMS: a message of": b"GET / HTTP/1.1\r\nHost: umbra\r\n\r\n",
        "no HSMS: a message of 4000000000 bytes": struct.pack(">L", 4_000_000_000),
        "a message stops after 5 of 10 bytes": message(1)[:9],
        "no HSMS: PType 0, SType 77": message(77),
        "the host does not answer a linktest": SELECT,
    }
    for number, (why, said) in enumerate(peers.items()):
        with raw(port) as peer:
            peer.sendall(said)
            began = time.monotonic()
            drop(station, f"f{number}", seed=number)
            wait_until(lambda n=number: len(outbox(station)) == n + 1, "judged meanwhile")  # type: ignore[misc]
            assert time.monotonic() - began < 2
            wait_until(lambda w=why: w in (line_state(station, "secs_gem").get("error") or ""), why)  # type: ignore[misc]
            while peer.recv(1000):
                pass
    host = connect(port)
    wait_until(lambda: len(host.verdicts()) == len(peers), "the next host is told all")


def test_a_host_that_floods_and_reads_nothing_is_left(running: Daemon, port: int, connect: Callable[..., Host]) -> None:
    station = running.station
    with raw(port) as peer:
        peer.sendall(SELECT)
        peer.settimeout(0.5)
        with suppress(OSError):
            while True:
                peer.sendall(LINKTEST * 1000)
        began = time.monotonic()
        drop(station, "a")
        wait_until(lambda: "P/L/a.json" in outbox(station), "judged meanwhile")
        assert time.monotonic() - began < 2
        left = "the host reads nothing", "does not answer a linktest", "does not acknowledge"
        wait_until(lambda: any(why in (line_state(station, "secs_gem").get("error") or "") for why in left), "left")
    host = connect(port)
    wait_until(lambda: len(host.verdicts()) == 1, "the next host is told")


def test_a_damaged_file_of_definitions_is_no_end(running: Daemon, port: int, connect: Callable[..., Host]) -> None:
    for damaged in ('{"reports": [[[7, 8], [4001]]]}', '{"reports": 3}', '{"colour": "red"}', "{"):
        (running.station.root / "secs_gem.json").write_text(damaged)
        host = connect(port)
        assert host.value("Ready") is True
        host.disable()
        wait_until(lambda: not line_state(running.station, "secs_gem")["connected"], "it went")


def test_stopping_waits_for_no_host(
    with_hosts: Callable[[str], Station], port: int, connect: Callable[..., Host]
) -> None:
    running = Daemon(with_hosts(settings_of(port).replace("t3_s = 2", "t3_s = 100")))
    running.wait_ready()
    mute = connect(port, ackc6=None)
    drop(running.station, "a")
    wait_until(lambda: mute.asked == 1, "it is told, and says nothing")
    assert running.stop() == 0
    assert running.log_lines("line.died") == [], "it ended by itself"


def test_a_host_that_comes_back_at_once_is_taken(running: Daemon, port: int) -> None:
    told = 4 + 10
    for _ in range(10):
        with raw(port) as peer:
            peer.sendall(SELECT)
            assert len(peer.recv(told, socket.MSG_WAITALL)) == told, "selected at once"
    assert running.log_lines("host.refused") == []


def test_one_host_at_a_time(running: Daemon, port: int, connect: Callable[..., Host]) -> None:
    host = connect(port)
    with raw(port) as second:
        second.sendall(SELECT)
        with suppress(ConnectionResetError):
            assert second.recv(100) == b"", "closed"
    drop(running.station, "a")
    wait_until(lambda: len(host.verdicts()) == 1, "the first host is told")


def test_what_is_not_understood_is_said_so(running: Daemon, port: int) -> None:
    with raw(port) as peer:
        peer.sendall(SELECT)
        answers = []

        def read() -> bytes:
            head = peer.recv(4, socket.MSG_WAITALL)
            return peer.recv(struct.unpack(">L", head)[0], socket.MSG_WAITALL)

        def until_stream_9() -> tuple[int, int]:
            while True:
                said = read()
                if said[5] == 5:
                    peer.sendall(message(6, system=struct.unpack(">L", said[6:10])[0]))
                elif said[2] & 0x7F == 9:
                    return 9, said[3]

        for session, stream, function, body in (
            (9, 1, 1, b""),
            (0, 99, 1, b""),
            (0, 1, 99, b""),
            (0, 2, 41, b"\xff\xff"),
        ):
            peer.sendall(message(0, body, session=session, stream=stream | 0x80, function=function, system=7))
            answers.append(until_stream_9())
        assert answers == [(9, 1), (9, 3), (9, 5), (9, 7)]
