"""Child processes of the screener, the API and the line: started, watched, started again with growing pauses."""

from __future__ import annotations

import os
import subprocess
import sys
import time

from appliance import log as events
from appliance.station import Station

FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 60.0
STOP_S = 5.0

_log = events.get()


class Child:
    """Runs `python -m MODULE STATION`; its death never reaches the screener.

    Args:
        station: whose.
        module: to run.
        started, died: names of the events that tell of it.
    """

    def __init__(self, station: Station, module: str, *, started: str, died: str) -> None:
        self._station, self._module, self._started, self._died = station, module, started, died
        self._process: subprocess.Popen[bytes] | None = None
        self._pause_s = FIRST_PAUSE_S
        self._again_at = 0.0
        self._started_at = 0.0

    @property
    def pid(self) -> int | None:
        """Process number while it runs."""
        return self._process.pid if self._process and self._process.poll() is None else None

    def start(self) -> None:
        """Start the process and return at once."""
        command = [sys.executable, "-P", "-m", self._module, str(self._station.root), str(os.getpid())]
        self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL)  # noqa: S603  (our own module)
        self._started_at = time.monotonic()
        _log.info(self._started, pid=self._process.pid)

    def keep_alive(self) -> None:
        """Start the process again if it died and its pause is over."""
        now = time.monotonic()
        if self._process is not None and (code := self._process.poll()) is not None:
            if now - self._started_at > LONGEST_PAUSE_S:
                self._pause_s = FIRST_PAUSE_S
            _log.error(self._died, exit=code, again_in_s=self._pause_s)
            self._process, self._again_at = None, now + self._pause_s
            self._pause_s = min(LONGEST_PAUSE_S, 2 * self._pause_s)
        if self._process is None and now >= self._again_at:
            try:
                self.start()
            except OSError as error:  # no process or memory to be had: later
                self._again_at = now + LONGEST_PAUSE_S
                _log.error(self._died, reason=str(error), again_in_s=LONGEST_PAUSE_S)

    def stop(self) -> None:
        """End the process: first asked, then killed."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            _log.error(self._died, reason=f"it did not end within {STOP_S:g} s, and was killed")
            self._process.kill()
            self._process.wait()


def children_of(station: Station) -> list[Child]:
    """The API, and where umbra.toml names a host, the line."""
    made = [Child(station, "appliance.api.server", started=events.API_STARTED, died=events.API_DIED)]
    if station.settings.line.has_hosts:
        made.append(Child(station, "appliance.line.server", started=events.LINE_STARTED, died=events.LINE_DIED))
    return made
