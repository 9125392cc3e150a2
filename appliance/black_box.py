"""What a screener leaves behind when it dies: how, over which frames, and how often of late.

SIGKILL and a loss of power leave no trace, and no frame is blamed for them. A fatal signal (a crash in an engine, the
watchdog's SIGABRT) leaves its stack, written by faulthandler; an error that ends the process is written down here.
The files are made once and written in place, so that a full disk takes nothing from them.
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
    """Written by the one screener of a station; the files are `.in-hand`, `.crash` and `.deaths`.

    As a context it writes down the error that ends it, and closes.

    Args:
        station: where.
        clock: seconds since 1970.
    """

    def __init__(self, station: Station, *, clock: Callable[[], float] = time.time) -> None:
        self._in_hand, self._crash, self._deaths = (_open(station.root / n) for n in (".in-hand", ".crash", ".deaths"))
        self.crash = self._take_crash()
        self._recent = [t for t in _list(self._deaths) if 0 <= clock() - t < RECENT_S]
        if self.crash is not None:
            self._recent = [*self._recent[-50:], clock()]
            _write(self._deaths, json.dumps(self._recent))
        faulthandler.enable(self._crash, all_threads=True)

    def _take_crash(self) -> Crash | None:
        how = _read(self._crash)
        frames = tuple((path, sha256) for path, sha256 in _list(self._in_hand))
        os.pwrite(self._crash, bytes(ROOM), 0)
        os.lseek(self._crash, 0, os.SEEK_SET)  # where faulthandler writes
        self.hold(())
        return Crash(how, frames) if how else None

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
        if isinstance(error, Exception):
            _write(self._crash, f"{type(error).__name__}: {error}")
        faulthandler.disable()
        for descriptor in (self._in_hand, self._crash, self._deaths):
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
