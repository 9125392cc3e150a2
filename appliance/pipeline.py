"""A frame's way through the station, top to bottom: inspect, decide, record, publish, put away."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from appliance import log as events
from appliance.decide import decide
from appliance.errors import OutboxBlockedError
from appliance.frame import Frame
from appliance.images import ImageStore
from appliance.outbox import outbox_paths, publish, seq_of, sync_folder, told_by
from appliance.sidecar import SIDECAR_SUFFIX
from appliance.station import Station
from appliance.verdict import Row, verdict_row
from appliance.verdict_log import VerdictLog
from appliance.watch import Fingerprint, fingerprint_of
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


def places_of(folder: Path, relative: str, sha256: str) -> tuple[Path, Path]:
    """Where a judged file lies in done/ or quarantine/: under its own name, or with its hash where that was taken."""
    first = folder / relative
    return first, first.with_name(f"{first.stem[:180]}.{sha256[:8]}{first.suffix}")


def move(source: Path, target: Path) -> None:
    """Move a file; to another file system by a copy that is whole before it has its name, and the source goes last.

    Raises:
        OSError: it cannot be moved; the source is where it was.
    """
    try:
        source.rename(target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        part = target.with_name(
            f".{hashlib.sha256(target.name.encode(errors='surrogateescape')).hexdigest()[:16]}.part"
        )
        try:
            shutil.copy2(source, part, follow_symlinks=False)
            with part.open("rb") as copy:
                os.fsync(copy.fileno())
            part.rename(target)
        except OSError:
            part.unlink(missing_ok=True)
            raise
        source.unlink()


@dataclass(frozen=True, slots=True)
class Line:
    """The station's screening line with one bundle.

    Attributes:
        station: folders and settings.
        inspector: the engines, through the golden gate.
        log: open for writing.
        images: open for writing, or None where pictures are not kept.
    """

    station: Station
    inspector: Inspector
    log: VerdictLog
    images: ImageStore | None

    def screen(self, frames: Sequence[Frame]) -> Iterator[Row]:
        """Judge together; commit and publish one after the other, each as it is asked for.

        The same bytes at the same path keep the verdict that this bundle gave them. Of a path there may be one frame.

        Raises:
            EngineFaultError: an engine failed.
            OutOfServiceError: the disk does not take it. The frame stays where it is.
        """
        own = self.inspector.bundle
        known = [self.log.find_verdict(f.identity.path, f.sha256, own.identity) for f in frames]
        new = [frame for frame, row in zip(frames, known, strict=True) if row is None]
        judged = iter(judge(
            new, self.inspector, spec=lambda product: self.log.spec_for(product, own.spec),
            capture_failed=self.station.settings.capture_failed,
        ))  # fmt: skip
        for frame, row in zip(frames, known, strict=True):
            if row is not None:
                self.log.add_event("frame.seen_again", path=frame.identity.path, seq=row["seq"])
                self.publish(row, again=False)
                yield row
                continue
            decided, measurement = next(judged)
            recorded = self.log.record(frame, decided)
            self.publish(recorded)
            self._keep_pictures(recorded, measurement)
            yield recorded

    def _keep_pictures(self, row: Row, measurement: Measurement | None) -> None:
        """Pictures may be lost; a verdict never waits for them."""
        if self.images is None or measurement is None:
            return
        try:
            self.images.add(row["frame_id"], measurement)
        except sqlite3.Error as error:
            _log.error(events.PICTURES_LOST, seq=row["seq"], reason=str(error))

    def publish(self, row: Row, *, again: bool = True) -> None:
        """Write a verdict's file; with `again` False only where no file holds this verdict.

        Raises:
            OutOfServiceError: the disk does not take it.
        """
        try:
            path = self._outbox_path(row)
            if again or seq_of(path) != row["seq"]:
                publish(path, row)
        except OutboxBlockedError as error:
            self.log.add_event(events.BLOCKED, seq=row["seq"], reason=str(error))
            _log.error(events.BLOCKED, seq=row["seq"], reason=str(error))

    def _outbox_path(self, row: Row) -> Path:
        """The first name that is free, or holds an earlier verdict on the same path."""
        paths = outbox_paths(self.station.outbox, row)
        for path in paths:
            told = told_by(path)
            if (told is None and not path.exists()) or (told is not None and self._is_earlier(told, row)):
                return path
        return paths[-1]

    def _is_earlier(self, told: Row, row: Row) -> bool:
        """Whether a verdict file is of the same frame; what the log has forgotten is known by what it says itself."""
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
        source = self.station.inbox / relative
        if fingerprint_of(source) != seen:
            return None
        folder = self.station.done if frame.unreadable is None else self.station.quarantine
        first, second = places_of(folder, relative, frame.sha256)
        target = second if first.exists() else first
        sidecar = source.with_name(source.name + SIDECAR_SUFFIX)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            move(source, target)
            if sidecar.is_file():
                move(sidecar, target.with_name(target.name + SIDECAR_SUFFIX))
            sync_folder(target.parent)
        except FileNotFoundError:
            return None
        return target
