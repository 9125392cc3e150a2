"""The API as a child process of the screener: started, watched, started again with growing pauses."""

from __future__ import annotations

import subprocess
import sys
import time

from appliance import log as events
from appliance.station import Station

FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 60.0
STOP_S = 5.0

_log = events.get()


class ApiProcess:
    """Runs `python -m appliance.api.server STATION`; its death never reaches the screener."""

    def __init__(self, station: Station) -> None:
        self._station = station
        self._process: subprocess.Popen[bytes] | None = None
        self._pause_s = FIRST_PAUSE_S
        self._again_at = 0.0
        self._started_at = 0.0

    @property
    def pid(self) -> int | None:
        """Process number while it runs."""
        return self._process.pid if self._process and self._process.poll() is None else None

    def start(self) -> None:
        """Start the server and return at once."""
        command = [sys.executable, "-P", "-m", "appliance.api.server", str(self._station.root)]
        self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL)  # noqa: S603  (our own module)
        self._started_at = time.monotonic()
        _log.info(events.API_STARTED, pid=self._process.pid)

    def keep_alive(self) -> None:
        """Start the server again if it died and its pause is over."""
        now = time.monotonic()
        if self._process is not None and (code := self._process.poll()) is not None:
            if now - self._started_at > LONGEST_PAUSE_S:
                self._pause_s = FIRST_PAUSE_S
            _log.error(events.API_DIED, exit=code, again_in_s=self._pause_s)
            self._process, self._again_at = None, now + self._pause_s
            self._pause_s = min(LONGEST_PAUSE_S, 2 * self._pause_s)
        if self._process is None and now >= self._again_at:
            try:
                self.start()
            except OSError as error:  # no process or memory to be had: later
                self._again_at = now + LONGEST_PAUSE_S
                _log.error(events.API_DIED, reason=str(error), again_in_s=LONGEST_PAUSE_S)

    def stop(self) -> None:
        """End the server: first asked, then killed."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
