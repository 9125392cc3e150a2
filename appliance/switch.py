"""A bundle that is activated while the screener runs: built and checked beside it, handed over between two frames."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from appliance import log as events
from appliance.station import Station
from appliance.verdict import Row
from appliance.verdict_log import VerdictLog
from engines import Bundle, BundleError, Inspector
from engines.build import build_inspector
from engines.errors import EngineError

_log = events.get()


def check_identity(chosen: Bundle, activation: Row) -> None:
    """Refuse another bundle under the name of the one that was activated.

    Raises:
        BundleError: the folder holds another one now.
    """
    if chosen.identity != activation["identity"]:
        raise BundleError(f"{activation['folder']}: holds {chosen.identity}, {activation['identity']} was activated")


class BundleSwitch:
    """Follows the activations in the log; for the screener's thread.

    Args:
        station: whose engines are built.
        active: the activation in use, or None where there was none yet.
    """

    def __init__(self, station: Station, active: Row | None) -> None:
        self._station = station
        self._seen: Row | None = active
        self._in_use: Row | None = active
        self._handled = active["id"] if active else None
        self._building: Future[Inspector] | None = None
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="build")
        self._refused: str | None = None

    def poll(self, log: VerdictLog) -> Inspector | None:
        """A new inspector, through the golden gate, once it is there; None else. A bundle that fails changes nothing."""
        if self._building is None:
            newest = log.activation()
            if newest is None or newest["id"] == self._handled:
                return None
            self._seen, self._refused, self._handled = newest, None, newest["id"]
            self._building = self._pool.submit(self._build, newest)
            return None
        if not self._building.done():
            return None
        building, self._building = self._building, None
        newest = log.activation()
        if newest is not None and newest["id"] != self._handled:
            if building.exception() is None:
                building.result().close()
            return None  # another one was activated meanwhile: that one counts
        try:
            inspector = building.result()
        except (EngineError, OSError) as error:
            self._refused = str(error)
            log.add_event(events.BUNDLE_REFUSED, reason=self._refused)
            _log.error(events.BUNDLE_REFUSED, reason=self._refused)
            self._handled = self._go_back(log)
            return None
        self._in_use = self._seen
        return inspector

    def _go_back(self, log: VerdictLog) -> int | None:
        """Write down that the bundle in use is the active one again: the next screener must not begin with a refused one."""
        if self._in_use is not None:
            identity, folder = self._in_use["identity"], self._in_use["folder"]
        else:
            chosen = self._station.load_bundle()
            identity, folder = chosen.identity, self._station.reference_of(chosen)
        return log.add_bundle(identity, folder, who="the screener: the one before was refused")

    def _build(self, activation: Row) -> Inspector:
        chosen = self._station.load_bundle(activation["folder"])
        check_identity(chosen, activation)
        return build_inspector(chosen, self._station.engine, cache=self._station.engines)

    def state(self) -> dict[str, Any]:
        """The activation last seen: its number, whether its engines are being built, and why it was refused."""
        return {
            "id": self._seen["id"] if self._seen else None,
            "building": self._building is not None,
            "refused": self._refused,
        }

    def close(self) -> None:
        """Wait for a build in progress."""
        self._pool.shutdown(wait=True, cancel_futures=True)
