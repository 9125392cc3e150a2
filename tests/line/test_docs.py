"""The examples of docs/line.md, as they stand there, against a station that screens."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from appliance.station import Station
from appliance.verdict_log import VerdictLog
from tests.appliance.running import Daemon, drop, wait_until
from tests.line.conftest import NO_BROKER, Broker, free_port, line_state

TEXT = (Path(__file__).parents[2] / "docs" / "line.md").read_text(encoding="utf-8")


def example(section: str, language: str) -> str:
    """The code of a section of docs/line.md."""
    [part] = [p for p in re.split(r"^## ", TEXT, flags=re.MULTILINE) if p.startswith(section)]
    [code] = re.findall(rf"^```{language}\n(.*?)^```", part, flags=re.MULTILINE | re.DOTALL)
    return str(code)


class Running:
    """An example that runs, and what it prints."""

    def __init__(self, command: list[str], log: Path) -> None:
        self._log = log
        with log.open("wb") as out:
            self.process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT)

    def said(self) -> str:
        return self._log.read_text(errors="replace")


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[list[str]], Running]]:
    started: list[Running] = []

    def run(command: list[str]) -> Running:
        started.append(Running(command, tmp_path / f"example-{len(started)}.log"))
        return started[-1]

    yield run
    for one in started:
        one.process.kill()
        one.process.wait()


def test_every_protocol_has_its_settings_and_they_are_read(
    with_hosts: Callable[[str], Station], tmp_path: Path
) -> None:
    blocks = re.findall(r"^```toml\n(.*?)^```", TEXT, flags=re.MULTILINE | re.DOTALL)
    made = with_hosts("\n".join(re.sub(r"^# (\w+ =)", r"\1", block, flags=re.MULTILINE) for block in blocks))
    assert {"mqtt", "opcua", "stdf", "wafer_map"} <= made.settings.line.protocols.keys()
    assert made.settings.line.opcua is not None
    assert made.settings.line.opcua.username == "mes"
    assert made.settings.line.mqtt is not None
    assert made.settings.line.mqtt.tls


@NO_BROKER
@pytest.mark.skipif(shutil.which("mosquitto_sub") is None, reason="NO MOSQUITTO CLIENT HERE: the examples were not run")
def test_the_examples_are_told_of_a_verdict(
    with_hosts: Callable[[str], Station], broker: Broker, start: Callable[[list[str]], Running]
) -> None:
    ports = {"secs_gem": free_port(), "opcua": free_port()}
    running = Daemon(with_hosts(
        f'[line]\nname = "bay 3"\n[line.mqtt]\nhost = "127.0.0.1"\nport = {broker.port}\n'
        f'[line.secs_gem]\nport = {ports["secs_gem"]}\ncontrol = "remote"\n[line.opcua]\nport = {ports["opcua"]}\n'
    ))  # fmt: skip
    running.wait_ready()
    station = running.station
    wait_until(lambda: (line_state(station, "opcua").get("error") or "").startswith("no host"), "they listen")
    python = [sys.executable, "-u", "-c"]
    secs = start([*python, example("SECS/GEM", "python").replace("port=5000", f"port={ports['secs_gem']}")])
    opcua = start([*python, example("OPC UA", "python").replace("4840", str(ports["opcua"]))])
    command = example("MQTT 5", "sh").strip().replace("-h broker.plant", f"-h 127.0.0.1 -p {broker.port}")
    mqtt = start(["sh", "-c", f"exec {command}"])
    http = start([*python, example("HTTP", "python").replace("http://127.0.0.1:8765", running.url)])
    wait_until(
        lambda: all(line_state(station, name)["connected"] for name in ("mqtt", "secs_gem", "opcua")), "hosts are there"
    )
    drop(station, "shown", folder="IMX1/L7")
    wait_until(lambda: "1 shown.tif PASS" in http.said(), "HTTP: the answer")
    wait_until(lambda: "shown.tif" in secs.said(), "SECS/GEM: the report")
    wait_until(lambda: "1 shown.tif PASS" in opcua.said(), "OPC UA: the event")
    wait_until(lambda: "umbra/bay 3/verdicts/IMX1/L7 {" in mqtt.said(), "MQTT: the message")
    wait_until(
        lambda: all(line_state(station, name)["behind"] == 0 for name in ("mqtt", "secs_gem", "opcua")), "acknowledged"
    )
    with closing(VerdictLog(station.database, readonly=True)) as log:
        assert [(row["product"], row["spec"]) for row in log.table("specs")] == [("IMX1", 0.25)]
    assert running.stop() == 0
