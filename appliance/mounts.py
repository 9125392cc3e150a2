"""What is mounted where, as the kernel says."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

NETWORK_FILE_SYSTEMS = (
    "nfs",
    "nfs4",
    "cifs",
    "smb3",
    "smbfs",
    "9p",
    "afs",
    "ceph",
    "glusterfs",
    "fuse.sshfs",
    "fuse.glusterfs",
)


def _mounts() -> Iterator[tuple[Path, str]]:
    """Mount points and types of file systems, in the order in which they were mounted; none where it cannot be told."""
    try:
        lines = Path("/proc/self/mountinfo").read_bytes().decode(errors="surrogateescape").splitlines()
    except OSError:
        return
    for line in lines:
        left, _, right = line.partition(" - ")
        point = re.sub(r"\\([0-7]{3})", lambda m: chr(int(m[1], 8)), left.split()[4])
        yield Path(point), right.split()[0]


def file_system_of(path: Path) -> str:
    """Type of the file system that holds a path, as the kernel names it; "" where it cannot be told."""
    here, found, longest = path.resolve(), "", -1
    for point, kind in _mounts():
        if here.is_relative_to(point) and len(point.parts) >= longest:
            found, longest = kind, len(point.parts)
    return found


def is_mount(path: Path) -> bool:
    """Whether something is mounted just there, be it another folder of the same disk."""
    here = path.resolve()
    return any(point == here for point, _ in _mounts())
