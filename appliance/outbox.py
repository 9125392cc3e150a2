"""Verdict files: written to a temporary name, fsynced, renamed; only after the commit."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from appliance.errors import OutOfServiceError
from appliance.frame import stem_of
from appliance.verdict import document


def outbox_path(outbox: Path, row: Mapping[str, Any], *, whole_name: bool) -> Path:
    """<product>/<lot>/<name>.json, in the folders below the lot that the frame lay in.

    Args:
        outbox: the folder.
        row: of the verdict.
        whole_name: keep the frame's suffix (a.tif.json), where another frame of the lot shares its stem.
    """
    below = PurePosixPath(row["path"]).parts[2:-1]
    name = row["name"] if whole_name else stem_of(row["name"])
    return outbox.joinpath(row["product"], row["lot"], *below, f"{name}.json")


def publish(path: Path, row: Mapping[str, Any]) -> None:
    """Put a verdict file in its place; a reader sees the whole file or none.

    Raises:
        OutOfServiceError: the disk does not take it.
    """
    body = json.dumps(document(row), ensure_ascii=False, separators=(",", ":")) + "\n"
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("w", encoding="utf-8") as file:
            file.write(body)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        raise OutOfServiceError(f"{path}: {error.strerror}") from error


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
