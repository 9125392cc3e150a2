"""Whether somebody still has a file open for writing, as the kernel knows.

It grants no read lease on such a file. A lease on another user's file wants CAP_LEASE, which the screener's unit has and keeps
from its children.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import signal
from pathlib import Path

_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL = 47, 4


def has_writer(path: Path) -> bool:
    """Whether a process of this machine has a regular file open for writing.

    False where it cannot be told: another user's file without CAP_LEASE, a file system without leases, a file that is gone.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        return error.errno == errno.EAGAIN  # a file server's lease: its client writes
    try:
        fcntl.fcntl(descriptor, fcntl.F_SETSIG, signal.SIGURG)  # a writer that comes just now: nobody minds this signal
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except OSError as error:
        return error.errno == errno.EAGAIN
    finally:
        os.close(descriptor)  # gives the lease back
    return False


def keep_capabilities_from_children() -> None:
    """What systemd lends this process (AmbientCapabilities) is not for those that it starts."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl PR_CAP_AMBIENT")
