"""OPC UA with a real client: nodes, events acknowledged in order, methods, security, and hosts that never answer."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import pytest
from asyncua import Client, ua

from appliance.line.fields import VERDICT_FIELDS
from appliance.line.opcua import NAMESPACE
from appliance.station import Station
from appliance.verdict import document
from appliance.verdict_log import VerdictLog
from tests.appliance.running import DEADLINE_S, Daemon, drop, outbox, wait_until
from tests.line.conftest import free_port, line_state
from tests.line.test_docs import example


class Host:
    """A host of the line: an OPC UA client that takes events, and acknowledges them where it is told to."""

    def __init__(self, client: Any, index: int, *, acknowledges: bool) -> None:
        self.client, self._index, self._acknowledges = client, index, acknowledges
        self.told: list[Any] = []
        self._tasks: set[asyncio.Task[None]] = set()

    def node(self, path: str) -> Any:
        return self.client.get_node(ua.NodeId(path, self._index))

    async def value(self, path: str) -> Any:
        return await self.node(path).read_value()

    async def call(self, name: str, *values: Any) -> Any:
        return await self.node("Results").call_method(self.node(f"Results.{name}"), *values)

    async def listen(self) -> None:
        subscription = await self.client.create_subscription(50, self)
        kind = await self.client.nodes.base_event_type.get_child([f"{self._index}:VerdictEventType"])
        await subscription.subscribe_events(self.client.nodes.server, kind)

    def event_notification(self, event: Any) -> None:
        self.told.append(event)
        if self._acknowledges:
            task = asyncio.create_task(self.call("AcknowledgeResults", ua.Variant(event.Seq, ua.VariantType.UInt64)))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def seqs(self) -> list[int]:
        """In the order in which they came, each once."""
        return list(dict.fromkeys(event.Seq for event in self.told))

    async def until(self, condition: Callable[[], bool], what: str) -> None:
        end = time.monotonic() + DEADLINE_S
        while not condition():
            assert time.monotonic() < end, what
            await asyncio.sleep(0.02)


@asynccontextmanager
async def connected(port: int, *, acknowledges: bool = True, prepare: Callable[[Any], Any] | None = None):  # type: ignore[no-untyped-def]
    client = Client(f"opc.tcp://127.0.0.1:{port}/umbra")
    if prepare is not None:
        await prepare(client)
    async with client:
        index = await client.get_namespace_index(NAMESPACE)
        yield Host(client, index, acknowledges=acknowledges)


def settings_of(port: int, extra: str = "") -> str:
    return f'[line]\nname = "bay 3"\n[line.opcua]\nport = {port}\nagain_s = 1\n{extra}'


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def running(with_hosts: Callable[[str], Station], port: int) -> Iterator[Daemon]:
    started = Daemon(with_hosts(settings_of(port)))
    started.wait_ready()
    wait_until(lambda: line_state(started.station, "opcua").get("error") == "no host is connected", "it listens")
    yield started
    assert started.stop() == 0


def rows_of(station: Station) -> list[dict[str, Any]]:
    with closing(VerdictLog(station.database, readonly=True)) as log:
        return [document(row) for row in log.verdicts()]


def test_events_in_order_and_nodes_as_the_log_has_it(running: Daemon, port: int) -> None:
    station = running.station

    async def host() -> None:
        async with connected(port) as at:
            await at.listen()
            for number in range(3):
                drop(station, f"f{number}_W2_X{number}_Y-4", seed=number, folder="IMX Ä/L 7")
            await at.until(lambda: len(at.seqs()) == 3, "three events")
            (station.inbox / "IMX Ä" / "L 7" / "broken.tif").write_bytes(b"no picture")
            await at.until(lambda: len(at.seqs()) == 4, "and that of a file that is no picture")
            rows = rows_of(station)
            for event, row in zip(at.told, rows, strict=True):
                for one in VERDICT_FIELDS:
                    assert getattr(event, one.name) == one.read(row), one.name
                assert event.SourceName == "bay 3"
            assert at.told[-1].Score is None, "not measured is no 0"
            assert [event.Previous for event in at.told] == [0, 1, 2, 3]
            assert (at.told[0].Product, at.told[0].DieY) == ("IMX Ä", -4)
            while await at.value("Results.Acknowledged") != 4 or await at.value(
                "Results.Latest.Document"
            ) != json.dumps(rows[-1], ensure_ascii=False):
                await asyncio.sleep(0.05)
            score = await at.node("Results.Latest.Score").read_data_value(raise_on_bad_status=False)
            assert (score.Value.Value, score.StatusCode.name) == (None, "GoodNoData")
            assert await at.value("State.Ready") is True
            assert (await at.value("State.ActiveBundle")).startswith("starter@")
            assert await at.value("Results.Waiting") == 0
            station_node = at.node("Station")
            assert (await station_node.read_browse_name()).Name == "bay 3"
            with pytest.raises(ua.UaStatusCodeError):
                await at.node("State.Ready").write_value(False)

    asyncio.run(host())
    wait_until(lambda: line_state(station, "opcua").get("behind") == 0, "all went")


def test_what_is_not_acknowledged_comes_again_and_what_waited_in_order(running: Daemon, port: int) -> None:
    station = running.station
    for number in range(30):
        drop(station, f"f{number:02}", seed=number)
    wait_until(lambda: len(outbox(station)) == 30, "judged while nobody was there")
    assert line_state(station, "opcua")["error"] == "no host is connected"

    async def hosts() -> None:
        async with connected(port, acknowledges=False) as deaf:
            await deaf.listen()
            await deaf.until(lambda: len(deaf.told) > len(deaf.seqs()) >= 10, "the first ones again and again")
            assert deaf.seqs() == list(range(1, len(deaf.seqs()) + 1))
            assert len(deaf.seqs()) < 30, "not all at once"
            with pytest.raises(ua.uaerrors.BadOutOfRange):
                await deaf.call("AcknowledgeResults", ua.Variant(30, ua.VariantType.UInt64))
            for wrong in (
                ua.Variant(3.0, ua.VariantType.Double),
                ua.Variant("3"),
                ua.Variant(-1, ua.VariantType.Int64),
            ):
                with pytest.raises(ua.uaerrors.BadInvalidArgument):
                    await deaf.call("AcknowledgeResults", wrong)
            await deaf.call("AcknowledgeResults", ua.Variant(3, ua.VariantType.UInt64))
        async with connected(port) as at:
            await at.listen()
            await at.until(lambda: at.seqs() == list(range(4, 31)), "the rest, in order")

    asyncio.run(hosts())
    wait_until(lambda: line_state(station, "opcua")["cursor"] == 30, "acknowledged")


def test_a_filter_that_the_server_falls_over_costs_that_host_alone(running: Daemon, port: int) -> None:
    station = running.station

    async def hosts() -> None:
        async with connected(port) as odd, connected(port) as at:
            subscription = await odd.client.create_subscription(0.001, odd)
            clause = ua.SimpleAttributeOperand(
                TypeDefinitionId=ua.NodeId(ua.ObjectIds.BaseEventType), AttributeId=ua.AttributeIds.Value,
                BrowsePath=[ua.QualifiedName("data_types", 0)],
            )  # fmt: skip
            await subscription._subscribe(
                odd.client.nodes.server, ua.AttributeIds.EventNotifier, ua.EventFilter(SelectClauses=[clause])
            )
            await at.listen()
            drop(station, "a")
            await at.until(lambda: at.seqs() == [1], "the other host is told")

    asyncio.run(hosts())
    assert running.log_lines("host.lost") == []


def test_a_host_without_events_asks_for_the_next_ones(running: Daemon, port: int) -> None:
    station = running.station
    for number in range(3):
        drop(station, f"f{number}", seed=number)
    wait_until(lambda: len(outbox(station)) == 3, "judged")

    async def host() -> None:
        async with connected(port) as at:
            two = await at.call("NextResults", ua.Variant(2, ua.VariantType.UInt32))
            assert [json.loads(told) for told in two] == rows_of(station)[:2]
            assert await at.call("NextResults", ua.Variant(2, ua.VariantType.UInt32)) == two, (
                "until they are acknowledged"
            )
            await at.call("AcknowledgeResults", ua.Variant(2, ua.VariantType.UInt64))
            [last] = await at.call("NextResults", ua.Variant(100, ua.VariantType.UInt32))
            assert json.loads(last)["seq"] == 3
            await at.call("AcknowledgeResults", ua.Variant(3, ua.VariantType.UInt64))
            assert await at.call("NextResults", ua.Variant(100, ua.VariantType.UInt32)) == []

    asyncio.run(host())


def test_a_host_that_subscribes_and_then_stalls_slows_nobody(running: Daemon, port: int, tmp_path: Path) -> None:
    station = running.station
    script = example("OPC UA", "python").replace("4840", str(port))
    with (tmp_path / "stalled.log").open("wb") as log:
        stalled = subprocess.Popen([sys.executable, "-u", "-c", script], stdout=log, stderr=subprocess.STDOUT)
    try:
        drop(station, "first")
        wait_until(lambda: b"1 first.tif" in (tmp_path / "stalled.log").read_bytes(), "it listens")
        stalled.send_signal(signal.SIGSTOP)
        began = time.monotonic()
        for number in range(5):
            drop(station, f"f{number}", seed=number)
        wait_until(lambda: len(outbox(station)) == 6, "judged meanwhile")
        assert time.monotonic() - began < 3

        async def host() -> None:
            async with connected(port) as at:
                await at.listen()
                await at.until(lambda: at.seqs()[-5:] == [2, 3, 4, 5, 6], "another host is told")

        asyncio.run(host())
    finally:
        stalled.kill()
        stalled.wait()


def test_peers_that_talk_nonsense_or_nothing_slow_nobody(running: Daemon, port: int) -> None:
    station = running.station
    peers = []
    for number, said in enumerate(
        (b"", b"GET / HTTP/1.1\r\n\r\n", b"HELF\xff\xff\xff\x7f" + b"\0" * 100, b"\0" * 4096)
    ):
        peer = socket.create_connection(("127.0.0.1", port), timeout=30)
        peer.sendall(said)
        peers.append(peer)
        began = time.monotonic()
        drop(station, f"f{number}", seed=number)
        wait_until(lambda n=number: len(outbox(station)) == n + 1, "judged meanwhile")  # type: ignore[misc]
        assert time.monotonic() - began < 2

    async def host() -> None:
        async with connected(port) as at:
            await at.listen()
            await at.until(lambda: at.seqs() == [1, 2, 3, 4], "a host is told all the same")

    asyncio.run(host())
    for peer in peers:
        peer.close()


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A folder with certificates and keys of the server and of a client."""
    from asyncua.crypto.cert_gen import setup_self_signed_certificate
    from cryptography.x509.oid import ExtendedKeyUsageOID

    async def make() -> None:
        for name, use in (("server", ExtendedKeyUsageOID.SERVER_AUTH), ("client", ExtendedKeyUsageOID.CLIENT_AUTH)):
            await setup_self_signed_certificate(
                tmp_path / f"{name}.pem", tmp_path / f"{name}.der", f"urn:umbra:{name}", "localhost", [use], {}
            )

    asyncio.run(make())
    return tmp_path


def test_only_who_knows_the_password_gets_in_and_encrypted(
    with_hosts: Callable[[str], Station], port: int, certificate: Path
) -> None:
    (certificate / "password").write_text("sesame\n")
    station = with_hosts(settings_of(port, f'''application_uri = "urn:umbra:server"
username = "mes"
password_file = "{certificate}/password"
certificate = "{certificate}/server.der"
private_key = "{certificate}/server.pem"
'''))  # fmt: skip
    running = Daemon(station)
    running.wait_ready()
    wait_until(lambda: line_state(station, "opcua").get("error") == "no host is connected", "it listens")

    def as_user(name: str | None, password: str | None, *, encrypted: bool = True) -> Callable[[Any], Any]:
        async def prepare(client: Any) -> None:
            client.application_uri = "urn:umbra:client"
            if name is not None:
                client.set_user(name)
                client.set_password(password)
            if encrypted:
                await client.set_security_string(
                    f"Basic256Sha256,SignAndEncrypt,{certificate}/client.der,{certificate}/client.pem,{certificate}/server.der"
                )

        return prepare

    async def host() -> None:
        for name, password, encrypted in (
            ("mes", "open", True),
            ("eve", "sesame", True),
            (None, None, True),
            ("mes", "sesame", False),
        ):
            with pytest.raises((ua.UaError, ConnectionError, asyncio.TimeoutError)):
                async with connected(port, prepare=as_user(name, password, encrypted=encrypted)):
                    pass
        async with connected(port, prepare=as_user("mes", "sesame")) as at:
            assert await at.value("State.Ready") is True

    asyncio.run(host())
    assert running.stop() == 0
