"""A process that decodes frames for a sandbox and may do little else: limited memory, time and files.

On standard input come the settings, on the socket, for each frame, its path and open files; back go the frame without
its samples, and the samples as a file in memory.
"""

from __future__ import annotations

import ctypes
import gc
import json
import mmap
import os
import resource
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from appliance.errors import FrameVanishedError
from appliance.frame import Frame
from appliance.reading import OpenFrame, decode_frame
from appliance.settings import LimitSettings, Settings

LONGEST_MESSAGE = 1 << 16  # bytes; reasons and paths are shorter
READY = b"ready"
LOST_SHARE = 8  # of the address space that it may have; beyond what the first frame left
_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS = 1, 38


def main(descriptor: int) -> None:
    """Decode until the other end of the socket is closed."""
    channel = socket.socket(fileno=descriptor)
    settings = Settings.model_validate_json(sys.stdin.buffer.read())
    _limit(settings)
    channel.sendall(READY)
    worker = _Upkeep(settings.limits)
    while True:
        message, files, _flags, _address = socket.recv_fds(channel, LONGEST_MESSAGE, 2)
        if not message:
            return
        _restart_clock(settings)
        asked = json.loads(message)
        file, sidecar = (files.pop(0) if asked[name] else None for name in ("file", "sidecar"))
        opened = OpenFrame(file, sidecar, asked["problem"])
        try:
            _answer(channel, opened, asked["relative"], settings, worker)
        finally:
            opened.close()


class _Upkeep:
    """What frames leave behind in this process."""

    def __init__(self, limits: LimitSettings) -> None:
        self._may_lose = limits.decode_bytes // LOST_SHARE
        self._modules = 0
        self._small: int | None = None  # address space after the first frame

    def tidy(self) -> None:
        """Free what the frame before left in cycles: maps of its memory, each with a descriptor."""
        gc.collect()
        if len(sys.modules) != self._modules:
            self._modules = len(sys.modules)
            gc.freeze()  # what modules made is not looked through each time

    @property
    def grown(self) -> bool:
        """Whether libraries have lost so much memory that this process had better be replaced."""
        size = int(Path("/proc/self/statm").read_text().split()[0]) * mmap.PAGESIZE
        if self._small is None:
            self._small = size
        return size - self._small > self._may_lose


def _limit(settings: Settings) -> None:
    """No privileges to gain, no core files, no files written, bounded memory; ends with its parent."""
    libc = ctypes.CDLL(None, use_errno=True)
    for option, value in ((_PR_SET_PDEATHSIG, signal.SIGKILL), (_PR_SET_NO_NEW_PRIVS, 1)):
        if libc.prctl(option, value, 0, 0, 0):
            raise OSError(ctypes.get_errno(), f"prctl {option}")
    limits = settings.limits
    largest = max(limits.file_bytes, 2 * limits.pixels) + mmap.PAGESIZE  # samples go to a file in memory
    for kind, value in (
        (resource.RLIMIT_CORE, 0), (resource.RLIMIT_FSIZE, largest), (resource.RLIMIT_AS, limits.decode_bytes),
        (resource.RLIMIT_NOFILE, 256),
    ):  # fmt: skip
        hard = resource.getrlimit(kind)[1]
        wanted = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(kind, (wanted, wanted))


def _restart_clock(settings: Settings) -> None:
    """Let the kernel end this process when one frame takes too much of the processor."""
    used = time.process_time()
    hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
    resource.setrlimit(resource.RLIMIT_CPU, (int(used + settings.limits.decode_s) + 1, hard))


class _Memory:
    """Files in memory that this process made for one frame: the file's content, and samples that are no view of it."""

    def __init__(self) -> None:
        self.descriptors: list[int] = []
        self.maps: list[np.ndarray[Any, np.dtype[np.uint8]]] = []

    def room(self, nbytes: int) -> memoryview:
        """Writable memory."""
        if not nbytes:
            return memoryview(b"")
        descriptor = os.memfd_create("umbra-frame", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        self.descriptors.append(descriptor)
        os.ftruncate(descriptor, nbytes)
        content = memoryview(mmap.mmap(descriptor, nbytes))
        self.maps.append(np.frombuffer(content, np.uint8))
        return content

    def holding(self, packed: np.ndarray[Any, np.dtype[np.uint8]]) -> tuple[int, int]:
        """The file in memory that holds an array, and where in it; a copy is made where none does."""
        for descriptor, known in zip(self.descriptors, self.maps, strict=True):
            offset = packed.ctypes.data - known.ctypes.data
            if 0 <= offset <= known.size - packed.size:
                return descriptor, offset
        self.room(packed.size)
        self.maps[-1][:] = packed
        return self.descriptors[-1], 0

    def close(self) -> None:
        for descriptor in self.descriptors:
            os.close(descriptor)


def _answer(channel: socket.socket, opened: OpenFrame, relative: str, settings: Settings, worker: _Upkeep) -> None:
    worker.tidy()
    memory = _Memory()
    try:
        try:
            frame = decode_frame(opened, relative, settings, room=memory.room)
        except FrameVanishedError as error:
            channel.sendall(json.dumps({"vanished": str(error), "retiring": worker.grown}).encode())
            return
        except Exception as error:  # noqa: BLE001  (what no decoder foresaw is this frame's fate, not the process's)
            failed = f"the decoder failed: {type(error).__name__}: {error}"
            channel.sendall(json.dumps({"failed": failed[:500], "retiring": worker.grown}).encode())
            return
        files: list[int] = []
        told = _told(frame) | {"retiring": worker.grown}
        if frame.raw is not None:
            descriptor, offset = memory.holding(frame.raw.packed)
            files, told["offset"] = [descriptor], offset
        socket.send_fds(channel, [json.dumps(told).encode()], files)
    finally:
        memory.close()


def _told(frame: Frame) -> dict[str, Any]:
    """A frame without its samples."""
    identity, raw = frame.identity, frame.raw
    told: dict[str, Any] = {
        "wafer": identity.wafer, "die": identity.die, "sha256": frame.sha256, "file_bytes": frame.file_bytes,
        "unreadable": frame.unreadable, "decode_ms": frame.decode_ms,
    }  # fmt: skip
    if raw is not None:
        told["raw"] = {"width": raw.width, "height": raw.height, "stride": raw.stride, "layout": int(raw.layout),
                       "bits": raw.bits, "bytes": raw.packed.size}  # fmt: skip
    return told


if __name__ == "__main__":
    main(int(sys.argv[1]))
