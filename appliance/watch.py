"""Which files of the inbox are complete. Events are hints; the periodic look at the whole folder is the truth."""

from __future__ import annotations

import os
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path

from watchdog.events import FileClosedEvent, FileSystemEvent, FileSystemEventHandler
from watchdog.observers import Observer
from watchdog.observers.api import BaseObserver

from appliance import log as events
from appliance.mounts import NETWORK_FILE_SYSTEMS, file_system_of, is_mount
from appliance.settings import WatchSettings
from appliance.sidecar import SIDECAR_SUFFIX
from appliance.writers import has_writer

_log = events.get()
# Folders made in quick succession make watchdog register one callback twice and warn; a hint more or less is nothing.
warnings.filterwarnings("ignore", message="Callback with id", category=RuntimeWarning)

NEVER_A_LOT = ("lost+found",)  # of a disk's own
FIRST_PAUSE_S, LONGEST_PAUSE_S = 5.0, 3600.0  # before another try to put a file away
Fingerprint = tuple[int, int, int]  # inode, size, mtime_ns


@dataclass(frozen=True, slots=True)
class Candidate:
    """A file that seems complete.

    Attributes:
        path: of the file.
        relative: to the inbox, with forward slashes.
        fingerprint: inode, size and modification time when it was seen.
        rested_s: how long it has been left alone.
    """

    path: Path
    relative: str
    fingerprint: Fingerprint
    rested_s: float


@dataclass(slots=True)
class _Seen:
    fingerprint: Fingerprint
    since: float  # monotonic seconds of the last change
    closed: bool = False  # the writer closed it, or it was moved in whole
    announced: bool = False  # by an event, or it lay here before anybody listened
    offered: bool = False  # handed out; not again until settled or deferred
    settled: bool = False  # dealt with as it is; only a change brings it back
    sidecar: bool = False  # its geometry is there
    tries: int = 0  # to put it away, in vain
    again_at: float | None = None  # monotonic seconds: settled until then
    patient: bool = False  # unreadable so far: only offered again after `incomplete_s`, or changed


def fingerprint_of(path: Path) -> Fingerprint | None:
    """Inode, size and modification time of a regular file; None where there is none."""
    try:
        found = path.stat(follow_symlinks=False)
    except OSError:
        return None
    return (found.st_ino, found.st_size, found.st_mtime_ns) if os.path.isfile(path) else None  # noqa: PTH113


class _Hints(FileSystemEventHandler):
    """Collects paths from the observer's thread and wakes the loop."""

    def __init__(self) -> None:
        self.wake = threading.Event()
        self._lock = threading.Lock()
        self._announced: dict[str, bool] = {}  # path -> whether it is whole

    def on_any_event(self, event: FileSystemEvent) -> None:
        if isinstance(event, FileClosedEvent):
            self._add(event.src_path, whole=True)
        elif event.event_type == "moved" and not event.is_directory:
            self._add(event.dest_path, whole=True)
        elif event.event_type == "created":
            self._add(event.src_path, whole=False)
        elif event.event_type != "moved":
            return  # our own reading opens and closes files, too
        self.wake.set()

    def _add(self, path: bytes | str, *, whole: bool) -> None:
        name = os.fsdecode(path)
        with self._lock:
            self._announced[name] = whole or self._announced.get(name, False)

    def take(self) -> dict[str, bool]:
        self.wake.clear()
        with self._lock:
            announced, self._announced = self._announced, {}
        return announced


@dataclass(slots=True)
class Watcher:
    """Watches an inbox for complete files; used by one thread.

    Attributes:
        inbox: the folder.
        settings: when a file is complete, and what is never a frame.
        clock: monotonic seconds; replaced in tests.
        events_lost: files that a look found and no event announced while events were listened to.
        closed: folders below the inbox that could not be listed at the last look, and why.
    """

    inbox: Path
    settings: WatchSettings
    clock: Callable[[], float] = time.monotonic
    _seen: dict[str, _Seen] = field(default_factory=dict)
    _hints: _Hints = field(default_factory=_Hints)
    _observer: BaseObserver | None = None
    _watched: tuple[int, int] | None = None
    _listening: bool = False
    _next_scan: float = 0.0
    _last_scan: float = float("-inf")
    _new_here: bool = True
    _just_watching: bool = True
    _mounted: bool = False
    _is_local: bool = False
    events_lost: int = 0
    closed: dict[str, str] = field(default_factory=dict)

    def start(self) -> None:
        """Begin to listen for events; without them the re-scan alone finds everything."""
        self._listening = True
        self._mounted = self.settings.mounted or is_mount(self.inbox)
        self._watch_again()

    def stop(self) -> None:
        """Stop listening."""
        self._listening = False
        self._stop_observer()

    def _stop_observer(self) -> None:
        if self._observer is not None:
            self._observer.stop()
            self._observer.join()
            self._observer = None

    def wait(self, timeout_s: float) -> None:
        """Sleep until an event comes or the time is over."""
        self._hints.wake.wait(max(0.0, min(timeout_s, self._next_scan - self.clock())))

    @property
    def present(self) -> bool:
        """Whether the inbox is there; one that is a mount is not while nothing is mounted."""
        # os.path's answer to a dead mount is no, pathlib's an error.
        return os.path.isdir(self.inbox) and (not self._mounted or is_mount(self.inbox))  # noqa: PTH112

    @property
    def listening(self) -> bool:
        """Whether events are listened to; else the re-scan alone finds files."""
        return self._observer is not None

    @property
    def waiting(self) -> int:
        """Files seen that have not been dealt with."""
        return sum(not s.settled for s in self._seen.values())

    def poll(self, *, busy: bool = False) -> list[Candidate]:
        """Look at the inbox if an event came or it is time; complete files, oldest first, each once.

        Args:
            busy: there is work in hand: only look when `rescan_s` is over.
        """
        now = self.clock()
        if now < (self._last_scan + self.settings.rescan_s if busy else self._next_scan) and (
            busy or not self._hints.wake.is_set()
        ):
            return []
        self._watch_again()
        announced = self._hints.take()
        files = dict(self._files()) if self.present else {}
        for gone in self._seen.keys() - files.keys():
            del self._seen[gone]
        ready = [c for relative, found in files.items() if (c := self._look(relative, *found, announced, now))]
        self._last_scan = self.clock()
        resting = any(not (s.offered or s.settled or s.patient) for s in self._seen.values())
        soon = max(0.05, self.settings.settle_s / 2) if resting else self.settings.rescan_s
        self._next_scan = self._last_scan + min(self.settings.rescan_s, soon)
        self._new_here = self._just_watching = False
        return sorted(ready, key=lambda c: c.fingerprint[2])

    def settle(self, candidate: Candidate) -> None:
        """The file was dealt with: not again unless it changes."""
        if seen := self._seen.get(candidate.relative):
            seen.settled, seen.offered = seen.fingerprint == candidate.fingerprint, False

    def defer(self, candidate: Candidate) -> None:
        """The file could not be read yet: again when it changes, or for the last time after `incomplete_s`."""
        if seen := self._seen.get(candidate.relative):
            seen.offered, seen.patient = False, seen.fingerprint == candidate.fingerprint

    def try_later(self, candidate: Candidate) -> None:
        """The file was dealt with but cannot be put away: once more later, each time twice as much later."""
        if seen := self._seen.get(candidate.relative):
            self.settle(candidate)
            seen.again_at = self.clock() + min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2.0**seen.tries)
            seen.tries += 1

    def offer_again(self, candidate: Candidate) -> None:
        """Nothing is wrong with the file, only its time had not come: again at the next look."""
        if seen := self._seen.get(candidate.relative):
            seen.offered = False

    def _look(
        self, relative: str, fingerprint: Fingerprint, sidecar: bool, announced: dict[str, bool], now: float
    ) -> Candidate | None:
        path = self.inbox / relative
        seen = self._seen.get(relative)
        if seen is None:
            # Files that lay here before us have rested by the wall clock; a new one may carry an old time.
            age = max(0.0, time.time() - fingerprint[2] / 1e9) if self._new_here else 0.0
            seen = self._seen[relative] = _Seen(fingerprint, now - min(age, 86400.0), announced=self._just_watching)
        elif seen.fingerprint != fingerprint:
            self._seen[relative] = seen = _Seen(
                fingerprint, now, offered=seen.offered, announced=seen.announced or seen.settled
            )
        if (whole := announced.get(str(path))) is not None:
            seen.announced, seen.closed = True, seen.closed or whole
        if sidecar and not seen.sidecar:
            seen.sidecar, seen.patient = True, False
        if seen.again_at is not None and now >= seen.again_at:
            seen.settled, seen.again_at = False, None
        rested = now - seen.since
        enough = self.settings.incomplete_s if seen.patient else 0.0 if seen.closed else self.settings.settle_s
        if seen.offered or seen.settled or rested < enough:
            return None
        if rested < self.settings.incomplete_s and self._tells_of_writers(path) and has_writer(path):
            return None
        seen.offered = True
        if self._observer is not None and not seen.announced:
            self.events_lost += 1
            seen.announced = True
        return Candidate(path, relative, fingerprint, rested)

    def _tells_of_writers(self, path: Path) -> bool:
        """Whether a file lies on the inbox's own disk; a share refuses leases for reasons of its own."""
        try:
            return self._is_local and self._watched is not None and path.lstat().st_dev == self._watched[0]
        except OSError:
            return False

    def _files(self) -> Iterator[tuple[str, tuple[Fingerprint, bool]]]:
        """Regular files below the inbox that may be frames, and whether they have a sidecar; links are never followed."""
        closed: dict[str, str] = {}
        never = (*self.settings.ignore, *NEVER_A_LOT)
        folders = [""]
        while folders:
            folder = folders.pop()
            try:
                entries = list(os.scandir(self.inbox / folder))
            except (FileNotFoundError, NotADirectoryError):
                continue  # gone since it was listed
            except OSError as error:
                closed[folder] = error.strerror or str(error)
                continue
            names = {entry.name for entry in entries}
            for entry in entries:
                if any(fnmatch(entry.name, pattern) for pattern in never):
                    continue
                relative = f"{folder}/{entry.name}" if folder else entry.name
                try:
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(relative)
                    elif entry.is_file(follow_symlinks=False) and not entry.name.lower().endswith(SIDECAR_SUFFIX):
                        found = entry.stat(follow_symlinks=False)
                        print_ = (found.st_ino, found.st_size, found.st_mtime_ns)
                        yield relative, (print_, entry.name + SIDECAR_SUFFIX in names)
                except OSError:
                    continue  # gone between the listing and the look
        self.closed = closed

    def _watch_again(self) -> None:
        """Listen to the folder that is there now: a folder made anew has another inode, and its events never come."""
        try:
            found = self.inbox.stat()
            identity: tuple[int, int] | None = (found.st_dev, found.st_ino)
        except OSError:
            identity = None
        deaf = self._observer is not None and not _hears(self._observer)
        if not self._listening or (identity == self._watched and not deaf):
            return
        self._stop_observer()
        self._watched = identity
        self._just_watching = True  # what lies there now was announced to nobody
        if identity is None:
            return
        kind = file_system_of(self.inbox)
        self._is_local = kind not in NETWORK_FILE_SYSTEMS and not kind.startswith("fuse")
        if deaf or not self._is_local:
            reason = "events stopped coming: inotify's limits?" if deaf else f"{kind} tells of no events"
            _log.warning(events.NO_EVENTS, inbox=str(self.inbox), reason=reason)
            return
        observer = Observer()
        observer.schedule(self._hints, str(self.inbox), recursive=True)
        try:
            observer.start()
        except OSError as error:  # inotify's limits: the re-scan alone finds everything, a little later
            _log.warning(events.NO_EVENTS, inbox=str(self.inbox), reason=str(error))
            return
        self._observer = observer


def _hears(observer: BaseObserver) -> bool:
    """Whether all threads that read events live: one that meets a limit of inotify ends."""
    return observer.is_alive() and all(emitter.is_alive() for emitter in observer.emitters)
