"""`umbra screen` and `umbra rescreen`: judge files once, in order; nothing is moved or published."""

from __future__ import annotations

import sqlite3
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import closing
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path

from appliance.again import AgainLog
from appliance.ahead import DECODED_BYTES, room_ahead
from appliance.decode import is_frame_name
from appliance.errors import FrameVanishedError, RefusedError
from appliance.frame import Frame, Identity, identify
from appliance.images import ImageStore
from appliance.pipeline import judge
from appliance.put_away import places_of
from appliance.reading import UNREAD
from appliance.sandbox import Sandbox
from appliance.settings import Settings
from appliance.station import Station
from appliance.verdict import Row
from appliance.verdict_log import VerdictLog
from engines import Inspector, Measurement, worth_together

CHUNK = 1000  # frames of the log looked at together
LEAST_ROOM = 2  # times disk.stop_bytes: below that, only the screener writes


@dataclass(frozen=True, slots=True)
class Target:
    """A file to screen.

    Attributes:
        root: a folder.
        relative: path below it, which says product and lot of a new one.
        archived: frame of the log that it was put away as, whatever it is called now; None: a new one.
    """

    root: Path
    relative: str
    archived: Row | None = None


def find_targets(paths: Sequence[Path]) -> list[Target]:
    """The files given, and the image files below the folders given, in order of name.

    Raises:
        RefusedError: a path is not there, or a folder holds no image file.
    """
    targets = []
    for path in paths:
        if path.is_dir():
            found = sorted(p for p in path.rglob("*") if p.is_file() and not p.is_symlink() and is_frame_name(p.name))
            if not found:
                raise RefusedError(f"{path}: no image file in it")
            targets += [Target(path, p.relative_to(path).as_posix()) for p in found]
        elif path.exists():
            file = path.resolve()  # a link that is asked for by name is followed
            targets.append(Target(file.parent, file.name))
        else:
            raise RefusedError(f"{path}: no such file or folder")
    return targets


@dataclass(slots=True)
class Archive:
    """The frames in done/ that a bundle has not judged.

    Attributes:
        place: the station.
        log: of the station.
        again: where verdicts on them go, beside the log.
        bundle: identity.
        product, lot: only these; None: all.
        gone: how many of the frames looked at have no file any more.
        changed: how many have one of other bytes.
        unreadable: those whose file could be decoded once and cannot be now, with the reason.
    """

    place: Station
    log: VerdictLog
    again: AgainLog
    bundle: str
    product: str | None = None
    lot: str | None = None
    gone: int = 0
    changed: int = 0
    unreadable: list[str] = field(default_factory=list)

    @property
    def passed_over(self) -> int:
        """How many were looked at and not judged."""
        return self.gone + self.changed + len(self.unreadable)

    def __len__(self) -> int:
        of = {"product": self.product, "lot": self.lot}
        return max(0, self.log.count_frames_without(self.bundle, **of) - self.again.count_frames_of(self.bundle, **of))

    def targets(self) -> Iterator[Target]:
        """Those whose file is there, oldest first.

        Raises:
            RefusedError: the disk is nearly as full as stops the screener.
        """
        least = LEAST_ROOM * self.place.settings.disk.stop_bytes
        last = 0
        while rows := self.log.frames_without(self.bundle, after=last, product=self.product, lot=self.lot, limit=CHUNK):
            judged = self.again.frames_of(self.bundle, first=rows[0]["id"], last=rows[-1]["id"])
            for row in rows:
                if row["id"] in judged:
                    continue
                if (free := self.place.free_bytes()) < least:
                    raise RefusedError(f"disk: {free} bytes free; below {least} nothing is judged again, so that the screener has "
                                       f"room; said again, it goes on")  # fmt: skip
                if (target := self._target(row)) is None:
                    self.gone += 1
                else:
                    yield target
            last = rows[-1]["id"]

    def _target(self, row: Row) -> Target | None:
        # The name itself may have been taken by another file, which its size need not show; that with the hash is the frame's own.
        for path in reversed(places_of(self.place.done, row["path"], row["sha256"])):
            if path.is_file() and path.stat().st_size == row["file_bytes"]:
                return Target(self.place.done, path.relative_to(self.place.done).as_posix(), archived=row)
        return None

    def passes_over(self, row: Row, why: Exception | Frame) -> None:
        """Count a frame that was to be judged and is not.

        Args:
            row: of the frame.
            why: what was met instead: it went, it could not be decoded, or another one.
        """
        if isinstance(why, FrameVanishedError):
            self.gone += 1
        elif isinstance(why, Frame) and why.sha256 not in (row["sha256"], UNREAD):
            self.changed += 1
        else:
            self.unreadable.append(f"{row['path']}: {why.unreadable if isinstance(why, Frame) else why}")


@dataclass(slots=True)
class OneShot:
    """Screens targets with one inspector.

    Attributes:
        inspector: the engines.
        settings: decoding and decision.
        log: where verdicts are kept, or None to keep none.
        limits: log of the limits, where it is another.
        images: where pictures are kept, or None.
        archive: told of archived targets that have no row, or None.
        lost: pictures that could not be kept; the verdict does not wait for them.
    """

    inspector: Inspector
    settings: Settings
    log: VerdictLog | None = None
    limits: VerdictLog | None = None
    images: ImageStore | None = None
    archive: Archive | None = None
    lost: int = 0

    def screen(self, targets: Iterable[Target]) -> Iterator[Row]:
        """One row a target, in order; decoding runs ahead of inference.

        A file that went meanwhile is RETEST; an archived one that went, is another one, or cannot be decoded though it once
        was, has no row: the bundle may judge it when it can.
        """
        waiting = iter(targets)
        decoding: deque[tuple[Target, Future[Frame]]] = deque()
        largest = DECODED_BYTES  # of the frames' samples: until one is known no more than a few are decoded
        with closing(Sandbox(self.settings)) as sandbox:
            while True:
                for target in islice(waiting, max(0, room_ahead(self.inspector, largest) - len(decoding))):
                    known_as = target.archived["path"] if target.archived else None
                    decoding.append((target, sandbox.submit(target.root, target.relative, known_as=known_as)))
                if not decoding:
                    return
                count = min(worth_together(self.inspector), len(decoding))
                read = [self._result(*decoding.popleft()) for _ in range(count)]
                sizes = [frame.raw.packed.nbytes for frame in read if frame is not None and frame.raw is not None]
                largest = max(largest if largest < DECODED_BYTES else 1, *sizes, 1)
                yield from self._screen([frame for frame in read if frame is not None])

    def _screen(self, frames: Sequence[Frame]) -> Iterator[Row]:
        own, log, limits = self.inspector.bundle, self.log, self.limits or self.log
        known = [log.find_verdict(f.identity.path, f.sha256, own.identity) if log else None for f in frames]
        new = [frame for frame, row in zip(frames, known, strict=True) if row is None]
        judged = iter(judge(
            new, self.inspector, spec=lambda product: limits.spec_for(product, own.spec) if limits else own.spec,
            capture_failed=self.settings.capture_failed,
        ))  # fmt: skip
        for frame, row in zip(frames, known, strict=True):
            if row is not None:
                yield row
                continue
            decided, measurement = next(judged)
            if log is not None:
                try:
                    decided = log.record(frame, decided, origin="screen")
                except FrameVanishedError as error:  # the log has forgotten it
                    if self.archive is not None:
                        self.archive.passes_over({"path": frame.identity.path, "sha256": frame.sha256}, error)
                    continue
                if measurement is not None:
                    self._keep(decided, measurement)
            yield decided

    def _keep(self, row: Row, measurement: Measurement) -> None:
        if self.images is None:
            return
        try:
            self.images.add(row["frame_id"], measurement, seq=row["seq"])
        except sqlite3.Error:
            self.lost += 1

    def _result(self, target: Target, decoded: Future[Frame]) -> Frame | None:
        """The frame; None of an archived one that is not to be had."""
        row = target.archived
        found: Frame | FrameVanishedError
        try:
            found = decoded.result()
        except FrameVanishedError as error:
            found = error
        if row is None:
            return found if isinstance(found, Frame) else _vanished(target.relative, found)
        if isinstance(found, Frame) and found.raw is not None and found.sha256 == row["sha256"]:
            return replace(found, identity=_identity(row))
        if self.archive is not None:
            self.archive.passes_over(row, found)
        return None


def _identity(row: Row) -> Identity:
    """Of a frame of the log."""
    die = None if row["die_x"] is None else (row["die_x"], row["die_y"])
    return Identity(
        path=row["path"], product=row["product"], lot=row["lot"], name=row["name"], wafer=row["wafer"], die=die
    )


def _vanished(relative: str, error: FrameVanishedError) -> Frame:
    return Frame(
        identity=identify(relative), sha256=UNREAD, file_bytes=0, raw=None, unreadable=str(error), decode_ms=0.0
    )
