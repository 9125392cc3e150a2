"""Faults at the n-th system call of a daemon (faults.c)."""

from __future__ import annotations

import ctypes
import hashlib
import mmap
import subprocess
from enum import IntFlag
from pathlib import Path

SOURCE = Path(__file__).parent / "faults.c"
BUILD = Path(__file__).parents[2] / "build" / "faults"


class Call(IntFlag):
    """Which calls count."""

    WRITE = 1  # write, pwrite, ftruncate
    SYNC = 2  # fsync, fdatasync
    RENAME = 4
    SEND = 8  # of a file to a process that decodes


class _Control(ctypes.Structure):
    _fields_ = [
        ("calls", ctypes.c_int32), ("error", ctypes.c_int32), ("countdown", ctypes.c_int64), ("again", ctypes.c_int32),
        ("fired", ctypes.c_int32), ("under", ctypes.c_char * 1024),
        ("part", ctypes.c_char * 64), ("where", ctypes.c_char * 1024),
    ]  # fmt: skip


def library() -> Path:
    """The library to preload, compiled where its source has changed."""
    target = BUILD / f"faults-{hashlib.sha256(SOURCE.read_bytes()).hexdigest()[:16]}.so"
    if not target.exists():
        BUILD.mkdir(parents=True, exist_ok=True)
        made = target.with_suffix(".tmp")
        command = [
            "gcc",
            "-O2",
            "-Wall",
            "-Wextra",
            "-Werror",
            "-fPIC",
            "-shared",
            str(SOURCE),
            "-o",
            str(made),
            "-ldl",
        ]
        subprocess.run(command, check=True)
        made.rename(target)
    return target


class Faults:
    """What happens to the calls of processes that were started with `environment`.

    Args:
        folder: where the control file is made; outside of the station.
        under: only calls on files below this folder count.
    """

    def __init__(self, folder: Path, under: Path) -> None:
        path = folder / "faults"
        path.write_bytes(bytes(ctypes.sizeof(_Control)))
        with path.open("r+b") as file:
            self._control = _Control.from_buffer(mmap.mmap(file.fileno(), 0))
        self._control.under = bytes(under.resolve())
        self.environment = {"LD_PRELOAD": str(library()), "UMBRA_FAULTS": str(path)}

    def arm(self, calls: Call, *, nth: int, error: int, part: str = "", again: bool = False) -> None:
        """The nth of these calls from now on fails with an errno, or, with error 0, kills the process that makes it.

        Args:
            calls: which.
            nth: from 1.
            error: errno.
            part: only calls count in whose path this stands.
            again: all later ones fail as well.
        """
        self.disarm()
        self._control.fired, self._control.error, self._control.again = 0, error, again
        self._control.countdown, self._control.part = nth, part.encode()
        self._control.calls = calls

    def disarm(self) -> None:
        """Nothing happens."""
        self._control.calls = 0

    @property
    def fired(self) -> int:
        """How often it has happened."""
        return int(self._control.fired)

    @property
    def where(self) -> str:
        """Path of the file that it happened to last."""
        return bytes(self._control.where).decode(errors="replace")
