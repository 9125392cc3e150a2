"""What a screener leaves behind when it dies: how, over which frames, and how often of late.

A fatal signal (a crash in an engine, the watchdog's SIGABRT) leaves its stack, written by faulthandler; an error that
ends the process is written down here. SIGKILL, that of a system without memory too, and a loss of power leave no trace:
frames are blamed for them when they were in hand at UNTRACED of them in a row. The files are made once and written in
place, so that a full disk takes nothing from them.
"""

from __future__ import annotations

import faulthandler
import json
import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from appliance.station import Station

ROOM = 1 << 16  # bytes of each file
RECENT_S = 600.0
LONGEST_PAUSE_S = 60.0
UNTRACED = 4  # deaths without a trace over the same frames, until these are blamed
FrameKey = tuple[str, str]  # path in the inbox, SHA-256


@dataclass(frozen=True, slots=True)
class Crash:
    """How the screener before died.

    Attributes:
        how: its stack, or the error.
        in_hand: the frames that it was measuring.
    """

    how: str
    in_hand: tuple[FrameKey, ...]

    @property
    def what(self) -> str:
        """The first line of it."""
        return self.how.splitlines()[0]


class BlackBox:
    """Written by the one screener of a station; the files are `.in-hand`, `.crash`, `.deaths` and `.untraced`.

    As a context it writes down the error that ends it, and closes.

    Args:
        station: where.
        clock: seconds since 1970.

    Attributes:
        crash: how the screener before died, or None; kept until `begin`.
    """

    def __init__(self, station: Station, *, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._in_hand, self._crash, self._deaths, self._untraced = self._files = [
            _open(station.root / name) for name in (".in-hand", ".crash", ".deaths", ".untraced")
        ]
        self._begun = False
        self.crash = self._find_crash()
        self._recent = [t for t in _list(self._deaths) if 0 <= clock() - t < RECENT_S]
        died_at = os.fstat(self._crash).st_mtime
        if self.crash is not None and died_at not in self._recent:
            self._count_death(died_at)

    def _find_crash(self) -> Crash | None:
        how = _read(self._crash)
        frames = tuple((path, sha256) for path, sha256 in _list(self._in_hand))
        if how or not frames:
            return Crash(how, frames) if how else None
        before, times = (_list(self._untraced) or [[], 0])[:2]
        times = times + 1 if before == [list(frame) for frame in frames] else 1
        _write(self._untraced, json.dumps([frames, times]))
        if times < UNTRACED:
            self.hold(())  # counted: a start that comes to nothing is no other death
        return Crash(f"ended {times} times without a trace", frames) if times >= UNTRACED else None

    def _count_death(self, at: float) -> None:
        self._recent = [*self._recent[-50:], at]
        _write(self._deaths, json.dumps(self._recent))

    def begin(self) -> None:
        """The crash before has been told: from now on the next one is written down."""
        with suppress(OSError):
            os.pwrite(self._crash, bytes(ROOM), 0)
        os.lseek(self._crash, 0, os.SEEK_SET)  # where faulthandler writes
        if self.crash is not None:
            _write(self._untraced, "")
        self.hold(())
        faulthandler.enable(self._crash, all_threads=True)
        self._begun = True

    @property
    def pause_s(self) -> float:
        """How long to wait before another attempt: doubled with each death of late."""
        return min(LONGEST_PAUSE_S, 2.0 ** (len(self._recent) - 1)) if len(self._recent) > 1 else 0.0

    @property
    def recent(self) -> int:
        """Deaths in the last RECENT_S seconds."""
        return len(self._recent)

    def hold(self, frames: Sequence[FrameKey]) -> None:
        """These are measured from now on."""
        _write(self._in_hand, json.dumps(list(frames)))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, Exception) and self._begun:
            _write(self._crash, f"{type(error).__name__}: {error}")
        elif isinstance(error, Exception):
            self._count_death(self._clock())
        if self._begun:
            faulthandler.disable()
        for descriptor in self._files:
            os.close(descriptor)


def _open(path: Path) -> int:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    if os.fstat(descriptor).st_size < ROOM:
        os.pwrite(descriptor, bytes(ROOM), 0)
    return descriptor


def _read(descriptor: int) -> str:
    return os.pread(descriptor, ROOM, 0).split(b"\0", 1)[0].decode(errors="replace")


def _list(descriptor: int) -> list[Any]:
    """What was written down; nothing where that was cut short."""
    try:
        found = json.loads(_read(descriptor) or "[]")
    except ValueError:
        return []
    return found if isinstance(found, list) else []


def _write(descriptor: int, text: str) -> None:
    """Some file systems want room even for what is written in place: then nothing is known of this death."""
    content = text.encode(errors="replace")
    with suppress(OSError):
        os.pwrite(descriptor, (content if len(content) < ROOM else content[: ROOM - 1]) + b"\0", 0)
