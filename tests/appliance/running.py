"""A real daemon in a process of its own, as the tests start, ask and kill it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from appliance.formats import write_frame
from appliance.station import Station
from tests.conftest import dark

DEADLINE_S = 60.0


def wait_until(condition: Callable[[], object], what: str, *, seconds: float = DEADLINE_S) -> None:
    """Look until a condition holds; fail with `what` at the deadline."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise AssertionError(f"not within {seconds} s: {what}")
        time.sleep(0.02)


@contextmanager
def api_of(station: Station, *, command: Sequence[str | Path] = ()) -> Iterator[httpx.Client]:
    """The API alone, in a process of its own, and a client that asks it.

    Args:
        station: whose.
        command: what starts it; default: as the screener does.
    """
    address = station.root / "api.json"
    address.unlink(missing_ok=True)
    server = subprocess.Popen(command or [sys.executable, "-m", "appliance.api.server", str(station.root)])
    try:
        with httpx.Client(base_url=_url_of(station), timeout=30) as client:
            yield client
    finally:
        server.terminate()
        server.wait()


def _url_of(station: Station) -> str:
    """The address of a station's API, once it answers there."""
    address = station.root / "api.json"
    wait_until(address.exists, "the API wrote its address")
    url: str = json.loads(address.read_text())["url"]

    def answers() -> bool:
        try:
            return httpx.get(f"{url}/livez").status_code == 200
        except httpx.TransportError:
            return False

    wait_until(answers, "the API answers")
    return url


class Daemon:
    """`umbra run` on a station.

    Args:
        station: whose.
        api: with the HTTP server.
        bundle: instead of the active one.
        environment: beside ours.
        prefix: a command that starts it.
        log: where standard error goes; default: test.log in the station.
    """

    def __init__(
        self, station: Station, *, api: bool = True, bundle: str | None = None,
        environment: Mapping[str, str] | None = None, prefix: Sequence[str] = (), log: Path | None = None,
    ) -> None:  # fmt: skip
        self.station = station
        self.log = log or station.root / "test.log"
        (station.root / "api.json").unlink(missing_ok=True)
        command = [sys.executable, "-m", "appliance.cli", "run", "--station", str(station.root)]
        options = [*([] if api else ["--no-api"]), *([] if bundle is None else ["--bundle", bundle])]
        surroundings = None if environment is None else os.environ | dict(environment)
        with self.log.open("ab") as stderr:
            self.process = subprocess.Popen([*prefix, *command, *options], stderr=stderr, env=surroundings)

    def wait_ready(self) -> None:
        def ready() -> bool:
            if self.process.poll() is not None:
                raise AssertionError(f"the daemon ended: {self.log.read_text()[-3000:]}")
            state = self.station.read_state()
            return bool(state and state["ready"])

        wait_until(ready, "the screener is ready")

    @property
    def url(self) -> str:
        return _url_of(self.station)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def wait_ended(self) -> int:
        return self.process.wait(DEADLINE_S)

    def stop(self) -> int:
        if self.process.poll() is None:
            self.process.terminate()
        return self.process.wait(30)

    def log_lines(self, event: str) -> list[dict[str, Any]]:
        lines = self.log.read_text().splitlines()
        found = [json.loads(line) for line in lines if line.startswith('{"')]
        return [line for line in found if line["event"] == event]


def drop(station: Station, name: str, *, seed: int = 0, folder: str = "P/L", format_name: str = "tiff") -> Path:
    """Put a frame in the inbox as a careful tester does: written aside, then renamed."""
    scratch = station.root / "scratch"
    made = write_frame(scratch, name, dark(seed=seed), bits=8, format_name=format_name)
    target = station.inbox / folder / made.name
    target.parent.mkdir(parents=True, exist_ok=True)
    made.rename(target)
    return target


def outbox(station: Station) -> dict[str, dict[str, Any]]:
    """All verdict files by their path below the outbox."""
    files = sorted(station.outbox.rglob("*.json"))
    return {p.relative_to(station.outbox).as_posix(): json.loads(p.read_text()) for p in files}
