"""What benchmarks of a station share: an empty one, a log with a past, frames to drop, and how far it has come."""

from __future__ import annotations

import json
import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import numpy as np

from appliance.formats import write_frame
from appliance.station import Station
from appliance.verdict_log import VerdictLog
from kernels import HISTOGRAM_BINS, IMAGE_SIDE
from tests.conftest import dark

BUNDLE = "bench@0123456789ab"  # of the frames of `fill`
BATCH = 10_000


def station_at(root: Path, settings: str) -> Station:
    """An empty station with its umbra.toml."""
    root.mkdir()
    (root / "umbra.toml").write_text(settings)
    return Station.open(root, create=True)


def fill(log: VerdictLog, frames: int) -> None:
    """Frames and verdicts as the line writes them, with histograms of S that fall off as those of clean frames do."""
    rng = np.random.default_rng(0)
    share = np.exp(-np.arange(HISTOGRAM_BINS) / 5.0)
    known = rng.multinomial(IMAGE_SIDE**2, share / share.sum(), size=997).astype("<u4")
    rois = json.dumps([{"box": [1, 2, 30, 40], "score": 9.5, "peak": 0.7, "pixels": 31}])
    db = log.database.conn
    for start in range(0, frames, BATCH):
        numbers = range(start + 1, min(start + BATCH, frames) + 1)
        db.execute("BEGIN")
        db.executemany(
            "INSERT INTO frames (id, path, sha256, name, product, lot, file_bytes, width, height, bits, first_seen_at) "
            "VALUES (?, ?, ?, ?, ?, ?, 24000000, 4000, 3000, 12, '2026-01-01T00:00:00.000Z')",
            [(n, f"P{n % 5}/L{n % 200}/{n}.tif", f"{n:064x}", f"{n}.tif", f"P{n % 5}", f"L{n % 200}") for n in numbers],
        )
        db.executemany(
            "INSERT INTO verdicts (frame_id, origin, verdict, hard, soft, class, p_ok, p_spot, p_diagonal, p_error, p_ng, level, "
            "score, spec, t, alpha, m_thresh, m_alpha, rois, histogram, noise_median, noise_sigma, bundle, engine, decided_at) "
            "VALUES (?, 'inbox', 'PASS', 1, 'OK', 'OK', 0.97, 0.01, 0.01, 0.01, 0.03, 1.0, ?, 0.2, 0.6, 2.0, ?, ?, ?, ?, 64.0, "
            "4.0, ?, 'openvino-int8@0', '2026-01-01T00:00:00.000Z')",
            [(n, rng.random(), n % 977, float(n % 7919), rois, known[n % 997].tobytes(), BUNDLE) for n in numbers],
        )
        db.execute("COMMIT")


@dataclass(frozen=True, slots=True)
class Kinds:
    """Different frames on disk; each is dropped under many names, as a hard link that costs no writing."""

    files: tuple[Path, ...]

    @classmethod
    def made(cls, folder: Path, kinds: int, *, height: int, width: int, bits: int) -> Kinds:
        """Write so many frames of noise."""
        frames = (dark(height, width, seed=n) for n in range(kinds))
        return cls(tuple(write_frame(folder, f"k{n}", f, bits=bits, format_name="tiff") for n, f in enumerate(frames)))

    def drop(self, lot: Path, number: int, name: str = "") -> None:
        """The frame of a number, into a lot; under its own name, or another."""
        lot.mkdir(parents=True, exist_ok=True)
        os.link(self.files[number % len(self.files)], lot / (name or f"f{number:06d}.tif"))

    @contextmanager
    def fed(self, lot: Path, rate: float) -> Iterator[None]:
        """Frames that come into a lot, so many a second, meanwhile."""
        ended = threading.Event()

        def feed() -> None:
            began = time.monotonic()
            for number in count():
                if ended.wait(max(0.0, began + number / rate - time.monotonic())):
                    return
                self.drop(lot, number)

        feeder = threading.Thread(target=feed)
        feeder.start()
        try:
            yield
        finally:
            ended.set()
            feeder.join()


def verdicts_of(station: Station) -> int:
    """Number of the newest verdict."""
    connection = sqlite3.connect(f"{station.database.resolve().as_uri()}?mode=ro", uri=True)
    try:
        return int(connection.execute("SELECT COALESCE(MAX(seq), 0) FROM verdicts").fetchone()[0])
    finally:
        connection.close()
