"""A station with hosts, and Debian's mosquitto as one of them."""

from __future__ import annotations

import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from appliance.station import Station
from tests.appliance.running import wait_until

MOSQUITTO = shutil.which("mosquitto") or next((p for p in ("/usr/sbin/mosquitto",) if Path(p).exists()), None)
NO_BROKER = pytest.mark.skipif(MOSQUITTO is None, reason="NO MOSQUITTO HERE: MQTT was not tested")


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
    return port


class Broker:
    """mosquitto with a configuration of its own, started and ended as a test wants it."""

    def __init__(self, folder: Path, extra: str = "") -> None:
        self.port = free_port()
        self._folder = folder
        (folder / "mosquitto.conf").write_text(f"listener {self.port} 127.0.0.1\nallow_anonymous true\n{extra}\n")
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        assert MOSQUITTO is not None
        with (self._folder / "mosquitto.log").open("ab") as log:
            self._process = subprocess.Popen([MOSQUITTO, "-v", "-c", self._folder / "mosquitto.conf"], stderr=log)
        wait_until(self._answers, "the broker answers")

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(10)
            self._process = None

    def _answers(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    folder = tmp_path / "broker"
    folder.mkdir()
    made = Broker(folder)
    made.start()
    yield made
    made.stop()


@pytest.fixture
def with_hosts(tmp_path: Path) -> Callable[[str], Station]:
    """An empty station with a section of settings."""

    def make(settings: str) -> Station:
        root = tmp_path / "bay 3"
        root.mkdir()
        (root / "umbra.toml").write_text(
            f"[watch]\nrescan_s = 0.1\nsettle_s = 0.1\nincomplete_s = 1\n[api]\nport = 0\n[disk]\nlow_bytes = 0\n{settings}\n"
        )
        return Station.open(root, create=True)

    return make


def line_state(station: Station, name: str) -> dict[str, Any]:
    return station.hosts().get(name, {})
