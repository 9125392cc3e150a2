"""A frame's way through the station, top to bottom: inspect, decide, record, publish, put away."""

from __future__ import annotations

import shutil
import sqlite3
import time
from dataclasses import dataclass
from pathlib import Path

from appliance import log as events
from appliance.decide import decide
from appliance.decode import SIDECAR_SUFFIX
from appliance.errors import OutboxBlockedError
from appliance.frame import Frame
from appliance.images import ImageStore
from appliance.outbox import outbox_paths, publish, seq_of, sync_folder
from appliance.station import Station
from appliance.verdict import Row, verdict_row
from appliance.verdict_log import VerdictLog
from appliance.watch import Fingerprint, fingerprint_of
from engines import Inspector, Measurement

_log = events.get()


def judge(frame: Frame, inspector: Inspector, *, spec: float, capture_failed: str) -> tuple[Row, Measurement | None]:
    """Inspect and decide one frame; nothing is stored.

    Raises:
        EngineFaultError: an engine failed.
    """
    began = time.perf_counter()
    measurement = inspector.measure([frame.raw])[0] if frame.raw is not None else None
    inspect_ms = (time.perf_counter() - began) * 1e3
    decision = decide(frame, measurement, spec=spec, capture_failed=capture_failed)
    bundle = inspector.bundle
    row = verdict_row(
        frame, measurement, decision, bundle=(bundle.identity, inspector.engine), unseen=(bundle.threshold, bundle.alpha),
        ms={"decode": frame.decode_ms, "inspect": inspect_ms, "total": frame.decode_ms + inspect_ms},
    )  # fmt: skip
    return row, measurement


def places_of(folder: Path, relative: str, sha256: str) -> tuple[Path, Path]:
    """Where a judged file lies in done/ or quarantine/: under its own name, or with its hash where that was taken."""
    first = folder / relative
    return first, first.with_name(f"{first.stem[:180]}.{sha256[:8]}{first.suffix}")


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

    def screen(self, frame: Frame) -> Row:
        """Judge, commit, publish. The same bytes at the same path keep the verdict that this bundle gave them.

        Raises:
            EngineFaultError: an engine failed.
            OutOfServiceError: the disk does not take it. The frame stays where it is.
        """
        known = self.log.find_verdict(frame.identity.path, frame.sha256, self.inspector.bundle.identity)
        if known is not None:
            self.log.add_event("frame.seen_again", path=frame.identity.path, seq=known["seq"])
            self.publish(known, again=False)
            return known
        spec = self.log.spec_for(frame.identity.product, self.inspector.bundle.spec)
        row, measurement = judge(frame, self.inspector, spec=spec, capture_failed=self.station.settings.capture_failed)
        row = self.log.record(frame, row)
        self.publish(row)
        self._keep_pictures(row, measurement)
        return row

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
            seq = seq_of(path)
            holder = self.log.verdict(seq) if seq is not None else None
            if (holder is None and not path.exists()) or (holder is not None and holder["path"] == row["path"]):
                return path
        return paths[-1]

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
            shutil.move(source, target)
            if sidecar.is_file():
                shutil.move(sidecar, target.with_name(target.name + SIDECAR_SUFFIX))
            sync_folder(target.parent)
        except FileNotFoundError:
            return None
        return target
