"""The screener: one loop that watches, decodes ahead, screens, and says how it is."""

from __future__ import annotations

import logging
import os
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from types import FrameType
from typing import Any

from appliance import log as events
from appliance.ahead import Ahead
from appliance.black_box import BlackBox, FrameKey
from appliance.children import Child
from appliance.errors import FrameVanishedError, NotNowError, OutOfServiceError
from appliance.fitness import DiskGate, GoldenWatch
from appliance.frame import Frame
from appliance.journal import Journal
from appliance.line.files import is_full
from appliance.notify import notify
from appliance.pause import Pause, find_pause
from appliance.pipeline import Line
from appliance.sandbox import Sandbox
from appliance.station import Station
from appliance.switch import BundleSwitch
from appliance.verdict import Row, now_utc
from appliance.verdict_log import VerdictLog
from appliance.watch import Candidate, Watcher

HEARTBEAT_S = 1.0
PAUSE_S = 0.2
OUTBOX_CURSOR = "outbox"
CRASHES_PER_FRAME = 2

Taken = tuple[Candidate, Frame]

_log = events.get()


class Stop:
    """Whether somebody asked the process to end; a signal handler."""

    asked = False

    def __call__(self, _signal: int = 0, _frame: FrameType | None = None) -> None:
        """Ask."""
        self.asked = True


@dataclass(slots=True)
class Screener:
    """Screens one station until told to stop.

    Attributes:
        station: its folders and settings.
        line: where frames go.
        log: the verdict log.
        children: the API's process, and the line's, where they are this one's.
        switch: follows what is activated while this runs; None where the bundle is fixed.
        black_box: where frames in hand are written down, or None.
        stop: whether to stop after the frame in hand.
        on_verdict: called with each new verdict's row.
    """

    station: Station
    line: Line
    log: VerdictLog
    children: Sequence[Child] = ()
    switch: BundleSwitch | None = None
    black_box: BlackBox | None = None
    stop: Stop = field(default_factory=Stop)
    on_verdict: Callable[[Row], None] = lambda _row: None
    _journal: Journal = field(init=False)
    _disk: DiskGate = field(init=False)
    _golden: GoldenWatch = field(init=False)
    _watcher: Watcher = field(init=False)
    _sandbox: Sandbox = field(init=False)
    _ahead: Ahead = field(init=False)
    _caught_up: bool = False
    _suspects: Counter[tuple[str, str]] = field(default_factory=Counter)
    _started_at: str = field(default_factory=now_utc)
    _screened: int = 0
    _rate: deque[float] = field(default_factory=lambda: deque(maxlen=100))
    _next_heartbeat: float = 0.0
    _inbox_present: bool = True
    _pause: Pause | None = None
    _closed: dict[str, str] = field(default_factory=dict)
    _cursor: int = 0
    _unfinished: dict[tuple[str, str], Row] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._watcher = Watcher(self.station.inbox, self.station.settings.watch)
        self._sandbox = Sandbox(self.station.settings)
        self._ahead = Ahead(
            self.station.inbox, self._sandbox, self.station.settings.engine.batch_wait_ms,
            inspector=lambda: self.line.inspector, stopped=lambda: self.stop.asked, meanwhile=self._heartbeat,
        )  # fmt: skip
        self._cursor = self.log.cursor(OUTBOX_CURSOR)
        self._journal = Journal(self.log)
        self._disk = DiskGate(self.station, self._journal)
        self._golden = GoldenWatch(self.station, self._journal)
        self._pause = find_pause(self.log)
        self.line = replace(self.line, in_hand=self._in_hand)
        for event in self.log.events(events.SUSPECT):
            self._suspects[event["detail"]["path"], event["detail"]["sha256"]] += 1

    def run(self) -> None:
        """Screen until stopped.

        Raises:
            OutOfServiceError, EngineFaultError: the process must end; frames stay pending.
        """
        self._watcher.start()
        notify("READY=1")
        _log.info(events.STARTED, station=str(self.station.root), bundle=self.line.inspector.bundle.identity,
                  engine=self.line.inspector.engine)  # fmt: skip
        try:
            while not self.stop.asked:
                try:
                    self._heartbeat()
                    if self._may_screen():
                        self._step()
                        continue
                except NotNowError as error:
                    self._disk.refused(error)
                time.sleep(PAUSE_S)
        finally:
            self._shut_down()

    def _may_screen(self) -> bool:
        """Whether disk, people and engines let the next frame be begun; what was committed is published before anybody is asked.

        Raises:
            NotNowError: what was committed cannot be published now.
        """
        if self._disk.closed:
            return False
        if not self._caught_up:
            self._publish_what_was_committed()
        self._pause = find_pause(self.log)
        if self._pause is not None:
            self._let_go()
        return self._pause is None and self._golden.reason is None

    def _let_go(self) -> None:
        """Keep nothing in hand: a file may be another one when screening goes on. They are seen, and so counted."""
        for candidate in (*self._ahead.let_go(), *self._watcher.poll(busy=True)):
            self._watcher.offer_again(candidate)

    def _step(self) -> None:
        """Screen the next batch, or wait for one.

        Raises:
            NotNowError: nothing can be stored for now; the frames in hand will be looked at again.
        """
        if self._ahead.add(self._watcher.poll(busy=self._ahead.has_more)):
            self._screen_batch()
        else:
            self._watcher.wait(min(HEARTBEAT_S, self.station.settings.watch.rescan_s))

    def _publish_what_was_committed(self) -> None:
        """Verdicts whose file may be missing because the last process died between commit and rename.

        Their frames may still lie in the inbox: they have their verdict, whichever bundle gave it.
        """
        while rows := self.log.verdicts("v.seq > ? AND v.origin = 'inbox'", (self._cursor,)):
            for row in rows:
                self.line.publish(row)
                self._cursor = row["seq"]
                # A name that is no UTF-8 stands in the log with escapes: where its file lies cannot be told.
                if "\\x" in row["path"] or os.path.lexists(self.station.inbox / row["path"]):
                    self._unfinished[row["path"], row["sha256"]] = row
            _log.info(events.REPUBLISHED, first=rows[0]["seq"], last=self._cursor)
            self._heartbeat()
        self.log.set_cursor(OUTBOX_CURSOR, self._cursor)
        self._caught_up = True

    def _follow_activation(self) -> None:
        """Change the bundle between two frames, where another one was activated and passed the golden gate."""
        if self.switch is not None and (inspector := self.switch.poll(self.log)) is not None:
            before = self.line.inspector
            self.line = replace(self.line, inspector=inspector)
            before.close()
            self._golden.passed()
            self._journal.note(events.BUNDLE_SWITCHED, level=logging.INFO, bundle=inspector.bundle.identity,
                               engine=inspector.engine)  # fmt: skip

    def _screen_batch(self) -> None:
        """Screen the next decoded file, and with it as many of the following ones as the inspector takes at once.

        Raises:
            OutOfServiceError: something cannot be stored; what has not come to its end will be looked at again.
        """
        taken: dict[str, Candidate] = {}
        try:
            new: list[Taken] = []
            for candidate, decoded in self._ahead.following():
                taken[candidate.relative] = candidate
                frame = self._take(candidate, decoded)
                if frame is None:
                    del taken[candidate.relative]
                    continue
                row = self._unfinished.get(_key(frame))
                if row is None:
                    new.append((candidate, frame))
                else:
                    self._finish(candidate, frame, row)
                    del taken[candidate.relative]
            for together in self._apart(new):
                for (candidate, frame), judged in zip(
                    together, self.line.judge([frame for _, frame in together]), strict=True
                ):
                    self._finish(candidate, frame, self.line.record(judged))
                    del taken[candidate.relative]
                    self._heartbeat()  # all of them are measured: a change of the bundle here takes nothing from them
        except OutOfServiceError:
            for candidate in taken.values():
                self._watcher.offer_again(candidate)
            raise

    def _apart(self, new: Sequence[Taken]) -> Iterator[Sequence[Taken]]:
        """Frames that were in hand when the screener died are measured alone: the next death shows which one it is."""
        harmless = [t for t in new if not self._suspects[_key(t[1])]]
        if harmless:
            yield harmless
        yield from ([t] for t in new if self._suspects[_key(t[1])])

    @contextmanager
    def _in_hand(self, frames: Sequence[Frame]) -> Iterator[None]:
        """Frames that are being measured are written down: a death now may be the doing of one of them."""
        if self.black_box is None:
            yield
            return
        self.black_box.hold([_key(frame) for frame in frames])
        yield
        self.black_box.hold(())

    def _take(self, candidate: Candidate, decoded: Future[Frame]) -> Frame | None:
        """A decoded file; None where it must be looked at again."""
        try:
            frame = decoded.result()
        except FrameVanishedError as error:
            self._look_again(candidate, str(error))
            return None
        early = candidate.rested_s < self.station.settings.watch.incomplete_s
        if frame.unreadable is not None and early and not frame.hostile:
            self._watcher.defer(candidate)  # perhaps its writer only pauses
            return None
        self._ahead.saw(frame)
        if self._suspects[_key(frame)] >= CRASHES_PER_FRAME:
            reason = f"the screener died {self._suspects[_key(frame)]} times while this frame was measured"
            return replace(frame, raw=None, unreadable=reason)
        return frame

    def _finish(self, candidate: Candidate, frame: Frame, row: Row) -> None:
        """Tell of a verdict that is committed and published, and put its file away; until that is done it keeps it."""
        self._unfinished[_key(frame)] = row
        if row["seq"] > self._cursor:
            self._cursor = row["seq"]
            self._screened += 1
            self._rate.append(time.monotonic())
            self.on_verdict(row)
            _log.info(events.SCREENED, **{k: row[k] for k in (
                "seq", "path", "sha256", "verdict", "reason", "class", "level", "score", "spec", "bundle", "engine",
                "ms_decode", "ms_inspect", "ms_total")})  # fmt: skip
        self._put_away(candidate, frame)

    def _look_again(self, candidate: Candidate, reason: str) -> None:
        """A file that went, or changes whenever it is read: later and later, for as long as it is there."""
        if not os.path.lexists(candidate.path):
            self._journal.note(events.VANISHED, path=candidate.relative, reason=reason)
            self._watcher.offer_again(candidate)  # should it come back as it was
        elif candidate.rested_s < self.station.settings.watch.incomplete_s:
            self._watcher.defer(candidate)
        else:
            self._journal.note(events.STUCK, path=candidate.relative, reason=reason)
            self._watcher.try_later(candidate)

    def _put_away(self, candidate: Candidate, frame: Frame) -> None:
        try:
            moved = self.line.put_away(frame, candidate.relative, candidate.fingerprint)
        except OSError as error:
            if is_full(error):
                raise NotNowError(f"{candidate.relative}: {error.strerror}") from error
            self._journal.note(events.STUCK, level=logging.ERROR, path=candidate.relative, reason=str(error))
            self._watcher.try_later(candidate)
            return
        self._disk.took()
        self._unfinished.pop(_key(frame), None)
        if moved is None:
            self._watcher.defer(candidate)
        else:
            self._watcher.settle(candidate)

    def _heartbeat(self) -> None:
        """Once a second: feed the watchdog, look at disk, engines, inbox and decoders, follow activations, keep children
        alive, remember the cursor, publish the state.
        """
        now = time.monotonic()
        if now < self._next_heartbeat:
            return
        self._next_heartbeat = now + HEARTBEAT_S
        notify("WATCHDOG=1")
        self._disk.look(idle=not self._watcher.waiting)
        self._follow_activation()
        self._golden.look(self.line.inspector)
        if (present := self._watcher.present) != self._inbox_present:
            self._inbox_present = present
            self._journal.note(
                events.INBOX_BACK if self._inbox_present else events.INBOX_GONE, inbox=str(self.station.inbox)
            )
        for folder, reason in self._watcher.closed.items():
            if folder not in self._closed:
                self._journal.note(events.FOLDER_CLOSED, folder=folder or ".", reason=reason)
        self._closed = dict(self._watcher.closed)
        for death in self._sandbox.deaths():
            self._journal.note(events.DECODER_DIED, level=logging.ERROR, path=death.relative, reason=death.reason,
                               given_up=death.last)  # fmt: skip
        for child in self.children:
            child.keep_alive()
        try:
            self._remember()
        except NotNowError as error:
            self._disk.refused(error)

    def _remember(self) -> None:
        """Store the cursor and publish the state."""
        try:
            self.station.write_state(self.state())
        except OSError as error:
            if not is_full(error):
                raise
            _log.error(events.EVENT_LOST, kind="state", reason=str(error))
        if self._caught_up and self.log.cursor(OUTBOX_CURSOR) != self._cursor:
            self.log.set_cursor(OUTBOX_CURSOR, self._cursor)

    def state(self) -> dict[str, Any]:
        """What the screener is doing, as state.json holds it."""
        gone = None if self._inbox_present else f"inbox {self.station.inbox} is not there"
        closed = [f"inbox/{folder}: cannot be listed: {reason}" for folder, reason in self._closed.items()]
        paused = None if self._pause is None else str(self._pause)
        found = (paused, self._disk.reason, self._golden.reason, gone, *closed)
        reasons = [reason for reason in found if reason is not None]
        recent = [t for t in self._rate if time.monotonic() - t < 60]
        span = time.monotonic() - recent[0] if len(recent) > 1 else 0.0
        return {
            "at": now_utc(), "pid": os.getpid(), "started_at": self._started_at, "ready": not reasons, "reasons": reasons,
            "bundle": self.line.inspector.bundle.identity, "engine": self.line.inspector.engine,
            "backlog": self._watcher.waiting, "screened": self._screened, "last_seq": self._cursor,
            "decoders_died": self._sandbox.died, "events_lost": self._watcher.events_lost,
            "watching": "events" if self._watcher.listening else "polling", "golden": self._golden.told,
            "frames_per_s": round(len(recent) / span, 3) if span else 0.0,
            "activation": self.switch.state() if self.switch else None, "paused": asdict(self._pause) if self._pause else None,
        }  # fmt: skip

    def _shut_down(self) -> None:
        notify("STOPPING=1")
        self._sandbox.close()
        if self.switch is not None:
            self.switch.close()
        self._watcher.stop()
        try:
            self._remember()
            self.station.write_state(self.state() | {"ready": False, "reasons": ["the screener is stopped"]})
        except (NotNowError, OSError) as error:  # the next one starts from what is committed
            _log.error(events.EVENT_LOST, kind="state", reason=str(error))
        _log.info(events.STOPPED, screened=self._screened)


def _key(frame: Frame) -> FrameKey:
    return frame.identity.path, frame.sha256
