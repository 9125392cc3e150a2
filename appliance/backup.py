"""`umbra backup` and `umbra restore`: the log and the settings of a station, copied while it screens, and put back."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from appliance.again import alone
from appliance.errors import OutOfServiceError, RefusedError
from appliance.images import newest_frame
from appliance.line.files import seq_of, sync_folder
from appliance.migrations import MIGRATIONS
from appliance.put_away import judged_frame, move, put_away_files
from appliance.settings import SETTINGS_FILE
from appliance.sidecar import SIDECAR_SUFFIX
from appliance.station import Station, StationLock, as_its_owner
from appliance.verdict import now_utc
from appliance.verdict_log import VerdictLog

FORMAT = 1
MANIFEST = "manifest.json"
DATABASE = "umbra.db"


def back_up(station: Station, out: Path) -> dict[str, Any]:
    """Copy the log, as it is at one moment, and the settings into a new folder; a screener goes on meanwhile.

    Args:
        station: what to copy.
        out: folder, not there yet or empty.

    Returns:
        The manifest.

    Raises:
        RefusedError: there is no log, it is damaged, or the folder holds something.
        OutOfServiceError: the disk does not take it.
    """
    if not station.database.exists():
        raise RefusedError(f"{station.database}: there is no log yet")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise RefusedError(f"{out}: holds something; wanted a new folder")
    part = out.with_name(f".{out.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    try:
        part.mkdir(parents=True)
        with closing(VerdictLog(station.database, readonly=True)) as log:
            log.copy_to(part / DATABASE)
        if (station.root / SETTINGS_FILE).exists():
            shutil.copyfile(station.root / SETTINGS_FILE, part / SETTINGS_FILE)
        with closing(VerdictLog(part / DATABASE, readonly=True)) as copy:
            copy.check()
            told = {"format": FORMAT, "at": now_utc(), "umbra": version("umbra"), "schema": len(MIGRATIONS),
                    "verdicts": sum(copy.counts().values()), "last_seq": copy.last_seq()}  # fmt: skip
        told["files"] = {path.name: _sha256(path) for path in sorted(part.iterdir())}
        (part / MANIFEST).write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
        for path in part.iterdir():
            with path.open("rb") as file:
                os.fsync(file.fileno())
        sync_folder(part)
        if out.exists():
            out.rmdir()
        part.rename(out)
        sync_folder(out.parent)
    except (OSError, sqlite3.Error) as error:
        raise OutOfServiceError(f"{out}: {error}") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return told


@dataclass(frozen=True, slots=True)
class Restored:
    """What a restored station wants to be told.

    Attributes:
        verdicts: in the log now.
        set_aside: the log that was there before, or None.
        next_seq: number of the next verdict: no number that was ever published is given again.
        without_verdict: frames in done/ and quarantine/ that the log does not know.
        back: those that were moved back to the inbox; where a file has the name there already, they stay.
        settings_stay: whether the station keeps settings of its own that are others than the backup's.
    """

    verdicts: int
    set_aside: Path | None
    next_seq: int
    without_verdict: tuple[Path, ...]
    back: tuple[Path, ...]
    settings_stay: bool


def restore(backup: Path, station: Station, *, again: bool = False) -> Restored:
    """Put the log of a backup in a station's place; what was there is set aside.

    Args:
        backup: folder that back_up wrote.
        station: no screener may run in it.
        again: move frames that the restored log does not know back to the inbox, to be judged again.

    Raises:
        RefusedError: the backup is damaged or newer than this Umbra.
        StationBusyError: a screener runs, or archived frames are judged again.
    """
    told = _checked(backup)
    lock = StationLock(station)
    try:
        with alone(station):
            return _restored(backup, station, told, again=again)
    finally:
        lock.release()


def _restored(backup: Path, station: Station, told: dict[str, Any], *, again: bool) -> Restored:
    for made_of_the_log in (station.columns, station.again.root):
        if made_of_the_log.exists():
            shutil.rmtree(made_of_the_log)
    part = station.database.with_name(f".{DATABASE}.part")
    shutil.copyfile(backup / DATABASE, part)
    as_its_owner(part, station.root)
    with part.open("rb") as file:
        os.fsync(file.fileno())
    set_aside = _set_aside(station)
    part.rename(station.database)
    sync_folder(station.root)
    if (backup / SETTINGS_FILE).exists() and not (station.root / SETTINGS_FILE).exists():
        shutil.copyfile(backup / SETTINGS_FILE, station.root / SETTINGS_FILE)
        as_its_owner(station.root / SETTINGS_FILE, station.root)
    with closing(VerdictLog(station.database)) as log:
        published = max((seq_of(p) or 0 for p in station.outbox.rglob("*.json")), default=0)
        state = station.read_state() or {}
        log.skip_numbers(seq=max(published, state.get("last_seq") or 0), frame_id=newest_frame(station.images))
        log.add_event("log.restored", backup=str(backup), at=told["at"], verdicts=told["verdicts"])
        unknown = tuple(_unknown(station, log))
        next_seq = log.next_seq()
    for path in (*station.root.glob(f"{DATABASE}*"), *station.root.glob(".*.lock")):
        as_its_owner(path, station.root)
    back = tuple(path for path in unknown if again and _judge_again(path, station))
    return Restored(told["verdicts"], set_aside, next_seq, unknown, back, _differ(backup, station))


def _differ(backup: Path, station: Station) -> bool:
    """Whether both have settings, and not the same."""
    here, there = station.root / SETTINGS_FILE, backup / SETTINGS_FILE
    return here.exists() and there.exists() and here.read_bytes() != there.read_bytes()


def _checked(backup: Path) -> dict[str, Any]:
    try:
        told: dict[str, Any] = json.loads((backup / MANIFEST).read_text(encoding="utf-8"))
        wanted = dict(told["files"])
        number, schema = int(told["format"]), int(told["schema"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RefusedError(f"{backup}: no backup of Umbra: {error}") from error
    if number != FORMAT or schema > len(MIGRATIONS):
        raise RefusedError(
            f"{backup}: format {number}, schema {schema}; this Umbra knows {FORMAT} and {len(MIGRATIONS)}"
        )
    if DATABASE not in wanted:
        raise RefusedError(f"{backup}: no {DATABASE} in it")
    for name, sha256 in wanted.items():
        path = backup / Path(name).name
        found = _sha256(path) if path.is_file() else "nothing"
        if found != sha256:
            raise RefusedError(f"{path}: has SHA-256 {found}, {MANIFEST} says {sha256}")
    return told


def _set_aside(station: Station) -> Path | None:
    """Give the log that is there a second name, whatever state it is in, with what belongs to it; then only it stays.

    A write-ahead log that is left over would be replayed into the log that comes.
    """
    name = f"{DATABASE}.before-{now_utc().replace(':', '')}"
    parts = [(suffix, path) for suffix in ("", "-wal", "-shm") if (path := _beside(station, suffix)).exists()]
    for suffix, path in parts:
        os.link(path, station.root / f"{name}{suffix}")
    sync_folder(station.root)
    for suffix, path in parts:
        if suffix:
            path.unlink()
    return station.root / name if parts else None


def _beside(station: Station, suffix: str) -> Path:
    return station.database.with_name(DATABASE + suffix)


def _unknown(station: Station, log: VerdictLog) -> Iterator[Path]:
    for folder in (station.done, station.quarantine):
        for path in put_away_files(folder):
            if judged_frame(log, folder, path, quarantine=folder == station.quarantine) is None:
                yield path


def _judge_again(path: Path, station: Station) -> bool:
    """Move a put-away frame, and its sidecar, back to where it was dropped; whether its name was free there."""
    folder = station.done if path.is_relative_to(station.done) else station.quarantine
    hashed = re.fullmatch(r"(.*)\.([0-9a-f]{8})(\.\d+)?(\.[^.]*)?", path.name)
    named = False
    with suppress(OSError):  # what cannot be read keeps the name that it has
        named = bool(hashed and _sha256(path).startswith(hashed[2]))
    name = f"{hashed[1]}{hashed[4] or ''}" if hashed and named else path.name
    target = station.inbox / path.relative_to(folder).with_name(name)
    if os.path.lexists(target):
        return False
    target.parent.mkdir(parents=True, exist_ok=True)
    sidecar = path.with_name(path.name + SIDECAR_SUFFIX)
    if sidecar.exists():
        move(sidecar, target.with_name(target.name + SIDECAR_SUFFIX))
    return move(path, target)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
