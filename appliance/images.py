"""images.db: the stretched image and the unseen map of each frame as PNG; may be deleted at any time."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from engines import Measurement

_FASTEST = [cv2.IMWRITE_PNG_COMPRESSION, 1]


def to_png(image: NDArray[np.uint8]) -> bytes:
    """(h, w) or (h, w, 3) uint8 -> PNG."""
    _, encoded = cv2.imencode(".png", image, _FASTEST)
    return bytes(encoded)


class ImageStore:
    """The images of frames by their number.

    Args:
        path: of images.db; made when opened for writing.
        readonly: open without writing.
    """

    def __init__(self, path: Path, *, readonly: bool = False) -> None:
        uri = f"{path.resolve().as_uri()}?mode={'ro' if readonly else 'rwc'}"
        self._connection = sqlite3.connect(uri, uri=True, timeout=5, check_same_thread=False, isolation_level=None)
        if not readonly:
            self._connection.execute("PRAGMA journal_mode=WAL")
            self._connection.execute("PRAGMA synchronous=OFF")  # losing a picture loses no verdict
            self._connection.execute(
                "CREATE TABLE IF NOT EXISTS images (frame_id INTEGER PRIMARY KEY, image BLOB, unseen BLOB)"
            )

    def add(self, frame_id: int, measurement: Measurement) -> None:
        """Keep a frame's pictures; those of an earlier bundle are replaced."""
        if measurement.image is None:
            return
        unseen = to_png(measurement.unseen.map) if measurement.unseen else None
        self._connection.execute(
            "INSERT OR REPLACE INTO images VALUES (?, ?, ?)", (frame_id, to_png(measurement.image), unseen)
        )

    def get(self, frame_id: int) -> tuple[bytes, bytes | None] | None:
        """PNGs of the image and the unseen map (None where it was not measured); None where none are kept."""
        row = self._connection.execute("SELECT image, unseen FROM images WHERE frame_id = ?", (frame_id,)).fetchone()
        return (row[0], row[1]) if row else None

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


def kept_pictures(path: Path, frame_id: int) -> tuple[bytes, bytes | None] | None:
    """A frame's pictures where any are kept: the store may be missing, purged or damaged, and no verdict hangs on it."""
    if not path.exists():
        return None
    try:
        with closing(ImageStore(path, readonly=True)) as store:
            return store.get(frame_id)
    except sqlite3.Error:
        return None
