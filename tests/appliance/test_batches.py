"""A screener whose inspector takes several frames at once, as a GPU does."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from appliance.ahead import Ahead
from appliance.frame import Frame
from appliance.pipeline import Line
from appliance.sandbox import Sandbox
from appliance.screener import Screener
from appliance.screening import OneShot, find_targets
from appliance.settings import Settings
from appliance.station import Station
from appliance.verdict import Row
from appliance.verdict_log import VerdictLog
from appliance.watch import Candidate
from engines import EngineFaultError, Inspector, Measurement
from kernels import RawFrame
from tests.appliance.running import drop, outbox


class Batches:
    """An inspector of four frames at once, worth eight in a call; after `good` calls it fails."""

    batch = 4

    def __init__(self, inspector: Inspector, *, good: int | None = None) -> None:
        self._inspector, self._good = inspector, good
        self.bundle, self.engine = inspector.bundle, inspector.engine
        self.sizes: list[int] = []
        self.closed = 0

    def measure(self, frames: Sequence[RawFrame]) -> list[Measurement]:
        if self._good is not None and len(self.sizes) >= self._good:
            raise EngineFaultError("an illegal memory access was encountered")
        self.sizes.append(len(frames))
        return self._inspector.measure(frames)

    def close(self) -> None:
        self.closed += 1


def run_until(station: Station, inspector: Batches, verdicts: int) -> list[Row]:
    """Screen until so many verdicts are there, then stop."""
    rows: list[Row] = []
    log = VerdictLog(station.database)

    def count(row: Row) -> None:
        rows.append(row)
        if len(rows) == verdicts:
            screener.stop()

    screener = Screener(station, Line(station, inspector, log, None), log, on_verdict=count)
    try:
        screener.run()
    finally:
        log.close()
    return rows


def test_frames_are_measured_together_and_told_of_one_by_one(station: Station, inspector: Inspector) -> None:
    for i in range(10):
        drop(station, f"f{i}", seed=i)
    (station.inbox / "P/L/garbage.tif").write_bytes(b"this is no image")
    batches = Batches(inspector)
    rows = run_until(station, batches, 11)
    assert sorted(row["path"] for row in rows) == sorted([*(f"P/L/f{i}.tif" for i in range(10)), "P/L/garbage.tif"])
    assert sum(batches.sizes) == 10
    assert 4 <= max(batches.sizes) <= 8
    files = outbox(station)
    assert {files[f"{row['path'].removesuffix('.tif')}.json"]["seq"] for row in rows} == {row["seq"] for row in rows}
    alone = {row["path"]: row for row in rows if row["verdict"] != "RETEST"}
    for i in range(10):
        assert (station.done / f"P/L/f{i}.tif").exists()
        assert f"P/L/f{i}.tif" in alone
    assert (station.quarantine / "P/L/garbage.tif").exists()


def ahead(batch: int, decoded: int, tmp_path: Path, *, stopped: bool = False) -> Ahead:
    """Twelve files in hand, of which so many are decoded."""
    futures: list[Future[Frame]] = [Future() for _ in range(12)]
    for one in futures[:decoded]:
        one.set_result(cast("Frame", None))
    box = SimpleNamespace(submit=lambda _inbox, name: futures[int(name)])
    made = Ahead(
        tmp_path, cast("Sandbox", box), 1.0, lambda: cast("Inspector", SimpleNamespace(batch=batch)), lambda: stopped, lambda: None
    )  # fmt: skip
    assert made.add(cast("Candidate", SimpleNamespace(relative=str(i))) for i in range(12))
    return made


def test_a_second_batch_is_taken_of_what_is_decoded_already(tmp_path: Path) -> None:
    def taken(batch: int, decoded: int) -> int:
        """How many are screened in one call."""
        return len(list(ahead(batch, decoded, tmp_path).following()))

    assert [taken(4, decoded) for decoded in (1, 3, 4, 6, 12)] == [1, 3, 4, 6, 8]
    assert taken(1, 12) == 1


def test_nothing_is_taken_once_the_screener_shall_stop_and_all_of_it_is_let_go(tmp_path: Path) -> None:
    made = ahead(4, 12, tmp_path, stopped=True)
    assert list(made.following()) == []
    assert [candidate.relative for candidate in made.let_go()] == [str(i) for i in range(12)]
    assert not made.add([])


def test_each_frame_of_a_batch_gets_its_own_numbers(station: Station, inspector: Inspector) -> None:
    paths = [drop(station, f"f{i}", seed=i) for i in range(11)]
    batches = Batches(inspector)
    together = list(OneShot(batches, Settings()).screen(find_targets(paths)))
    assert batches.sizes == [3, 8]  # until one is read nobody knows how large they are
    alone = list(OneShot(inspector, Settings()).screen(find_targets(paths)))
    for ours, theirs in zip(together, alone, strict=True):
        different = {k for k in theirs if ours[k] != theirs[k]}
        assert different <= {"decided_at", "ms_decode", "ms_inspect", "ms_total"}
    assert len({row["score"] for row in alone}) > 1


def test_a_fault_leaves_the_frames_of_its_batch_pending(station: Station, inspector: Inspector) -> None:
    for i in range(10):
        drop(station, f"f{i}", seed=i)
    with pytest.raises(EngineFaultError, match="illegal memory access"):
        run_until(station, Batches(inspector, good=1), 10)
    first = {name: verdict["seq"] for name, verdict in outbox(station).items()}
    assert 1 <= len(first) <= 8
    assert len(list(station.inbox.rglob("*.tif"))) == 10 - len(first)
    rows = run_until(station, Batches(inspector), 10 - len(first))
    assert len(rows) == 10 - len(first)
    files = outbox(station)
    assert len(files) == 10
    assert {name: files[name]["seq"] for name in first} == first
