"""images.db: the stretched image and the unseen map of each frame as PNG; may be deleted at any time."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection
from contextlib import closing
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from engines import Measurement
from kernels import IMAGE_SIDE

CHUNK = 500  # rows deleted at once: the screener does not wait long
LARGEST = (1 << 63) - 1
Pictures = tuple[bytes, bytes | None]  # PNGs of the stretched image, and of the unseen map or None
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
        wait_s: for another process that writes.
    """

    def __init__(self, path: Path, *, readonly: bool = False, wait_s: float = 5.0) -> None:
        uri = f"{path.resolve().as_uri()}?mode={'ro' if readonly else 'rwc'}"
        self._connection = sqlite3.connect(uri, uri=True, timeout=wait_s, check_same_thread=False, isolation_level=None)
        if not readonly:
            self._connection.execute("PRAGMA auto_vacuum=INCREMENTAL")  # before the first table: room is given back
            self._connection.execute("PRAGMA journal_mode=WAL")
            self._connection.execute("PRAGMA synchronous=OFF")  # losing a picture loses no verdict
            self._connection.execute(
                "CREATE TABLE IF NOT EXISTS images (frame_id INTEGER PRIMARY KEY, image BLOB, unseen BLOB, seq INTEGER)"
            )
            if "seq" not in self._columns():  # a store of an earlier version
                try:
                    self._connection.execute("ALTER TABLE images ADD COLUMN seq INTEGER")
                except sqlite3.OperationalError:
                    if "seq" not in self._columns():  # no other process was quicker
                        raise

    def _columns(self) -> set[str]:
        return {row[1] for row in self._connection.execute("PRAGMA table_info(images)")}

    def add(self, frame_id: int, measurement: Measurement, *, seq: int) -> None:
        """Keep the pictures of a frame, and which verdict its map is of; those of an earlier one are replaced."""
        if measurement.image is None:
            return
        unseen = to_png(measurement.unseen.map) if measurement.unseen else None
        self._connection.execute(
            "INSERT OR REPLACE INTO images (frame_id, image, unseen, seq) VALUES (?, ?, ?, ?)",
            (frame_id, to_png(measurement.image), unseen, seq),
        )

    def get(self, frame_id: int, seq: int | None = None) -> Pictures | None:
        """PNGs of the image and the unseen map; None where none are kept.

        Args:
            frame_id: whose.
            seq: of the verdict whose map is wanted: that of another one is left out. None: whichever there is. Earlier
                versions did not write it down.
        """
        own = "seq IS NULL OR ?1 IS NULL OR seq = ?1" if "seq" in self._columns() else "1"
        sql = f"SELECT image, CASE WHEN {own} THEN unseen END FROM images WHERE frame_id = ?2"  # noqa: S608  (one of two)
        row = self._connection.execute(sql, (seq, frame_id)).fetchone()
        return (row[0], row[1]) if row else None

    def frames(self) -> set[int]:
        """Numbers of the frames that it has."""
        return {row[0] for row in self._connection.execute("SELECT frame_id FROM images")}

    def size(self) -> int:
        """Bytes that pictures take."""
        pages, free, page = (
            self._connection.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("page_count", "freelist_count", "page_size")
        )
        return int((pages - free) * page)

    def forget(self, *, kept: Collection[int], up_to: int = LARGEST, count: int = LARGEST) -> int:
        """Delete the oldest pictures.

        Args:
            kept: numbers of frames whose pictures stay.
            up_to: largest number of a frame whose pictures go.
            count: how many at most.

        Returns:
            How many frames lost theirs.
        """
        # Read whole: a question that is still open when the deleting begins makes it fail when anybody wrote meanwhile.
        sql = "SELECT frame_id FROM images WHERE frame_id <= ? ORDER BY frame_id LIMIT ?"
        enough = min(count + len(kept), LARGEST)
        oldest = [row[0] for row in self._connection.execute(sql, (up_to, enough))]
        due = [(frame_id,) for frame_id in oldest if frame_id not in kept][:count]
        for start in range(0, len(due), CHUNK):
            self._connection.execute("BEGIN IMMEDIATE")
            self._connection.executemany("DELETE FROM images WHERE frame_id = ?", due[start : start + CHUNK])
            self._connection.execute("COMMIT")
        return len(due)

    def shrink(self) -> None:
        """Give the room of deleted pictures back to the disk."""
        if self._connection.execute("PRAGMA auto_vacuum").fetchone()[0] == 0:
            self._connection.execute("PRAGMA auto_vacuum=INCREMENTAL")  # a store of an earlier version: once
            self._connection.execute("VACUUM")
        self._connection.executescript("PRAGMA incremental_vacuum;")  # execute() gives back a single page
        self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def newest(self) -> int:
        """Largest number of a frame with pictures; 0 where there is none."""
        return int(self._connection.execute("SELECT COALESCE(MAX(frame_id), 0) FROM images").fetchone()[0])

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


def newest_frame(path: Path) -> int:
    """Largest number of a frame whose pictures a store keeps; 0 where it has none, or is missing or damaged."""
    if not path.exists():
        return 0
    try:
        with closing(ImageStore(path, readonly=True)) as store:
            return store.newest()
    except sqlite3.Error:
        return 0


def kept_pictures(path: Path, frame_id: int, seq: int | None) -> Pictures | None:
    """PNGs of a frame where they are kept: the store may be missing, purged or damaged, and no verdict hangs on it.

    Args:
        path: of images.db.
        frame_id: whose.
        seq: of the verdict whose map is wanted; None: whichever there is.

    Returns:
        Image and unseen map (None where it was not measured, is another verdict's, or is damaged); None where there is
        no whole image.
    """
    if (kept := _kept(path, frame_id, seq)) is None or plane_of(kept[0]) is None:
        return None
    return kept[0], None if plane_of(kept[1]) is None else kept[1]


def kept_planes(
    path: Path, frame_id: int, seq: int | None
) -> tuple[NDArray[np.uint8], NDArray[np.uint8] | None] | None:
    """As kept_pictures, each (224, 224) uint8."""
    kept = _kept(path, frame_id, seq)
    image = None if kept is None else plane_of(kept[0])
    return None if kept is None or image is None else (image, plane_of(kept[1]))


def plane_of(png: bytes | None) -> NDArray[np.uint8] | None:
    """PNG -> (224, 224) uint8; None where there is none, or it is damaged."""
    if not png:
        return None
    plane = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_GRAYSCALE)
    return None if plane is None or plane.shape != (IMAGE_SIDE, IMAGE_SIDE) else np.asarray(plane, np.uint8)


def _kept(path: Path, frame_id: int, seq: int | None) -> Pictures | None:
    if not path.exists():
        return None
    try:
        with closing(ImageStore(path, readonly=True)) as store:
            return store.get(frame_id, seq)
    except sqlite3.Error:
        return None


def kept_frames(path: Path) -> set[int]:
    """Numbers of the frames whose pictures are kept."""
    if not path.exists():
        return set()
    try:
        with closing(ImageStore(path, readonly=True)) as store:
            return store.frames()
    except sqlite3.Error:
        return set()
