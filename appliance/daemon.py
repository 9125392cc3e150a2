"""`umbra run`: everything a station's screener wants, in order, until it is told to stop."""

from __future__ import annotations

import logging
import signal
import sqlite3
import time
from collections.abc import Sequence

from appliance import log as events
from appliance.black_box import BlackBox, Crash
from appliance.children import Child, children_of
from appliance.images import ImageStore
from appliance.journal import Journal
from appliance.pipeline import Line
from appliance.screener import PAUSE_S, Screener, Stop
from appliance.station import Station, StationLock
from appliance.switch import BundleSwitch, check_identity
from appliance.verdict import now_utc
from appliance.verdict_log import VerdictLog
from appliance.writers import keep_capabilities_from_children
from engines import EngineError, Target, gpu_state
from engines.build import build_inspector

LOOK_FOR_DAMAGE_S = 1.0
PICTURE_WAIT_S = 0.05  # while retention works on the pictures; a verdict never waits for one

_log = events.get()


def _open_images(station: Station) -> ImageStore | None:
    """The picture store; without it screening goes on."""
    if not station.settings.disk.keep_images:
        return None
    try:
        return ImageStore(station.images, wait_s=PICTURE_WAIT_S)
    except sqlite3.Error as error:
        _log.error(events.PICTURES_LOST, reason=f"{station.images}: {error}; delete it and start again")
        return None


def _say_not_ready(station: Station, reason: str) -> None:
    """What was said before stays: a log that is lost is restored with numbers above `last_seq`."""
    before = {name: value for name, value in (station.read_state() or {}).items() if name != "pid"}
    try:
        station.write_state(before | {"at": now_utc(), "ready": False, "reasons": [reason]})
    except OSError as error:
        _log.error(events.EVENT_LOST, kind="state", reason=str(error))


def _say_why_no_gpu(station: Station) -> None:
    """Where packages for a GPU are installed and the CPU is used: why."""
    if station.engine.target is Target.OPENVINO and gpu_state.packages_present():
        why = gpu_state.without_importing() or "umbra.toml says engine.target = openvino"
        _log.info(events.GPU_OFF, reason=why)


def _wait(station: Station, reason: str, stop: Stop, *, seconds: float) -> None:
    """Say why nothing is screened, and wait, unless asked to stop."""
    end = time.monotonic() + seconds
    said = 0.0
    while not stop.asked and (now := time.monotonic()) < end:
        if now >= said:
            _say_not_ready(station, reason)
            said = now + 1.0
        time.sleep(PAUSE_S)


def _wait_for_room(station: Station, stop: Stop) -> None:
    """A log on a full disk can neither be opened nor trusted: wait until there is room."""
    mark, told = station.settings.disk.stop_bytes, False
    while not stop.asked and (free := station.free_bytes()) < mark:
        reason = f"disk: {free} bytes free, {mark} wanted to start"
        if not told:
            _log.error(events.DISK_FULL, reason=reason)
            told = True
        _wait(station, reason, stop, seconds=1.0)


def _blame(crash: Crash, journal: Journal) -> None:
    """Tell how the screener before died; the frames it had in hand are suspects."""
    journal.note(events.CRASHED, level=logging.ERROR, how=crash.how[:4000])
    for path, sha256 in crash.in_hand:
        journal.note(events.SUSPECT, path=path, sha256=sha256, how=crash.what)


def run_station(station: Station, *, bundle: str | None = None, with_api: bool = True) -> None:
    """Screen until SIGTERM or SIGINT. What kills the process is found by the next one, which waits longer each time.

    Raises:
        RefusedError, EngineError: the station, bundle or engines are not fit for use.
        OutOfServiceError: the disk is gone.
    """
    keep_capabilities_from_children()
    stop = Stop()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    lock = StationLock(station)
    children = children_of(station) if with_api else []
    try:
        for child in children:
            child.start()
        _wait_for_room(station, stop)
        with BlackBox(station) as black_box:
            if black_box.pause_s:
                reason = f"the screener died {black_box.recent} times of late: it waits {black_box.pause_s:g} s"
                _log.error(events.BACKING_OFF, reason=reason)
                _wait(station, reason, stop, seconds=black_box.pause_s)
            if not stop.asked:
                _run(station, bundle, children, black_box, stop)
    finally:
        for child in children:
            child.stop()
        lock.release()


def _run(station: Station, bundle: str | None, children: Sequence[Child], black_box: BlackBox, stop: Stop) -> None:
    """Open the log, build the engines, screen."""
    _say_not_ready(station, "engines are being built")
    log = VerdictLog(station.database)
    log.check(seconds=LOOK_FOR_DAMAGE_S)
    images = _open_images(station)
    try:
        if black_box.crash is not None:
            _blame(black_box.crash, Journal(log))
        black_box.begin()
        _say_why_no_gpu(station)
        active = log.activation()
        try:
            chosen = station.load_bundle(bundle, active=active["folder"] if active else None)
            if bundle is None and active is not None:
                check_identity(chosen, active)
            inspector = build_inspector(chosen, station.engine, cache=station.engines)
        except EngineError as error:
            _say_not_ready(station, f"engines: {error}")
            raise
        log.add_event(events.STARTED, bundle=chosen.identity, engine=inspector.engine)
        switch = BundleSwitch(station, active) if bundle is None else None
        screener = Screener(station, Line(station, inspector, log, images), log, children, switch, black_box, stop)
        try:
            screener.run()
        finally:
            screener.line.inspector.close()
    finally:
        if images is not None:
            images.close()
        log.close()
