"""A file in the inbox -> a Frame: opened once, hashed, decoded."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from appliance.decode import decode
from appliance.errors import FrameError, FrameVanishedError, OutOfServiceError
from appliance.frame import Frame, identify
from appliance.settings import LimitSettings, Settings
from appliance.sidecar import SIDECAR_SUFFIX, Sidecar, read_sidecar

UNREAD = "0" * 64


@dataclass(frozen=True, slots=True)
class OpenFrame:
    """A frame's file and its sidecar, opened once; what is decoded is what lies in these.

    Attributes:
        file: of the frame; None where it may not be opened.
        sidecar: beside it, or None where there is none.
        problem: why the frame or its sidecar may not be opened, or None.
    """

    file: int | None
    sidecar: int | None
    problem: str | None

    def close(self) -> None:
        """Close both."""
        for descriptor in (self.file, self.sidecar):
            if descriptor is not None:
                os.close(descriptor)


_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def open_frame(root: Path, relative: str) -> OpenFrame:
    """Open a frame and its sidecar; no symbolic link below `root` is followed.

    Args:
        root: the inbox, or any folder.
        relative: path below it, with forward slashes, as the file system spells it.

    Raises:
        FrameVanishedError: the file is gone, or there is a link or no regular file in its place now.
    """
    *folders, name = PurePosixPath(relative).parts
    try:
        with _folder(root, folders) as folder:
            file = _open(folder, name)
            if file is None:
                raise FrameVanishedError(f"{name}: no regular file now")
            return _with_sidecar(file, folder, name + SIDECAR_SUFFIX)
    except FileNotFoundError as error:
        raise FrameVanishedError(f"{name}: gone") from error
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENOTDIR):
            raise FrameVanishedError(f"{name}: behind a link now") from error
        return OpenFrame(None, None, f"cannot be opened: {_its_own(error, name)}")


# What the mount or this process lacks for the moment is no fault of the file that was asked for.
_OF_THE_SHARE = (errno.ESTALE, errno.ENOTCONN, errno.ENODEV, errno.ENXIO, errno.ETIMEDOUT, errno.EHOSTDOWN,
                 errno.EHOSTUNREACH, errno.ECONNABORTED, errno.ECONNRESET, errno.EINTR, errno.EAGAIN)  # fmt: skip
_OF_THE_PROCESS = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS)


def _its_own(error: OSError, name: str) -> str:
    """Why a file cannot be read, where that is the file's own fault.

    Raises:
        FrameVanishedError: its share is gone.
        OutOfServiceError: this process can open nothing more.
    """
    if error.errno in _OF_THE_PROCESS:
        raise OutOfServiceError(f"{name}: {error.strerror}") from error
    if error.errno in _OF_THE_SHARE:
        raise FrameVanishedError(f"{name}: {error.strerror}") from error
    return error.strerror or str(error)


@contextmanager
def _folder(root: Path, below: Sequence[str]) -> Iterator[int]:
    """The folder at the end of a path, opened step by step."""
    folder = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for name in below:
            inner = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
            os.close(folder)
            folder = inner
        yield folder
    finally:
        os.close(folder)


def _open(folder: int, name: str) -> int | None:
    """A regular file; None where something else has the name."""
    file = os.open(name, _READ, dir_fd=folder)
    if stat.S_ISREG(os.fstat(file).st_mode):
        return file
    os.close(file)
    return None


def _with_sidecar(file: int, folder: int, name: str) -> OpenFrame:
    try:
        return OpenFrame(file, _open(folder, name), None)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ELOOP, errno.ENAMETOOLONG):  # no sidecar, or none that counts
            return OpenFrame(file, None, None)
        return OpenFrame(file, None, f"sidecar {name}: {_its_own(error, name)}")


def read_frame(path: Path, relative: str, settings: Settings) -> Frame:
    """Read and decode a file once, in this process: for files that are trusted; all others go through a sandbox.

    Args:
        path: of the file.
        relative: its path in the inbox, which says product, lot and name.
        settings: limits, formats and the pattern of names.

    Returns:
        The frame; where its samples cannot be read, with the reason in `unreadable`.

    Raises:
        FrameVanishedError: the file is gone, or changed while it was read.
    """
    opened = open_frame(path.parent, path.name)
    try:
        return decode_frame(opened, relative, settings)
    finally:
        opened.close()


def decode_frame(
    opened: OpenFrame, relative: str, settings: Settings, *, room: Callable[[int], memoryview] | None = None
) -> Frame:
    """Read and decode what was opened; the bytes that are hashed are the bytes that are decoded.

    Args:
        opened: the files.
        relative: as read_frame.
        settings: as read_frame.
        room: makes the memory, writable, that the file's content goes to; samples may be views of it.

    Raises:
        FrameVanishedError: the file changed while it was read.
    """
    began = time.perf_counter()
    name = PurePosixPath(relative).name
    content, sha256, size, problem = _read(opened, name, settings.limits, room or (lambda n: memoryview(bytearray(n))))
    sidecar, raw = Sidecar(), None
    try:
        sidecar = read_sidecar(opened.sidecar, name + SIDECAR_SUFFIX)
        if problem is None:
            raw = decode(content, name, relative, sidecar, settings)
    except (FrameError, MemoryError) as error:
        problem = str(error) or "not enough memory"
    return Frame(
        identity=identify(relative, name_pattern=settings.name_pattern, wafer=sidecar.wafer, die=sidecar.die),
        sha256=sha256, file_bytes=size, raw=raw, unreadable=problem,
        decode_ms=(time.perf_counter() - began) * 1e3,
    )  # fmt: skip


def _read(
    opened: OpenFrame, name: str, limits: LimitSettings, room: Callable[[int], memoryview]
) -> tuple[memoryview, str, int, str | None]:
    """Bytes, SHA-256, size and, where the file cannot be taken in, why."""
    nothing = memoryview(b"")
    if opened.file is None:
        return nothing, UNREAD, 0, opened.problem
    try:
        before = os.fstat(opened.file)
        if before.st_size > limits.file_bytes:
            reason = f"{before.st_size} bytes, limit {limits.file_bytes}"
            return nothing, hash_of(opened.file), before.st_size, reason
        content = room(before.st_size)
        with open(opened.file, "rb", buffering=0, closefd=False) as file:
            count = 0
            while count < before.st_size and (n := file.readinto(content[count:])):
                count += n
            longer = bool(file.read(1))
        after = os.fstat(opened.file)
    except OSError as error:
        return nothing, UNREAD, 0, f"cannot be read: {_its_own(error, name)}"
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns) or longer or count < before.st_size:
        raise FrameVanishedError(f"{name}: changed while it was read")
    return content, hashlib.sha256(content).hexdigest(), len(content), opened.problem


def hash_of(descriptor: int) -> str:
    """SHA-256 of an open file, from its beginning, 64 hex digits."""
    os.lseek(descriptor, 0, os.SEEK_SET)
    with open(descriptor, "rb", buffering=0, closefd=False) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
