"""images.db: the stretched image and the unseen map of each frame as PNG; may be deleted at any time."""

from __future__ import annotations

import sqlite3
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


def _from_png(png: bytes) -> NDArray[np.uint8]:
    image = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_GRAYSCALE)
    return np.asarray(image, np.uint8)


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


def overlay(image_png: bytes, unseen_png: bytes, boxes: list[tuple[int, int, int, int]]) -> bytes:
    """The stretched image with the unseen map as heat and its regions outlined and numbered, twice as large, as PNG.

    Args:
        image_png, unseen_png: (224, 224) 8-bit.
        boxes: (x0, y0, x1, y1) in pixels of the image, most important first.
    """
    image, unseen = (_from_png(png) for png in (image_png, unseen_png))
    heat = cv2.applyColorMap(unseen, cv2.COLORMAP_INFERNO).astype(np.float32)
    share = (unseen.astype(np.float32) / 255 * 0.7)[:, :, None]
    mixed = cv2.cvtColor(image, cv2.COLOR_GRAY2BGR) * (1 - share) + heat * share
    large = cv2.resize(mixed.astype(np.uint8), None, fx=2, fy=2, interpolation=cv2.INTER_NEAREST)
    for number, (x0, y0, x1, y1) in enumerate(boxes, start=1):
        cv2.rectangle(large, (2 * x0, 2 * y0), (2 * x1 - 1, 2 * y1 - 1), (80, 220, 120), 1)
        cv2.putText(
            large, str(number), (2 * x0 + 2, max(12, 2 * y0 - 3)), cv2.FONT_HERSHEY_SIMPLEX, 0.4, (80, 220, 120), 1
        )
    return to_png(large)
