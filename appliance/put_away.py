"""Where judged files go, and how they get there without a byte being lost: renamed, or copied whole to another disk."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from collections.abc import Container, Iterator
from itertools import count
from pathlib import Path

from appliance.frame import storable
from appliance.line.files import sync_folder
from appliance.reading import UNREAD, hash_of
from appliance.sidecar import SIDECAR_SUFFIX
from appliance.verdict_log import VerdictLog
from appliance.watch import Fingerprint, fingerprint_of

LONGEST_STEM = 180  # bytes, so that hash, number and suffix fit in a name
LONGEST_SUFFIX = 40


def places_of(folder: Path, relative: str, sha256: str) -> tuple[Path, Path]:
    """Where a judged file lies in done/ or quarantine/: under its own name, or with its hash where that was taken."""
    first = folder / relative
    stem, suffix = _cut(first.stem, LONGEST_STEM), _cut(first.suffix, LONGEST_SUFFIX)
    return first, first.with_name(f"{stem}.{sha256[:8]}{suffix}")


def _cut(text: str, nbytes: int) -> str:
    """As many characters of a name as take no more bytes."""
    while len(os.fsencode(text)) > nbytes:
        text = text[:-1]
    return text


def _free_place(folder: Path, relative: str, sha256: str, size: int) -> Path:
    """The first place where nothing lies, or these very bytes. Files that never were read share a hash: they are numbered."""
    first, hashed = places_of(folder, relative, sha256)
    if not os.path.lexists(first):
        return first
    for number in count(1):
        place = hashed if number == 1 else hashed.with_name(f"{hashed.stem}.{number}{hashed.suffix}")
        if not os.path.lexists(place) or (sha256 != UNREAD and place.lstat().st_size == size):
            return place
    raise AssertionError  # count() has no end


def put_away(source: Path, seen: Fingerprint, folder: Path, relative: str, sha256: str) -> Path | None:
    """Move a judged file, and its sidecar, to done/ or quarantine/.

    Args:
        source: the file in the inbox.
        seen: its fingerprint when it was read.
        folder: done/ or quarantine/.
        relative: its path below the inbox.
        sha256: of what was judged.

    Returns:
        Where it is now; None where another file has its name, or none: what lies there was not judged, and stays.

    Raises:
        OSError: it cannot be moved; it is where it was.
    """
    if fingerprint_of(source) != seen:
        return None
    target = _free_place(folder, relative, sha256, seen[1])
    sidecar = source.with_name(source.name + SIDECAR_SUFFIX)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if not move(source, target, seen):
            return None
        if sidecar.is_file():
            move(sidecar, target.with_name(target.name + SIDECAR_SUFFIX))
        sync_folder(target.parent)
    except FileNotFoundError:
        return None
    return target


def move(source: Path, target: Path, seen: Fingerprint | None = None) -> bool:
    """Move a file, to another file system by a copy.

    Args:
        source: the file.
        target: its new name, which is free.
        seen: what the file must be: one that came in its place meanwhile stays where it was dropped.

    Returns:
        Whether it was moved.

    Raises:
        OSError: it cannot be moved; it is where it was.
    """
    try:
        source.rename(target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        return _copy_over(source, target, seen)
    if seen is None or fingerprint_of(target) == seen:
        return True
    back = source if not os.path.lexists(source) else source.with_name(f"{source.stem}.{seen[0]}{source.suffix}")
    target.rename(back)
    return False


def _copy_over(source: Path, target: Path, seen: Fingerprint | None) -> bool:
    """Move to another file system: the copy is whole and durable before the source goes."""
    digest = hashlib.sha256(os.fsencode(target.name)).hexdigest()[:16]
    part = target.with_name(f".{digest}.part")
    try:
        shutil.copy2(source, part, follow_symlinks=False)
        with part.open("rb") as copy:
            os.fsync(copy.fileno())
        if seen is not None and fingerprint_of(source) != seen:
            part.unlink()
            return False
        part.rename(target)
        sync_folder(target.parent)
    except OSError:
        part.unlink(missing_ok=True)
        raise
    if seen is not None and fingerprint_of(source) != seen:
        target.unlink()
        return False
    source.unlink()
    return True


def put_away_files(folder: Path) -> Iterator[Path]:
    """Regular files below a folder, without the sidecars of others."""
    names = {path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()}
    for path in names:
        if not (path.name.endswith(SIDECAR_SUFFIX) and path.with_name(path.name[: -len(SIDECAR_SUFFIX)]) in names):
            yield path


def judged_frame(
    log: VerdictLog, folder: Path, path: Path, *, quarantine: bool, staying: Container[int] = ()
) -> int | None:
    """Number of the frame that a file in done/ or quarantine/ is: its bytes are those that have a verdict.

    Args:
        log: where verdicts are.
        folder: done/ or quarantine/.
        path: of the file.
        quarantine: there it may be one that never could be read, which has its verdict by its name.
        staying: frames whose files stay whatever they hold: one that can only be one of them is not read.

    Returns:
        None where its bytes have none, or it is gone.
    """
    try:
        candidates = log.judged_frames(storable(path.relative_to(folder).as_posix()), path.lstat().st_size)
        if not candidates:
            return None
        if all(row["id"] in staying for row in candidates):
            return int(candidates[0]["id"])
        with path.open("rb") as file:
            sha256 = hash_of(file.fileno())
    except FileNotFoundError:
        return None
    except OSError:
        sha256 = UNREAD
    by_hash = {row["sha256"]: int(row["id"]) for row in candidates}
    return by_hash.get(sha256, by_hash.get(UNREAD) if quarantine else None)
