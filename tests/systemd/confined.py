"""Runs a command under the system calls that a unit leaves it, without systemd: `python -m tests.systemd.confined UNIT COMMAND...`

What the unit refuses fails with EPERM, as there; MemoryDenyWriteExecute is the kernel's own of 6.3.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import re
import struct
import subprocess
import sys
from functools import cache
from pathlib import Path

_PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS, _PR_SET_MDWE = 22, 38, 65
_LOAD, _JUMP_IF_EQUAL, _RETURN = 0x20, 0x15, 0x06
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
_SECCOMP_FILTER = 2


@cache
def _numbers() -> dict[str, int]:
    """System calls of this machine by name."""
    command = ["gcc", "-E", "-dM", "-include", "sys/syscall.h", "-x", "c", "/dev/null"]
    defined = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return {name: int(number) for name, number in re.findall(r"#define __NR_(\w+) (\d+)$", defined, re.MULTILINE)}


@cache
def group(name: str) -> frozenset[str]:
    """System calls of one of systemd's groups."""
    told = subprocess.run(
        ["systemd-analyze", "syscall-filter", name], capture_output=True, text=True, check=True
    ).stdout
    words = [line.strip() for line in told.splitlines()[1:] if line.strip() and not line.strip().startswith("#")]
    return frozenset(call for word in words for call in (group(word) if word.startswith("@") else {word}))


def allowed(unit: Path) -> frozenset[str]:
    """System calls that a unit leaves: its first line names groups, the later ones take groups away."""
    found: frozenset[str] = frozenset()
    for line in re.findall(r"^SystemCallFilter=(.*)$", unit.read_text(), re.MULTILINE):
        calls = frozenset(call for word in line.removeprefix("~").split() for call in group(word))
        found = found - calls if line.startswith("~") else found | calls
    return found


def confine(unit: Path) -> None:
    """Give up, for this process and what it starts, what a unit does not leave.

    Raises:
        OSError: this kernel or container does not let it.
    """
    calls = sorted(_numbers()[name] for name in allowed(unit) if name in _numbers())
    program = [(_LOAD, 0, 0, 0)]
    for number in calls:
        program += [(_JUMP_IF_EQUAL, 0, 1, number), (_RETURN, 0, 0, _ALLOW)]
    program.append((_RETURN, 0, 0, _ERRNO | errno.EPERM))
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in program))
    described = struct.pack("HxxxxxxP", len(program), ctypes.addressof(code))
    libc = ctypes.CDLL(None, use_errno=True)
    if "MemoryDenyWriteExecute=yes" in unit.read_text() and libc.prctl(_PR_SET_MDWE, 1, 0, 0, 0):
        sys.stderr.write("this kernel knows no MDWE: memory may be written and executed\n")
    for what in ((_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), (_PR_SET_SECCOMP, _SECCOMP_FILTER, described, 0, 0)):
        if libc.prctl(*what):
            raise OSError(ctypes.get_errno(), f"prctl {what[0]} on {platform.release()}")


if __name__ == "__main__":
    confine(Path(sys.argv[1]))
    os.execv(sys.argv[2], sys.argv[2:])  # noqa: S606
