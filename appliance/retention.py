"""What a station forgets, by age and when its disk fills: pictures and put-away frames first, verdicts last.

A frame without a verdict is never deleted, nor anything of a frame that a person labeled, or that is in a rating session.
"""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path

from appliance.again import AgainLog
from appliance.errors import ApplianceError
from appliance.images import ImageStore
from appliance.line.feed import key_of
from appliance.put_away import judged_frame, put_away_files
from appliance.sidecar import SIDECAR_SUFFIX
from appliance.station import Station
from appliance.times import utc_of
from appliance.verdict_log import LARGEST_SEQ, VerdictLog

DAY_S = 86400.0
EMPTY_S = 60.0  # somebody may be about to write into a folder that is younger
_OF_OTHERS = (".*.tmp", ".*.part")  # under way to their names
CHUNK = 500  # rows deleted at once: nobody waits long for the log


@dataclass(slots=True)
class Report:
    """What was deleted.

    Attributes:
        pictures, frames, files, verdicts: how many pictures of frames, frames in done/ and quarantine/, files in the
            outbox, and verdicts.
        verdicts_again: how many that other bundles gave on archived frames which the log has forgotten.
        bytes_: of frames and files in the outbox.
        kept: frames in done/ and quarantine/ that were due but have no verdict in the log.
        troubles: what could not be done.
    """

    pictures: int = 0
    frames: int = 0
    files: int = 0
    verdicts: int = 0
    verdicts_again: int = 0
    bytes_: int = 0
    kept: list[str] = field(default_factory=list)
    troubles: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _File:
    path: Path
    since: float  # when it came into its folder: the time of its last change of name, seconds since 1970
    size: int


@dataclass(frozen=True, slots=True)
class Retention:
    """Deletes what a station's settings let go; beside a running screener, in a process of its own.

    Attributes:
        station: its folders and settings.
        log: open for writing.
        now: seconds since 1970.
    """

    station: Station
    log: VerdictLog
    now: float = field(default_factory=time.time)

    def run(self) -> Report:
        """Delete what is due: pictures, frames in done/ and quarantine/, files in the outbox, verdicts, in this order.

        Pictures of what was judged again go by the same rules, and first; verdicts there go with those of the line.
        """
        report = Report()
        Retention(self.station.again, self.log, self.now)._pictures_or_trouble(report)
        self._pictures_or_trouble(report)
        self._frames(report)
        wanted = self.station.settings.retention
        if wanted.outbox_days:
            for file in self._files(self.station.outbox, before=self._cutoff(wanted.outbox_days)):
                self._delete(file, report)
                report.files += 1
        if wanted.verdicts_days:
            report.verdicts = self._verdicts(utc_of(self._cutoff(wanted.verdicts_days)), report)
        self._follow_in_again(report)
        for folder in (self.station.done, self.station.quarantine, self.station.outbox):
            _remove_empty(folder, before=self.now - EMPTY_S)
        return report

    def _follow_in_again(self, report: Report) -> None:
        if not self.station.again.database.exists():
            return
        try:
            with closing(AgainLog(self.station, self.log)) as again:
                report.verdicts_again = again.follow(self.log)
        except ApplianceError as error:  # nothing of the line hangs on it
            report.troubles.append(str(error))

    def _verdicts(self, before: str, report: Report) -> int:
        """Forget verdicts that every host on the line has taken."""
        cursors = {name: self.log.find_cursor(key_of(name)) for name in self.station.settings.line.protocols}
        taken = {name: cursor for name, cursor in cursors.items() if cursor is not None}
        behind = min(taken, key=lambda name: taken[name], default=None)
        gone = self.log.forget(before, chunk=CHUNK, up_to=LARGEST_SEQ if behind is None else taken[behind])
        if behind is not None and self.log.is_due(before, after=taken[behind]):
            report.troubles.append(
                f"verdicts after number {taken[behind]} stay: the host by {behind} has not taken them"
            )
        return gone

    def _cutoff(self, days: float) -> float:
        return self.now - days * DAY_S

    def _short_of(self) -> int:
        """Bytes that are wanted free and are not."""
        return self.station.settings.retention.free_bytes - self.station.free_bytes()

    def _pictures_or_trouble(self, report: Report) -> None:
        try:
            self._pictures(report)
        except sqlite3.Error as error:  # pictures may be lost; the disk must not fill over them
            report.troubles.append(f"{self.station.images}: {error}; it may be deleted")

    def _pictures(self, report: Report) -> None:
        if not self.station.images.exists():
            return
        wanted = self.station.settings.retention
        staying = self.log.frames_that_stay()
        store = ImageStore(self.station.images)
        try:
            if wanted.images_days:
                newest = self.log.newest_frame_before(utc_of(self._cutoff(wanted.images_days)))
                report.pictures += store.forget(kept=staying, up_to=newest)
            while (wanted.images_bytes and store.size() > wanted.images_bytes) or self._short_of() > 0:
                gone = store.forget(kept=staying, count=CHUNK)
                report.pictures += gone
                if not gone:
                    break
                store.shrink()
            store.shrink()
        finally:
            store.close()

    def _frames(self, report: Report) -> None:
        wanted = self.station.settings.retention
        staying = self.log.frames_that_stay()
        left = 0
        oldest_first: list[_File] = []
        for folder, days in ((self.station.done, wanted.done_days), (self.station.quarantine, wanted.quarantine_days)):
            for file in self._files(folder):
                if days and file.since < self._cutoff(days):
                    self._let_go(file, folder, staying, report)
                elif folder == self.station.done:
                    oldest_first.append(file)
                    left += file.size
        for file in oldest_first:
            if not (wanted.done_bytes and left > wanted.done_bytes) and self._short_of() <= 0:
                break
            if self._let_go(file, self.station.done, staying, report):
                left -= file.size

    def _let_go(self, file: _File, folder: Path, staying: set[int], report: Report) -> bool:
        """Delete a put-away frame, if its verdict is in the log and no person labeled or rates it; whether it went."""
        relative = file.path.relative_to(folder)
        frame_id = judged_frame(
            self.log, folder, file.path, quarantine=folder == self.station.quarantine, staying=staying
        )
        if frame_id is None:
            report.kept.append(relative.as_posix())
            return False
        if frame_id in staying:
            return False
        self._delete(file, report)
        file.path.with_name(file.path.name + SIDECAR_SUFFIX).unlink(missing_ok=True)
        report.frames += 1
        return True

    @staticmethod
    def _delete(file: _File, report: Report) -> None:
        file.path.unlink(missing_ok=True)
        report.bytes_ += file.size

    @staticmethod
    def _files(folder: Path, *, before: float = float("inf")) -> list[_File]:
        """Files below a folder, oldest first; sidecars are not counted."""
        found = []
        for path in put_away_files(folder):
            if any(path.match(pattern) for pattern in _OF_OTHERS):
                continue
            with suppress(FileNotFoundError):  # given its name, or taken by somebody, since it was listed
                status = path.lstat()
                if status.st_ctime < before:
                    found.append(_File(path, status.st_ctime, status.st_size))
        return sorted(found, key=lambda f: f.since)


def _remove_empty(folder: Path, *, before: float) -> None:
    """Folders below one in which nothing is left, and in which nothing has happened since a time."""
    for path in sorted((p for p in folder.rglob("*") if p.is_dir() and not p.is_symlink()), reverse=True):
        try:
            if path.lstat().st_mtime < before:
                path.rmdir()
        except OSError:
            continue  # something is in it, or came just now
