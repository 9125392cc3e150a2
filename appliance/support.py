"""`umbra support-bundle`: what somebody far away needs to see of a station, in one file, and no frame unless asked."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
import subprocess
import tarfile
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from importlib.metadata import distributions
from pathlib import Path

from appliance.errors import ApplianceError, RefusedError
from appliance.images import kept_pictures
from appliance.put_away import places_of
from appliance.settings import SETTINGS_FILE
from appliance.station import STATE_FILE, Station
from appliance.verdict import now_utc
from appliance.verdict_log import VerdictLog

EVENTS, JOURNAL_LINES = 1000, 2000
_SECRET = re.compile(
    r"""([\w.'"-]*(?:token|secret|password)[\w.'"-]*\s*=\s*)(?:"(?:\\.|[^"\\\n])*"|'[^'\n]*'|[^,}\n]*)""", re.IGNORECASE
)


def write(out: Path, station: Station, report: str, *, frames: Sequence[int] = ()) -> list[str]:
    """Write the file.

    Args:
        out: a .tar.gz, not there yet.
        station: whose.
        report: of `umbra doctor`.
        frames: numbers of frames whose files, pictures and verdicts go along; their owner says so.

    Returns:
        Names of what is in it.

    Raises:
        RefusedError: the file is there already, or a frame is not known.
    """
    if out.exists():
        raise RefusedError(f"{out}: is there already")
    part = out.with_name(f".{out.name}.part")
    names: list[str] = []
    try:
        with tarfile.open(part, "w:gz") as archive:
            for name, content in _parts(station, report, frames):
                entry = tarfile.TarInfo(f"umbra-support/{name}")
                entry.size, entry.mtime = len(content), int(time.time())
                archive.addfile(entry, io.BytesIO(content))
                names.append(name)
        part.rename(out)
    finally:
        part.unlink(missing_ok=True)
    return names


def _parts(station: Station, report: str, frames: Sequence[int]) -> Iterator[tuple[str, bytes]]:
    yield "made.txt", f"{now_utc()}\n".encode()
    yield "doctor.txt", report.encode()
    packages = sorted(f"{d.metadata['Name']} {d.version}" for d in distributions())
    yield "packages.txt", "\n".join(packages).encode()
    settings = station.root / SETTINGS_FILE
    if settings.exists():
        yield SETTINGS_FILE, _without_secrets(settings).encode()
    for name in (STATE_FILE, ".crash", ".in-hand", ".deaths", ".untraced"):
        if (path := station.root / name).exists():
            yield name.lstrip("."), path.read_bytes().rstrip(b"\0")
    if station.database.exists():
        yield from _of_the_log(station, frames)
    if (journal := _journal()) is not None:
        yield "journal.txt", journal


def _without_secrets(settings: Path) -> str:
    """umbra.toml without the values of keys that name a secret, however they are written."""
    text = settings.read_text(encoding="utf-8", errors="replace")
    return _SECRET.sub(r'\1"(left out)"', text)


def _of_the_log(station: Station, frames: Sequence[int]) -> Iterator[tuple[str, bytes]]:
    try:
        log = VerdictLog(station.database, readonly=True)
    except ApplianceError as error:
        yield "log.txt", str(error).encode()
        return
    with closing(log):
        try:
            yield from _tables(station, log)
        except RefusedError as error:  # damaged somewhere: what was read before goes along
            yield "log.txt", str(error).encode()
        for number in frames:
            yield from _frame(station, log, number)


def _tables(station: Station, log: VerdictLog) -> Iterator[tuple[str, bytes]]:
    for table in ("events", "bundles", "specs"):
        rows = log.table(table, limit=EVENTS)
        yield f"{table}.jsonl", "\n".join(json.dumps(row) for row in reversed(rows)).encode()
    counts = log.counts() | {"last_seq": log.last_seq(), "file_bytes": station.database.stat().st_size}
    yield "log.json", json.dumps(counts, indent=1).encode()


def _frame(station: Station, log: VerdictLog, number: int) -> Iterator[tuple[str, bytes]]:
    rows = log.verdicts("f.id = ?", [number])
    if not rows:
        raise RefusedError(f"frame {number}: there is none")
    table = io.StringIO()
    writer = csv.DictWriter(table, [name for name in rows[0] if name != "histogram"], extrasaction="ignore")
    writer.writeheader()
    writer.writerows(rows)
    yield f"frames/{number}/verdicts.csv", table.getvalue().encode()
    for folder in (station.done, station.quarantine):
        for path in places_of(folder, rows[0]["path"], rows[0]["sha256"]):
            if path.is_file():
                yield f"frames/{number}/{path.name}", path.read_bytes()
    if (pictures := kept_pictures(station.images, number, None)) is not None:
        yield f"frames/{number}/image.png", pictures[0]
        if pictures[1] is not None:
            yield f"frames/{number}/unseen.png", pictures[1]


def _journal() -> bytes | None:
    """What systemd kept of the units' output; None where there is no journal."""
    if not shutil.which("journalctl"):
        return None
    command = ["journalctl", "--no-pager", "-n", str(JOURNAL_LINES), "-u", "umbra-screen", "-u", "umbra-api"]
    try:
        done = subprocess.run(command, capture_output=True, timeout=30, check=False)  # noqa: S603  (constants)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None
