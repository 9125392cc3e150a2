"""`python -m appliance.api.server STATION`: serve one station's API; the address stands in api.json."""

from __future__ import annotations

import gc
import json
import os
import socket
import sys
import threading
import time
from pathlib import Path

import uvicorn

from appliance.api.app import create_app
from appliance.station import Station

ADDRESS_FILE = "api.json"
PARENT_LOOK_S = 1.0


class _Server(uvicorn.Server):
    """Takes its address back when it stops; uvicorn ends by raising the signal anew, so that no `finally` runs."""

    def __init__(self, config: uvicorn.Config, root: Path) -> None:
        super().__init__(config)
        self._root = root

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        _forget_address(self._root)
        await super().shutdown(sockets)


def serve(root: Path, *, as_child: bool = False) -> None:
    """Serve until told to stop.

    Args:
        root: of the station.
        as_child: of a screener: take what it leaves of the processors, so that it never waits (`make queries`), and end with it.
    """
    station = Station.open(root)
    settings = station.settings.api
    app = create_app(station)
    config = uvicorn.Config(
        app, host=settings.host, port=settings.port, log_level="warning", access_log=False,
        timeout_graceful_shutdown=2, server_header=False,
    )  # fmt: skip
    listener = config.bind_socket()
    port = listener.getsockname()[1]
    address = {"url": f"http://{settings.host}:{port}", "pid": os.getpid()}
    temporary = root / f".{ADDRESS_FILE}.tmp"
    temporary.write_text(json.dumps(address), encoding="utf-8")
    temporary.replace(root / ADDRESS_FILE)  # who reads it finds all of it
    server = _Server(config, root)
    gc.freeze()  # what modules and routes made stays, and need not be looked through again and again
    app.state.stopping = lambda: server.should_exit
    if as_child:
        threading.Thread(target=_follow_parent, args=(server, os.getppid()), daemon=True).start()
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    server.run(sockets=[listener])


def _forget_address(root: Path) -> None:
    """An address that nobody listens at is worse than none."""
    path = root / ADDRESS_FILE
    if path.exists() and json.loads(path.read_text(encoding="utf-8"))["pid"] == os.getpid():
        path.unlink()


def _follow_parent(server: uvicorn.Server, parent: int) -> None:
    """A screener that was killed leaves no server behind to hold the port."""
    while os.getppid() == parent:
        time.sleep(PARENT_LOOK_S)
    server.should_exit = True


if __name__ == "__main__":
    serve(Path(sys.argv[1]), as_child=True)
