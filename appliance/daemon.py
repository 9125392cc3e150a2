"""The screener: one loop that watches, decodes ahead, screens, and says how it is."""

from __future__ import annotations

import os
import signal
import sqlite3
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from dataclasses import dataclass, field, replace
from types import FrameType
from typing import Any

from appliance import log as events
from appliance.api.process import ApiProcess
from appliance.errors import FrameVanishedError
from appliance.frame import Frame
from appliance.images import ImageStore
from appliance.notify import notify
from appliance.pipeline import Line
from appliance.sandbox import Sandbox
from appliance.station import Station, StationLock
from appliance.switch import BundleSwitch
from appliance.verdict import Row, now_utc
from appliance.verdict_log import VerdictLog
from appliance.watch import Candidate, Watcher
from engines import EngineError, Target, gpu_state
from engines.build import build_inspector

DECODE_AHEAD = 3  # frames decoded while one is inferred
DECODED_BYTES = 1 << 30  # of frames decoded ahead for a GPU: bounds the memory
HEARTBEAT_S = 1.0
OUTBOX_CURSOR = "outbox"

_log = events.get()


@dataclass(slots=True)
class Screener:
    """Screens one station until told to stop.

    Attributes:
        station: its folders and settings.
        line: where frames go.
        log: the verdict log.
        api: the HTTP server's process, or None.
        switch: follows what is activated while this runs; None where the bundle is fixed.
        on_verdict: called with each new verdict's row.
    """

    station: Station
    line: Line
    log: VerdictLog
    api: ApiProcess | None = None
    switch: BundleSwitch | None = None
    on_verdict: Callable[[Row], None] = lambda _row: None
    _watcher: Watcher = field(init=False)
    _ready: deque[Candidate] = field(default_factory=deque)
    _decoding: deque[tuple[Candidate, Future[Frame]]] = field(default_factory=deque)
    _sandbox: Sandbox = field(init=False)
    _stopping: bool = False
    _started_at: str = field(default_factory=now_utc)
    _screened: int = 0
    _rate: deque[float] = field(default_factory=lambda: deque(maxlen=100))
    _next_heartbeat: float = 0.0
    _inbox_present: bool = True
    _cursor: int = 0
    _largest: int = 1  # bytes of a frame
    _unfinished: dict[tuple[str, str], Row] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._watcher = Watcher(self.station.inbox, self.station.settings.watch)
        self._sandbox = Sandbox(self.station.settings)
        self._cursor = self.log.cursor(OUTBOX_CURSOR)

    def stop(self, _signal: int = 0, _frame: FrameType | None = None) -> None:
        """Finish the frame in hand, then return from run."""
        self._stopping = True

    def run(self) -> None:
        """Screen until stopped.

        Raises:
            OutOfServiceError, EngineFaultError: the process must end; frames stay pending.
        """
        self._publish_what_was_committed()
        self._watcher.start()
        notify("READY=1")
        _log.info(events.STARTED, station=str(self.station.root), bundle=self.line.inspector.bundle.identity,
                  engine=self.line.inspector.engine)  # fmt: skip
        try:
            while not self._stopping:
                self._heartbeat()
                self._ready.extend(self._watcher.poll(busy=bool(self._ready)))
                self._decode_ahead()
                if self._decoding:
                    self._screen_batch()
                else:
                    self._watcher.wait(min(HEARTBEAT_S, self.station.settings.watch.rescan_s))
        finally:
            self._shut_down()

    def _publish_what_was_committed(self) -> None:
        """Verdicts whose file may be missing because the last process died between commit and rename.

        Their frames may still lie in the inbox: they have their verdict, whichever bundle gave it.
        """
        while rows := self.log.verdicts("v.seq > ? AND v.origin = 'inbox'", (self._cursor,)):
            for row in rows:
                self.line.publish(row)
                self._cursor = row["seq"]
                if (self.station.inbox / row["path"]).exists():
                    self._unfinished[row["path"], row["sha256"]] = row
            _log.info(events.REPUBLISHED, first=rows[0]["seq"], last=self._cursor)
        self.log.set_cursor(OUTBOX_CURSOR, self._cursor)

    def _follow_activation(self) -> None:
        """Change the bundle between two frames, where another one was activated and passed the golden gate."""
        if self.switch is not None and (inspector := self.switch.poll(self.log)) is not None:
            before = self.line.inspector
            self.line = replace(self.line, inspector=inspector)
            before.close()
            self.log.add_event(events.BUNDLE_SWITCHED, bundle=inspector.bundle.identity, engine=inspector.engine)
            _log.info(events.BUNDLE_SWITCHED, bundle=inspector.bundle.identity, engine=inspector.engine)

    def _decode_ahead(self) -> None:
        while self._ready and len(self._decoding) < self._room():
            candidate = self._ready.popleft()
            self._decoding.append((candidate, self._sandbox.submit(self.station.inbox, candidate.relative)))

    def _room(self) -> int:
        """How many frames may be decoded ahead: two batches, as far as frames like the largest one seen leave memory."""
        return max(DECODE_AHEAD, min(2 * self.line.inspector.batch, DECODED_BYTES // self._largest))

    def _screen_batch(self) -> None:
        """Screen the next decoded file, and with it as many of the following ones as the inspector takes at once."""
        new: list[tuple[Candidate, Frame]] = []
        for candidate, decoded in self._next_decoded():
            frame = self._take(candidate, decoded)
            if frame is None:
                continue
            row = self._unfinished.pop((frame.identity.path, frame.sha256), None)
            if row is None:
                new.append((candidate, frame))
            else:
                self._finish(candidate, frame, row)
        rows = self.line.screen([frame for _, frame in new])
        for (candidate, frame), row in zip(new, rows, strict=True):
            self._finish(candidate, frame, row)
            self._heartbeat()  # all of them are measured: a change of the bundle here takes nothing from them

    def _next_decoded(self) -> Iterator[tuple[Candidate, Future[Frame]]]:
        """The next file that is being decoded; with a GPU those that are decoded within the waiting time, too."""
        first = self._decoding.popleft()
        self._decode_ahead()
        yield first
        end = time.monotonic() + self.station.settings.engine.batch_wait_ms / 1e3
        for _ in range(min(self.line.inspector.batch, self._room()) - 1):
            if not self._decoding or not wait([self._decoding[0][1]], max(0.0, end - time.monotonic())).done:
                break
            following = self._decoding.popleft()
            self._decode_ahead()
            yield following

    def _take(self, candidate: Candidate, decoded: Future[Frame]) -> Frame | None:
        """A decoded file; None where it must be looked at again."""
        try:
            frame = self._await(decoded)
        except FrameVanishedError as error:
            self._look_again(candidate, str(error))
            return None
        if frame.unreadable is not None and candidate.rested_s < self.station.settings.watch.incomplete_s:
            self._watcher.defer(candidate)  # perhaps its writer only pauses
            return None
        self._largest = max(self._largest, frame.file_bytes)
        return frame

    def _finish(self, candidate: Candidate, frame: Frame, row: Row) -> None:
        """Tell of a verdict that is committed and published, and put its file away."""
        if row["seq"] > self._cursor:
            self._cursor = row["seq"]
            self._screened += 1
            self._rate.append(time.monotonic())
            self.on_verdict(row)
            _log.info(events.SCREENED, **{k: row[k] for k in (
                "seq", "path", "sha256", "verdict", "reason", "class", "level", "score", "spec", "bundle", "engine",
                "ms_decode", "ms_inspect", "ms_total")})  # fmt: skip
        self._put_away(candidate, frame)

    def _await(self, decoded: Future[Frame]) -> Frame:
        """The decoded frame; a long one does not keep the watchdog hungry.

        Raises:
            FrameVanishedError: the file is gone or changed.
        """
        while not wait([decoded], timeout=HEARTBEAT_S).done:
            self._heartbeat()
        return decoded.result()

    def _look_again(self, candidate: Candidate, reason: str) -> None:
        """A file that went, changed in our hands, or may not be opened; the last is left where it is, and said."""
        kind = events.STUCK if candidate.path.exists() else events.VANISHED
        if kind == events.STUCK and candidate.rested_s < self.station.settings.watch.incomplete_s:
            self._watcher.defer(candidate)
            return
        self.log.add_event(kind, path=candidate.relative, reason=reason)
        _log.warning(kind, path=candidate.relative, reason=reason)
        self._watcher.settle(candidate)

    def _put_away(self, candidate: Candidate, frame: Frame) -> None:
        try:
            moved = self.line.put_away(frame, candidate.relative, candidate.fingerprint)
        except OSError as error:
            self.log.add_event(events.STUCK, path=candidate.relative, reason=str(error))
            _log.error(events.STUCK, path=candidate.relative, reason=str(error))
            self._watcher.settle(candidate)
            return
        if moved is None:
            self._watcher.defer(candidate)
        else:
            self._watcher.settle(candidate)

    def _heartbeat(self) -> None:
        """Once a second: feed the watchdog, follow activations, keep the API alive, remember the cursor, publish the state."""
        now = time.monotonic()
        if now < self._next_heartbeat:
            return
        self._next_heartbeat = now + HEARTBEAT_S
        notify("WATCHDOG=1")
        self._follow_activation()
        if self._watcher.present != self._inbox_present:
            self._inbox_present = self._watcher.present
            kind = events.INBOX_BACK if self._inbox_present else events.INBOX_GONE
            self.log.add_event(kind, inbox=str(self.station.inbox))
            _log.warning(kind, inbox=str(self.station.inbox))
        for death in self._sandbox.deaths():
            self.log.add_event(events.DECODER_DIED, path=death.relative, reason=death.reason, given_up=death.last)
            _log.error(events.DECODER_DIED, path=death.relative, reason=death.reason, given_up=death.last)
        if self.api is not None:
            self.api.keep_alive()
        if self.log.cursor(OUTBOX_CURSOR) != self._cursor:
            self.log.set_cursor(OUTBOX_CURSOR, self._cursor)
        self.station.write_state(self.state())

    def state(self) -> dict[str, Any]:
        """What the screener is doing, as state.json holds it."""
        reasons = [] if self._inbox_present else [f"inbox {self.station.inbox} is not there"]
        recent = [t for t in self._rate if time.monotonic() - t < 60]
        span = time.monotonic() - recent[0] if len(recent) > 1 else 0.0
        return {
            "at": now_utc(), "pid": os.getpid(), "started_at": self._started_at, "ready": not reasons, "reasons": reasons,
            "bundle": self.line.inspector.bundle.identity, "engine": self.line.inspector.engine,
            "backlog": self._watcher.waiting, "screened": self._screened, "last_seq": self._cursor,
            "decoders_died": self._sandbox.died,
            "frames_per_s": round(len(recent) / span, 3) if span else 0.0,
            "activation": self.switch.state() if self.switch else None,
        }  # fmt: skip

    def _shut_down(self) -> None:
        notify("STOPPING=1")
        self._sandbox.close()
        if self.switch is not None:
            self.switch.close()
        self._watcher.stop()
        if self.log.cursor(OUTBOX_CURSOR) != self._cursor:
            self.log.set_cursor(OUTBOX_CURSOR, self._cursor)
        self.station.write_state(self.state() | {"ready": False, "reasons": ["the screener is stopped"]})
        _log.info(events.STOPPED, screened=self._screened)


def _open_images(station: Station) -> ImageStore | None:
    """The picture store; without it screening goes on."""
    if not station.settings.disk.keep_images:
        return None
    try:
        return ImageStore(station.images)
    except sqlite3.Error as error:
        _log.error(events.PICTURES_LOST, reason=f"{station.images}: {error}; delete it and start again")
        return None


def _say_not_ready(station: Station, reason: str) -> None:
    station.write_state({"at": now_utc(), "ready": False, "reasons": [reason]})


def _say_why_no_gpu(station: Station) -> None:
    """Where packages for a GPU are installed and the CPU is used: why."""
    if station.engine.target is Target.OPENVINO and gpu_state.packages_present():
        why = gpu_state.without_importing() or "umbra.toml says engine.target = openvino"
        _log.info(events.GPU_OFF, reason=why)


def run_station(station: Station, *, bundle: str | None = None, with_api: bool = True) -> None:
    """Build the engines, open the log and screen until SIGTERM or SIGINT.

    Raises:
        RefusedError, EngineError: the station, bundle or engines are not fit for use.
        OutOfServiceError: the disk is full or gone.
    """
    lock = StationLock(station)
    log = VerdictLog(station.database)
    images = _open_images(station)
    api = ApiProcess(station) if with_api else None
    try:
        _say_not_ready(station, "engines are being built")
        if api is not None:
            api.start()
        _say_why_no_gpu(station)
        active = log.activation()
        try:
            chosen = station.load_bundle(bundle, active=active["folder"] if active else None)
            inspector = build_inspector(chosen, station.engine, cache=station.engines)
        except EngineError as error:
            _say_not_ready(station, f"engines: {error}")
            raise
        log.add_event(events.STARTED, bundle=chosen.identity, engine=inspector.engine)
        switch = BundleSwitch(station, active) if bundle is None else None
        screener = Screener(station, Line(station, inspector, log, images), log, api, switch)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, screener.stop)
        try:
            screener.run()
        finally:
            screener.line.inspector.close()
    finally:
        if api is not None:
            api.stop()
        if images is not None:
            images.close()
        log.close()
        lock.release()
