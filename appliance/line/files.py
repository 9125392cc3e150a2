"""Verdict files: written to a temporary name, fsynced, renamed; only after the commit, by the screener itself."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from appliance.errors import NotNowError, OutboxBlockedError, OutOfServiceError
from appliance.frame import stem_of
from appliance.verdict import document

LONGEST_NAME = 240  # bytes, so that .json fits in 255
_BLOCKED = (errno.ENAMETOOLONG, errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.ENOTEMPTY, errno.ELOOP)


def outbox_paths(outbox: Path, row: Mapping[str, Any]) -> list[Path]:
    """Where a verdict may stand, best first: <name>.json, then with the frame's suffix, then with its hash, too.

    The later ones are for frames that share a folder and a stem. Below <product>/<lot>, folders are kept.
    """
    folder = outbox.joinpath(row["product"], row["lot"], *PurePosixPath(row["path"]).parts[2:-1])
    sha8 = row["sha256"][:8]
    names = (stem_of(row["name"]), row["name"], f"{row['name']}.{sha8}")
    short = (
        name if len(name.encode()) <= LONGEST_NAME else f"{name.encode()[:180].decode(errors='ignore')}.{sha8}"
        for name in names
    )
    return [folder / f"{name}.json" for name in short]


def told_by(path: Path) -> dict[str, Any] | None:
    """The verdict that a file holds; None where it holds none."""
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return told if isinstance(told, dict) and isinstance(told.get("seq"), int) else None


def seq_of(path: Path) -> int | None:
    """Number of the verdict that a file holds; None where it holds none."""
    told = told_by(path)
    return None if told is None else told["seq"]


def publish(path: Path, row: Mapping[str, Any], *, done: bool = False) -> None:
    """Put a verdict file in its place; a reader sees the whole file or none.

    Args:
        path: of the verdict file.
        row: the verdict.
        done: afterwards put a file beside it that says so, <name>.done, with the verdict's number.

    Raises:
        OutboxBlockedError: this name cannot be had: a folder stands there, or the path is too long.
        NotNowError: there is no room.
        OutOfServiceError: the disk does not take it.
    """
    body = json.dumps(document(row), ensure_ascii=False, separators=(",", ":")) + "\n"
    temporary = path.with_name(f".{row['seq']}.tmp")
    try:
        try:
            _write(path, temporary, body)
        except FileNotFoundError:
            _write(path, temporary, body)  # retention takes empty folders: one may have gone as soon as it was there
        if done:
            _write(path.with_suffix(".done"), temporary, f"{row['seq']}\n")
    except OSError as error:
        kind = OutboxBlockedError if error.errno in _BLOCKED else NotNowError if is_full(error) else OutOfServiceError
        raise kind(f"{path}: {error.strerror}") from error


def _write(path: Path, temporary: Path, body: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with temporary.open("w", encoding="utf-8") as file:
        file.write(body)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    sync_folder(path.parent)


def is_full(error: OSError) -> bool:
    """Whether a disk or a quota has no room left."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
