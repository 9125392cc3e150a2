"""MQTT 5 with a real broker: every verdict in order once acknowledged, state and last will, brokers that go, stall and refuse."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from appliance.station import Station
from appliance.verdict import document
from appliance.verdict_log import VerdictLog
from tests.appliance.running import Daemon, drop, outbox, wait_until
from tests.appliance.test_cli import umbra
from tests.line.conftest import NO_BROKER, Broker, free_port, line_state

pytestmark = NO_BROKER
STATE = "umbra/bay 3/state"


class Host:
    """A host of the line: an MQTT client of another make, that keeps all it is told."""

    def __init__(self, port: int) -> None:
        self.told: list[paho.MQTTMessage] = []
        self._client = paho.Client(CallbackAPIVersion.VERSION2, client_id="host", protocol=paho.MQTTv5)
        self._client.on_message = lambda _c, _u, message: self.told.append(message)
        self._client.on_connect = lambda client, *_: client.subscribe("umbra/#", qos=1)
        subscribed = threading.Event()
        self._client.on_subscribe = lambda *_: subscribed.set()
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()
        assert subscribed.wait(30)

    def verdicts(self) -> list[dict[str, Any]]:
        """In the order in which they came, each once."""
        found = [json.loads(m.payload) for m in self.told if "/verdicts/" in m.topic]
        return list({told["seq"]: told for told in found}.values())

    def state(self) -> dict[str, Any]:
        states = [json.loads(m.payload) for m in self.told if m.topic == STATE]
        newest: dict[str, Any] = states[-1] if states else {}
        return newest

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


@pytest.fixture
def host(broker: Broker) -> Iterator[Host]:
    made = Host(broker.port)
    yield made
    made.close()


@pytest.fixture
def running(with_hosts: Callable[[str], Station], broker: Broker) -> Iterator[Daemon]:
    started = Daemon(
        with_hosts(
            f'[line]\nname = "bay 3"\n[line.mqtt]\nhost = "127.0.0.1"\nport = {broker.port}\nkeepalive_s = 5\ntimeout_s = 2'
        )
    )
    started.wait_ready()
    wait_until(lambda: line_state(started.station, "mqtt").get("connected"), "the broker is told")
    yield started
    assert started.stop() == 0


def line_pid(daemon: Daemon) -> int:
    found = subprocess.run(["pgrep", "-P", str(daemon.process.pid), "-f", "appliance.line.server"], capture_output=True,
                           text=True, check=True)  # fmt: skip
    return int(found.stdout)


def test_every_verdict_in_order_as_the_log_has_it(running: Daemon, host: Host) -> None:
    station = running.station
    for number in range(4):
        drop(station, f"f{number}", seed=number, folder="IMX #1+/L 7")
    wait_until(lambda: len(host.verdicts()) == 4, "four verdicts")
    with closing(VerdictLog(station.database, readonly=True)) as log:
        assert host.verdicts() == [document(row) for row in log.verdicts()]
    first = next(m for m in host.told if "/verdicts/" in m.topic)
    assert first.topic == "umbra/bay 3/verdicts/IMX %231%2B/L 7"
    properties: Any = first.properties
    assert (first.qos, properties.ContentType, properties.UserProperty) == (1, "application/json", [("seq", "1")])
    wait_until(lambda: line_state(station, "mqtt").get("behind") == 0, "it is told that all went")
    assert httpx.get(f"{running.url}/v1/status").json()["hosts"]["mqtt"]["connected"] is True
    assert "Host by mqtt" in httpx.get(f"{running.url}/").text


def test_the_state_is_retained_and_the_last_will_tells_of_a_death(running: Daemon, broker: Broker) -> None:
    late = Host(broker.port)
    wait_until(lambda: late.state().get("ready"), "the retained state")
    assert late.state()["online"] is True
    os.kill(line_pid(running), signal.SIGKILL)
    wait_until(lambda: late.state() == {"online": False}, "the last will")
    wait_until(lambda: late.state().get("online"), "a new process of the line")
    late.close()


def test_a_broker_that_was_away_gets_everything_in_order(running: Daemon, broker: Broker) -> None:
    station = running.station
    broker.stop()
    for number in range(3):
        drop(station, f"f{number}", seed=number)
    wait_until(lambda: len(outbox(station)) == 3, "verdicts all the same")
    wait_until(lambda: line_state(station, "mqtt").get("behind") == 3, "it is told what waits")
    assert line_state(station, "mqtt")["error"]
    line = line_pid(running)
    os.kill(line, signal.SIGSTOP)  # or it tells a broker that has no other host yet
    broker.start()
    back = Host(broker.port)
    os.kill(line, signal.SIGCONT)
    wait_until(lambda: len(back.verdicts()) == 3, "what waited")
    assert [v["seq"] for v in back.verdicts()] == [1, 2, 3]
    back.close()


def test_what_waits_survives_the_station(running: Daemon, broker: Broker) -> None:
    station = running.station
    broker.stop()
    drop(station, "a")
    wait_until(lambda: outbox(station), "a verdict")
    line = line_pid(running)
    running.kill()
    os.kill(line, signal.SIGKILL)  # it would outlive the station by a second, and tell
    broker.start()
    back = Host(broker.port)
    again = Daemon(station)
    again.wait_ready()
    wait_until(lambda: len(back.verdicts()) == 1, "the verdict of the station before")
    assert again.stop() == 0
    back.close()
    running.process = again.process


def test_a_broker_that_stalls_or_talks_nonsense_slows_nobody(with_hosts: Callable[[str], Station]) -> None:
    port = free_port()
    heard: list[bytes] = []

    def stall(listener: socket.socket) -> None:
        while True:
            try:
                peer, _ = listener.accept()
            except OSError:
                return
            heard.append(peer.recv(64))
            peer.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n" if len(heard) % 2 else b"")
            kept.append(peer)

    kept: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", port)) as listener:
        threading.Thread(target=stall, args=(listener,), daemon=True).start()
        running = Daemon(
            with_hosts(f'[line]\nname = "bay 3"\n[line.mqtt]\nhost = "127.0.0.1"\nport = {port}\ntimeout_s = 1')
        )
        running.wait_ready()
        wait_until(lambda: len(heard) >= 2, "it tried both")
        began = time.monotonic()
        for number in range(5):
            drop(running.station, f"f{number}", seed=number)
        wait_until(lambda: len(outbox(running.station)) == 5, "verdicts all the same", seconds=20)
        assert time.monotonic() - began < 20
        wait_until(lambda: line_state(running.station, "mqtt").get("behind") == 5, "it is told what waits")
        assert running.stop() == 0
    for peer in kept:
        peer.close()


def test_what_the_broker_refuses_stays_and_is_told(with_hosts: Callable[[str], Station], tmp_path: Path) -> None:
    folder = tmp_path / "strict"
    folder.mkdir()
    (folder / "acl").write_text(f"topic write {STATE}\ntopic read #\n")
    (folder / "acl").chmod(0o700)
    strict = Broker(folder, f"acl_file {folder / 'acl'}\nuser root")
    strict.start()
    running = Daemon(with_hosts(f'[line]\nname = "bay 3"\n[line.mqtt]\nhost = "127.0.0.1"\nport = {strict.port}'))
    running.wait_ready()
    drop(running.station, "a")
    wait_until(lambda: "refuses" in (line_state(running.station, "mqtt").get("error") or ""), "why nothing goes")
    assert line_state(running.station, "mqtt")["behind"] == 1
    told = Host(strict.port)
    wait_until(lambda: told.state() == {"online": False}, "the farewell of one that is not told")
    told.close()
    assert running.stop() == 0
    strict.stop()


def test_a_broker_that_was_away_while_nothing_happened_is_found_again(running: Daemon, broker: Broker) -> None:
    broker.stop()
    wait_until(lambda: not line_state(running.station, "mqtt")["connected"], "it is told that the broker is gone")
    broker.start()
    wait_until(lambda: line_state(running.station, "mqtt")["connected"], "it is there again")
    late = Host(broker.port)
    wait_until(lambda: late.state().get("ready"), "the state, though no frame came")
    assert late.state()["online"] is True
    assert late.verdicts() == []
    late.close()


def test_a_station_that_is_stopped_says_goodbye(running: Daemon, host: Host) -> None:
    wait_until(lambda: host.state().get("online"), "the state")
    for number in range(5):
        drop(running.station, f"f{number}", seed=number)
    wait_until(host.verdicts, "a verdict")
    assert running.stop() == 0
    wait_until(lambda: host.state() == {"online": False}, "the farewell")


def test_a_restored_log_is_told_from(running: Daemon, host: Host, tmp_path: Path) -> None:
    """The line's process lives on beside a screener that is stopped for it, as on an installed station."""
    station = running.station
    drop(station, "a", seed=1)
    wait_until(lambda: len(host.verdicts()) == 1, "a verdict")
    running.stop()
    line = subprocess.Popen([sys.executable, "-m", "appliance.cli", "line", "--station", str(station.root)])
    wait_until(lambda: line_state(station, "mqtt").get("connected"), "the line alone")
    umbra("backup", str(tmp_path / "backup"), "--station", station.root)
    umbra("restore", str(tmp_path / "backup"), "--station", station.root, "--again")
    again = Daemon(station, api=False)
    drop(station, "b", seed=2)
    wait_until(lambda: [v["frame"] for v in host.verdicts()] == ["a.tif", "b.tif"], "a verdict of the new log")
    assert again.stop() == 0
    line.terminate()
    assert line.wait(20) == 0
    running.process = again.process
