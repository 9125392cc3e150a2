"""Who a frame is: product, lot, name, wafer and die, from its path and its sidecar."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import PurePosixPath

from kernels import RawFrame

UNNAMED = "default"  # product or lot of a file that lies in no such folder
FARTHEST_DIE = 1 << 31
INBOX_DEPTH = 2  # inbox/<product>/<lot>/<name>


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """A frame's place in production.

    Attributes:
        path: relative to the inbox (or the scanned folder), with forward slashes.
        product, lot: the first two folders of the path, or "default".
        name: file name.
        wafer, die: from the name or the sidecar, or None.
    """

    path: str
    product: str
    lot: str
    name: str
    wafer: str | None = None
    die: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """A frame that was read.

    Attributes:
        identity: who it is.
        sha256: of the file's bytes, 64 hex digits; all zeros where not one of them could be read.
        file_bytes: size of the file.
        raw: its samples, or None where they cannot be read.
        unreadable: why they cannot be read, or None.
        hostile: whether it has cost processes that decode: it is not tried again.
        decode_ms: time from opening the file to its samples.
    """

    identity: Identity
    sha256: str
    file_bytes: int
    raw: RawFrame | None
    unreadable: str | None
    decode_ms: float
    hostile: bool = False


def identify(
    path: str, *, name_pattern: str | None = None, wafer: str | None = None, die: tuple[int, int] | None = None
) -> Identity:
    """Identity of a file by its relative path; `wafer` and `die` (of a sidecar) win over the name's.

    Args:
        path: relative, with forward slashes.
        name_pattern: regular expression with any of the groups wafer, x, y.
        wafer, die: known otherwise.
    """
    path = storable(path)
    parts = PurePosixPath(path).parts
    folders = [*parts[:-1][:INBOX_DEPTH], *[UNNAMED] * INBOX_DEPTH][:INBOX_DEPTH]
    found = re.search(name_pattern, parts[-1]) if name_pattern else None
    groups = found.groupdict() if found else {}
    if die is None:
        die = _die(groups.get("x"), groups.get("y"))
    return Identity(
        path=path, product=folders[0], lot=folders[1], name=parts[-1], wafer=wafer or groups.get("wafer"), die=die
    )


def checked_text(text: str) -> str:
    """The text itself where it can be stored.

    Raises:
        ValueError: it holds a lone surrogate, which fits neither UTF-8 nor a database.
    """
    text.encode()
    return text


def storable(name: str) -> str:
    """A file's name as text that any database and JSON reader takes: bytes that are no UTF-8 become escapes."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def _die(x: str | None, y: str | None) -> tuple[int, int] | None:
    try:
        die = int(x or ""), int(y or "")
    except ValueError:
        return None
    return die if max(map(abs, die)) < FARTHEST_DIE else None


def stem_of(name: str) -> str:
    """A frame's name without its suffix, .gz included."""
    stem = name[:-3] if name.lower().endswith(".gz") else name
    return PurePosixPath(stem).stem or name
