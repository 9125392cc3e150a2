"""A frame's way through the station, top to bottom: inspect, decide, record, publish, put away."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from appliance import log as events
from appliance.decide import decide
from appliance.errors import OutboxBlockedError
from appliance.frame import Frame
from appliance.images import ImageStore
from appliance.line.files import outbox_paths, publish, seq_of, told_by
from appliance.put_away import put_away
from appliance.station import Station
from appliance.verdict import Row, verdict_row
from appliance.verdict_log import VerdictLog
from appliance.watch import Fingerprint
from engines import Inspector, Measurement

_log = events.get()


def judge(
    frames: Sequence[Frame], inspector: Inspector, *, spec: Callable[[str], float], capture_failed: str
) -> list[tuple[Row, Measurement | None]]:
    """Inspect frames together and decide each; nothing is stored.

    Args:
        frames: in any number; those that could not be read are not inspected.
        inspector: the engines.
        spec: the limit of a product.
        capture_failed: as decide.

    Raises:
        EngineFaultError: an engine failed.
    """
    began = time.perf_counter()
    measured = iter(inspector.measure([f.raw for f in frames if f.raw is not None]))
    inspect_ms = (time.perf_counter() - began) * 1e3  # each frame waited for all
    bundle = inspector.bundle
    judged: list[tuple[Row, Measurement | None]] = []
    for frame in frames:
        measurement = None if frame.raw is None else next(measured)
        decision = decide(frame, measurement, spec=spec(frame.identity.product), capture_failed=capture_failed)
        row = verdict_row(
            frame, measurement, decision, bundle=(bundle.identity, inspector.engine),
            unseen=(bundle.threshold, bundle.alpha),
            ms={"decode": frame.decode_ms, "inspect": inspect_ms, "total": frame.decode_ms + inspect_ms},
        )  # fmt: skip
        judged.append((row, measurement))
    return judged


@dataclass(frozen=True, slots=True)
class Judged:
    """A frame and what is to be committed.

    Attributes:
        frame: that was judged.
        row: its verdict; of a known frame as it was committed before.
        measurement: of a new one that could be measured.
        known: whether it has this verdict already.
    """

    frame: Frame
    row: Row
    measurement: Measurement | None
    known: bool


def _unnoticed(_frames: Sequence[Frame]) -> AbstractContextManager[None]:
    return nullcontext()


@dataclass(frozen=True, slots=True)
class Line:
    """The station's screening line with one bundle.

    Attributes:
        station: folders and settings.
        inspector: the engines, through the golden gate.
        log: open for writing.
        images: open for writing, or None where pictures are not kept.
        in_hand: entered with the frames that are measured, for as long as they are.
    """

    station: Station
    inspector: Inspector
    log: VerdictLog
    images: ImageStore | None
    in_hand: Callable[[Sequence[Frame]], AbstractContextManager[None]] = _unnoticed

    def judge(self, frames: Sequence[Frame]) -> list[Judged]:
        """Judge together; nothing is stored.

        The same bytes at the same path keep the verdict that this bundle gave them. Of a path there may be one frame.

        Raises:
            EngineFaultError: an engine failed.
            OutOfServiceError: the log cannot be read.
        """
        own = self.inspector.bundle
        known = [self.log.find_verdict(f.identity.path, f.sha256, own.identity) for f in frames]
        new = [frame for frame, row in zip(frames, known, strict=True) if row is None]
        specs = {product: self.log.spec_for(product, own.spec) for product in {f.identity.product for f in new}}
        with self.in_hand(new):
            found = judge(new, self.inspector, spec=specs.__getitem__,
                          capture_failed=self.station.settings.capture_failed)  # fmt: skip
        fresh = iter(found)
        return [
            Judged(frame, *next(fresh), known=False) if row is None else Judged(frame, row, None, known=True)
            for frame, row in zip(frames, known, strict=True)
        ]

    def record(self, judged: Judged) -> Row:
        """Commit and publish.

        Raises:
            OutOfServiceError: the disk does not take it. The frame stays where it is.
        """
        if judged.known:
            self.log.add_event(events.SEEN_AGAIN, path=judged.frame.identity.path, seq=judged.row["seq"])
            self.publish(judged.row, again=False)
            return judged.row
        recorded = self.log.record(judged.frame, judged.row)
        self.publish(recorded)
        self._keep_pictures(recorded, judged.measurement)
        return recorded

    def _keep_pictures(self, row: Row, measurement: Measurement | None) -> None:
        """Pictures may be lost; a verdict never waits for them."""
        if self.images is None or measurement is None:
            return
        try:
            self.images.add(row["frame_id"], measurement, seq=row["seq"])
        except sqlite3.Error as error:
            _log.error(events.PICTURES_LOST, seq=row["seq"], reason=str(error))

    def publish(self, row: Row, *, again: bool = True) -> None:
        """Write a verdict's file, unless it holds a newer one; with `again` False only where no file holds this verdict.

        Raises:
            OutOfServiceError: the disk does not take it.
        """
        try:
            path = self._outbox_path(row)
            held = seq_of(path) or 0
            done = self.station.settings.line.files.done
            lacks_done = done and held == row["seq"] and not path.with_suffix(".done").exists()
            if lacks_done or (held <= row["seq"] if again else held != row["seq"]):
                publish(path, row, done=done)
        except OutboxBlockedError as error:
            self.log.add_event(events.BLOCKED, seq=row["seq"], reason=str(error))
            _log.error(events.BLOCKED, seq=row["seq"], reason=str(error))

    def _outbox_path(self, row: Row) -> Path:
        """The first name that is free, or holds a verdict on the same path."""
        paths = outbox_paths(self.station.outbox, row)
        for path in paths:
            told = told_by(path)
            if (told is None and not os.path.lexists(path)) or (told is not None and self._is_of_the_same(told, row)):
                return path
        return paths[-1]

    def _is_of_the_same(self, told: Row, row: Row) -> bool:
        """Whether a verdict file tells of the same path; what the log has forgotten is known by what it says itself."""
        holder = self.log.verdict(told["seq"])
        if holder is not None:
            return bool(holder["path"] == row["path"])
        return [told.get(key) for key in ("frame", "product", "lot")] == [
            row[key] for key in ("name", "product", "lot")
        ]

    def put_away(self, frame: Frame, relative: str, seen: Fingerprint) -> Path | None:
        """Move a judged file out of the inbox: to done/, or quarantine/ where it could not be read.

        Args:
            frame: whose verdict is committed and published.
            relative: its path in the inbox, as the file system spells it.
            seen: the file's fingerprint when it was read.

        Returns:
            Where it is now; None where it changed or went since, so that it is looked at anew.

        Raises:
            OSError: it cannot be moved. Its verdict stands.
        """
        folder = self.station.done if frame.unreadable is None else self.station.quarantine
        return put_away(self.station.inbox / relative, seen, folder, relative, frame.sha256)
