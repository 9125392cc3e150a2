"""Columns of every measured frame of a bundle, beside the log: what a question over a million frames reads.

They are made from the log and may be deleted at any time; whoever asks first brings them up to date.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from appliance.errors import OutOfServiceError
from appliance.station import as_its_owner
from appliance.verdict import Row
from appliance.verdict_log import VerdictLog
from kernels import HISTOGRAM_BINS

VERSION = 1  # of what the files hold: those of another one are made anew
BATCH = 4096  # verdicts read from the log at a time
ROWS = 65536  # of columns copied at a time
_HORIZON = "horizon"  # of the log, when what it had forgotten was left out last
_SWAPPING = "swapping"
DTYPES: dict[str, tuple[str, tuple[int, ...]]] = {
    "seq": ("<i8", ()),
    "frame_id": ("<i8", ()),
    "lot": ("<u4", ()),
    "m_thresh": ("<i4", ()),
    "m_alpha": ("<f8", ()),
    "rois": ("<f4", ()),
    "histogram": ("<u2", (HISTOGRAM_BINS,)),
}


@dataclass(frozen=True, slots=True)
class Columns:
    """All measured frames of one bundle, in order of seq; n rows. The arrays are read from disk as they are used.

    Attributes:
        bundle: identity.
        seq, frame_id: (n,) int64.
        lot: (n,) uint32 into lots.
        lots: (product, lot).
        m_thresh: (n,) int32, at the bundle's t.
        m_alpha: (n,) float64, at the bundle's alpha.
        rois: (n,) float32, the sum of the peaks of all regions.
        histogram: (n, 256) uint16.
    """

    bundle: str
    seq: NDArray[np.int64]
    frame_id: NDArray[np.int64]
    lot: NDArray[np.uint32]
    lots: tuple[tuple[str, str], ...]
    m_thresh: NDArray[np.int32]
    m_alpha: NDArray[np.float64]
    rois: NDArray[np.float32]
    histogram: NDArray[np.uint16]

    def __len__(self) -> int:
        return len(self.seq)

    def of(self, product: str | None, lot: str | None) -> NDArray[np.bool_]:
        """(n,) which frames are of a product and a lot; None: of any."""
        wanted = [(product is None or p == product) and (lot is None or name == lot) for p, name in self.lots]
        return np.array(wanted, bool)[self.lot] if wanted else np.zeros(len(self), bool)


def columns(
    folder: Path, log: VerdictLog, bundle: str, *, progress: Callable[[int, int], None] = lambda *_: None
) -> Columns:
    """The columns of a bundle, brought up to date with the log.

    Args:
        folder: where the columns of all bundles lie.
        log: to catch up with.
        bundle: identity.
        progress: called with verdicts read, and those there are.

    Raises:
        OutOfServiceError: the disk does not take them, or what is in their place is no folder.
    """
    place = folder / f"v{VERSION}-{bundle.rpartition('@')[2]}"
    try:
        place.mkdir(parents=True, exist_ok=True)
        with _locked(place):
            if (place / _SWAPPING).exists():
                _clear(place)
            _let_go(place, log, bundle)
            if not _whole(place, log, bundle):
                _clear(place)
            _catch_up(place, log, bundle, progress)
            for path in (folder, place, *place.iterdir()):
                as_its_owner(path, folder.parent)
            return _mapped(place, bundle)
    except OSError as error:
        raise OutOfServiceError(f"columns of the log: {error}") from error


@contextmanager
def _locked(place: Path) -> Iterator[None]:
    """One process writes at a time; the kernel lets go of the lock when it ends."""
    descriptor = os.open(place / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _clear(place: Path) -> None:
    for path in place.iterdir():
        if path.name != ".lock":
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def _let_go(place: Path, log: VerdictLog, bundle: str) -> None:
    """Leave out the rows whose verdicts the log has forgotten, if it has forgotten any since this was done last."""
    written, horizon = place / _HORIZON, str(log.horizon())
    if written.exists() and written.read_text(encoding="utf-8") == horizon:
        return
    held = _mapped(place, bundle)
    if len(held):
        stay = np.isin(held.seq, log.measured_numbers(bundle))
        if not stay.all():
            _compact(place, held, stay)
    written.write_text(horizon, encoding="utf-8")


def _compact(place: Path, held: Columns, stay: NDArray[np.bool_]) -> None:
    """Keep some rows alone. What others have mapped stays as it is; whoever finds this half done makes the columns anew."""
    for name in DTYPES:
        with (place / f"{name}.tmp").open("wb") as file:
            for start in range(0, len(held), ROWS):
                part = slice(start, start + ROWS)
                file.write(getattr(held, name)[part][stay[part]].tobytes())
    (place / _SWAPPING).touch()
    for name in DTYPES:
        (place / f"{name}.tmp").replace(place / name)
    (place / _SWAPPING).unlink()


def _length(place: Path) -> int:
    """Rows that all columns have."""
    lengths = []
    for name, (dtype, shape) in DTYPES.items():
        path = place / name
        size = int(np.prod(shape, dtype=int)) * np.dtype(dtype).itemsize
        lengths.append(path.stat().st_size // size if path.exists() else 0)
    return min(lengths)


def _mapped(place: Path, bundle: str) -> Columns:
    n = _length(place)
    arrays: dict[str, Any] = {}
    for name, (dtype, shape) in DTYPES.items():
        arrays[name] = np.memmap(place / name, dtype, "r", shape=(n, *shape)) if n else np.empty((0, *shape), dtype)
    return Columns(bundle=bundle, lots=tuple((product, lot) for product, lot in _lots(place)), **arrays)


def _lots(place: Path) -> list[list[str]]:
    path = place / "lots.json"
    try:
        lots: list[list[str]] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
    except ValueError:  # empty or cut off by a power cut: rows that name a lot then show that the columns are not whole
        return []
    return lots


def _whole(place: Path, log: VerdictLog, bundle: str) -> bool:
    """Whether the last row is the log's: after a power cut files may be long enough and hold nothing."""
    held = _mapped(place, bundle)
    if not len(held):
        return True
    row = log.verdict(int(held.seq[-1]))
    if row is None or row["bundle"] != bundle or row["histogram"] is None:
        return False
    return bool(held.lot.max() < len(held.lots)) and bool(
        (held.histogram[-1] == np.frombuffer(row["histogram"], "<u4")).all()
    )


def _catch_up(place: Path, log: VerdictLog, bundle: str, progress: Callable[[int, int], None]) -> None:
    held = _mapped(place, bundle)
    n, last, newest = len(held), int(held.seq[-1]) if len(held) else 0, log.last_seq()
    lots = {(product, lot): k for k, (product, lot) in enumerate(held.lots)}
    del held
    where = "v.seq > ? AND v.bundle = ? AND v.histogram IS NOT NULL"
    while rows := log.verdicts(where, [last, bundle], limit=BATCH):
        known = len(lots)
        made = _arrays(rows, lots)
        if len(lots) > known:
            temporary = place / "lots.tmp"
            temporary.write_text(json.dumps([list(key) for key in lots], ensure_ascii=False), encoding="utf-8")
            temporary.replace(place / "lots.json")
        for name, values in made.items():
            _append(place / name, n, values)
        n, last = n + len(rows), rows[-1]["seq"]
        progress(last, newest)


def _arrays(rows: list[Row], lots: dict[tuple[str, str], int]) -> dict[str, NDArray[Any]]:
    peaks = [sum(roi["peak"] for roi in json.loads(row["rois"])) for row in rows]
    counts = np.frombuffer(b"".join(row["histogram"] for row in rows), "<u4").reshape(-1, HISTOGRAM_BINS)
    values: dict[str, Any] = {
        "lot": [lots.setdefault((row["product"], row["lot"]), len(lots)) for row in rows],
        "rois": peaks, "histogram": counts,
    } | {name: [row[name] for row in rows] for name in ("seq", "frame_id", "m_thresh", "m_alpha")}  # fmt: skip
    return {name: np.asarray(values[name]).astype(dtype) for name, (dtype, _) in DTYPES.items()}


def _append(path: Path, n: int, values: NDArray[Any]) -> None:
    """Write values as rows n and on, over what a process that died left there."""
    with path.open("r+b" if path.exists() else "w+b") as file:
        file.seek(n * values[:1].nbytes)
        file.truncate()
        file.write(values.tobytes())
