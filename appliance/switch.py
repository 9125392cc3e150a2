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
        raise BundleError(
            f"{activation['folder']}: holds {chosen.identity}, {activation['identity']} was activated; "
            f"`umbra bundle activate {activation['folder']}` lets the one that is there through the golden gate"
        )


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
        self._unwritten: Row | None = None  # refused, which the log does not say yet

    def poll(self, log: VerdictLog) -> Inspector | None:
        """A new inspector, through the golden gate, once it is there; None else. A bundle that fails changes nothing.

        Raises:
            NotNowError: a refusal cannot be written down for now; the next poll tries again.
        """
        if self._unwritten is not None:
            self._write_down(log, self._unwritten)
        elif self._building is None:
            self._begin(log)
        elif self._building.done():
            return self._built(log)
        return None

    def _begin(self, log: VerdictLog) -> None:
        """Build the engines of an activation that is new."""
        newest = log.activation()
        if newest is not None and newest["id"] != self._handled:
            self._seen, self._refused, self._handled = newest, None, newest["id"]
            self._building = self._pool.submit(self._build, newest)

    def _built(self, log: VerdictLog) -> Inspector | None:
        """What was built; None where it was refused, or another one was activated meanwhile: then that one counts."""
        newest = log.activation()
        building, self._building = self._building, None
        if building is None or self._seen is None:
            return None
        if newest is not None and newest["id"] != self._handled:
            if building.exception() is None:
                building.result().close()
            return None
        try:
            inspector = building.result()
        except (EngineError, OSError) as error:
            self._refused, self._unwritten = str(error), self._seen
            _log.error(events.BUNDLE_REFUSED, reason=self._refused)
            self._write_down(log, self._seen)
            return None
        self._in_use = self._seen
        return inspector

    def _write_down(self, log: VerdictLog, refused: Row) -> None:
        """That a bundle was refused, and that the one in use is the active one again: no screener must begin with a refused one.

        Where another one was activated meanwhile, that one counts, and the next poll builds it.
        """
        if self._in_use is not None:
            identity, folder = self._in_use["identity"], self._in_use["folder"]
        else:
            chosen = self._station.load_bundle()
            identity, folder = chosen.identity, self._station.reference_of(chosen)
        detail = {"activation": refused["id"], "identity": refused["identity"], "reason": self._refused}
        back = log.refuse_bundle(refused["id"], identity, folder, events.BUNDLE_REFUSED, detail)
        if back is not None:
            self._handled = back
        self._unwritten = None

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
