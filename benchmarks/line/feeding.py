"""What benchmarks of a running station share: an empty station, different frames to drop, and how far it has come."""

from __future__ import annotations

import os
import sqlite3
from dataclasses import dataclass
from pathlib import Path

from appliance.formats import write_frame
from appliance.station import Station
from tests.conftest import dark


def station_at(root: Path, settings: str) -> Station:
    """An empty station with its umbra.toml."""
    root.mkdir()
    (root / "umbra.toml").write_text(settings)
    return Station.open(root, create=True)


@dataclass(frozen=True, slots=True)
class Kinds:
    """Different frames on disk; each is dropped under many names, as a hard link that costs no writing."""

    files: tuple[Path, ...]

    @classmethod
    def made(cls, folder: Path, count: int, *, height: int, width: int, bits: int) -> Kinds:
        """Write so many frames of noise."""
        frames = (dark(height, width, seed=n) for n in range(count))
        return cls(tuple(write_frame(folder, f"k{n}", f, bits=bits, format_name="tiff") for n, f in enumerate(frames)))

    def drop(self, lot: Path, number: int) -> None:
        """The frame of a number, into a lot."""
        lot.mkdir(parents=True, exist_ok=True)
        os.link(self.files[number % len(self.files)], lot / f"f{number:06d}.tif")


def verdicts_of(station: Station) -> int:
    """Number of the newest verdict."""
    connection = sqlite3.connect(f"{station.database.resolve().as_uri()}?mode=ro", uri=True)
    try:
        return int(connection.execute("SELECT COALESCE(MAX(seq), 0) FROM verdicts").fetchone()[0])
    finally:
        connection.close()
