"""Decoding apart: files that kill, hang or fill the process that decodes them cost that process and nothing else."""

from __future__ import annotations

import hashlib
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from appliance.errors import FrameVanishedError, OutOfServiceError
from appliance.formats import write_frame
from appliance.reading import read_frame
from appliance.sandbox import Death, Sandbox, Worker
from appliance.settings import LimitSettings, Settings
from appliance.station import Station
from tests.appliance.running import Daemon, drop, outbox, wait_until
from tests.conftest import dark

POISON = Path(__file__).parent / "poison"
SETTINGS = Settings(limits=LimitSettings(decode_s=20, decode_bytes=1 << 30))
HASTY = Settings(limits=LimitSettings(decode_s=1, decode_bytes=1 << 30))
Make = Callable[..., Sandbox]


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    monkeypatch.setenv("PYTHONPATH", str(POISON))
    made: list[Sandbox] = []

    def one(settings: Settings = SETTINGS, *, workers: int = 1) -> Sandbox:
        made.append(Sandbox(settings, workers=workers))
        return made[-1]

    yield one
    for each in made:
        each.close()


@pytest.mark.parametrize("format_name", ["tiff", "png", "pgm", "npy", "fits", "raw10", "raw12"])
def test_a_frame_is_the_same_as_decoded_here(format_name: str, make: Make, tmp_path: Path) -> None:
    bits = 10 if format_name == "raw10" else 12
    path = write_frame(tmp_path, "a_W2_X3_Y4", dark(pedestal=500), bits=bits, format_name=format_name)
    there, here = make().submit(tmp_path, path.name).result(), read_frame(path, path.name, SETTINGS)
    assert there.raw is not None
    assert here.raw is not None
    np.testing.assert_array_equal(there.raw.packed, here.raw.packed)
    for name in ("width", "height", "stride", "layout", "bits"):
        assert getattr(there.raw, name) == getattr(here.raw, name)
    assert (there.identity, there.sha256, there.file_bytes) == (here.identity, here.sha256, here.file_bytes)


@pytest.mark.parametrize(
    ("word", "reason"),
    [
        ("SEGV", "the decoder was killed by SIGSEGV, 2 times"),
        ("EXIT", "the decoder ended with exit code 3, 2 times"),
        ("HANG", "decoding took longer than 2 s, 2 times"),
        ("SPIN", "the decoder was killed by SIGXCPU, 2 times"),
    ],
)
def test_a_file_that_kills_costs_two_workers_and_itself(
    word: str, reason: str, make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if word == "SPIN":  # a second of the processor may take long on a busy machine
        monkeypatch.setattr(Worker, "_longest_s", 60.0)
    content = word.encode() + b"x" * 50
    (tmp_path / "poison.tif").write_bytes(content)
    good = write_frame(tmp_path, "good", dark(), bits=8, format_name="tiff")
    box = make(HASTY if word in ("HANG", "SPIN") else SETTINGS)
    bad = box.submit(tmp_path, "poison.tif").result()
    assert (bad.raw, bad.unreadable, bad.hostile) == (None, reason, True)
    assert (bad.sha256, bad.file_bytes) == (hashlib.sha256(content).hexdigest(), len(content))
    plain = reason.removesuffix(", 2 times")
    assert box.deaths() == [Death("poison.tif", plain, last=False), Death("poison.tif", plain, last=True)]
    assert box.deaths() == []
    assert box.submit(tmp_path, good.name).result().raw is not None
    assert box.died == 2


@pytest.mark.parametrize(
    ("word", "reason"),
    [
        ("GROW", "not enough memory"),
        ("LONG", "the decoder failed: OSError: [Errno 27] File too large"),
        ("ODDS", "the decoder failed: KeyError: 'of no meaning'"),
    ],
)
def test_what_exceeds_a_limit_is_the_frames_fault_alone(word: str, reason: str, make: Make, tmp_path: Path) -> None:
    content = word.encode()
    (tmp_path / "poison.tif").write_bytes(content)
    box = make()
    bad = box.submit(tmp_path, "poison.tif").result()
    assert (bad.raw, bad.unreadable, bad.sha256) == (None, reason, hashlib.sha256(content).hexdigest())
    assert box.died == 0


def test_a_worker_that_lost_memory_is_replaced_and_costs_no_frame(make: Make, tmp_path: Path) -> None:
    (tmp_path / "leak.tif").write_bytes(b"LEAK")
    good = write_frame(tmp_path, "good", dark(), bits=8, format_name="tiff")
    box = make()
    pids: set[int] = set()
    for _ in range(9):
        assert "first bytes" in str(box.submit(tmp_path, "leak.tif").result().unreadable)
        assert box.submit(tmp_path, good.name).result().raw is not None
        pids.update(worker.pid for worker in box._workers)
    assert (box.retired, len(pids), box.died) == (2, 3, 0)  # at every fourth, once the first has set the mark


def test_frames_leave_no_descriptors_behind(make: Make, tmp_path: Path) -> None:
    paths = [write_frame(tmp_path, f"f{n}", dark(), bits=8, format_name=n) for n in ("tiff", "png", "fits", "npy")]
    (tmp_path / "broken.tif").write_bytes(paths[0].read_bytes()[:900])
    box = make()
    counts = []
    for _ in range(60):
        for name in [*(p.name for p in paths), "broken.tif"]:
            box.submit(tmp_path, name).result()
        [worker] = box._workers
        counts.append(len(list(Path(f"/proc/{worker.pid}/fd").iterdir())))
    assert max(counts) <= counts[0] + 8


def test_workers_killed_while_they_wait_cost_nothing(make: Make, tmp_path: Path) -> None:
    """As the kernel ends what is largest when memory runs out."""
    good = write_frame(tmp_path, "good", dark(), bits=8, format_name="tiff")
    box = make(workers=2)
    wait_until(
        lambda: box.submit(tmp_path, good.name).result().raw is not None and all(w._ready for w in box._workers),
        "both are up",
    )
    for worker in list(box._workers):
        os.kill(worker.pid, signal.SIGKILL)
        worker._process.wait()
    assert box.submit(tmp_path, good.name).result().raw is not None
    assert box.deaths() == []


def test_a_worker_killed_at_work_costs_no_frame_and_a_fresh_one_takes_over(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    busy = tmp_path / "busy"
    monkeypatch.setenv("UMBRA_BUSY", str(busy))
    (tmp_path / "slow.tif").write_bytes(b"WAIT")
    box = make(workers=2)
    before = {worker.pid for worker in box._workers}
    result = box.submit(tmp_path, "slow.tif")
    wait_until(busy.exists, "a worker is at it")
    os.kill(int(busy.read_text()), signal.SIGKILL)
    assert "first bytes" in str(result.result().unreadable)
    [death] = box.deaths()
    assert (death.reason, death.last) == ("the decoder was killed by SIGKILL", False)
    assert not {worker.pid for worker in box._workers} & before, "it was not a fresh one"


def test_a_worker_that_cannot_start_is_nobodys_fault(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = write_frame(tmp_path, "good", dark(), bits=8, format_name="tiff")
    monkeypatch.setattr(sys, "executable", "/bin/false")
    box = make()
    with pytest.raises(OutOfServiceError, match="no process can be had that decodes"):
        box.submit(tmp_path, good.name).result()


def test_what_lies_where_it_was_started_is_not_taken_for_ours(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = write_frame(tmp_path, "good", dark(), bits=8, format_name="tiff")
    foreign = tmp_path / "appliance"
    foreign.mkdir()
    (foreign / "__init__.py").write_text("raise SystemExit('not ours')")
    monkeypatch.chdir(tmp_path)
    assert make().submit(tmp_path, good.name).result().raw is not None


def test_links_are_not_followed(make: Make, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    write_frame(outside, "secret", dark(), bits=8, format_name="tiff")
    inbox = tmp_path / "inbox"
    inbox.mkdir()
    (inbox / "a.tif").symlink_to(outside / "secret.tif")
    (inbox / "lot").symlink_to(outside)
    os.mkfifo(inbox / "b.tif")
    box = make()
    for name in ("a.tif", "lot/secret.tif", "b.tif", "none.tif", "none/none.tif"):
        with pytest.raises(FrameVanishedError):
            box.submit(inbox, name).result()
    assert box.died == 0


def test_workers_have_neither_core_files_nor_privileges_to_gain(make: Make, tmp_path: Path) -> None:
    good = write_frame(tmp_path, "good", dark(), bits=8, format_name="tiff")
    box = make()
    box.submit(tmp_path, good.name).result()
    [worker] = box._workers
    limits = (Path("/proc") / str(worker.pid) / "limits").read_text()
    status = (Path("/proc") / str(worker.pid) / "status").read_text()
    assert "NoNewPrivs:\t1" in status
    set_to = {name: re.search(rf"{name} +(\d+) +(\d+|unlimited)", limits) for name in (
        "Max core file size", "Max address space", "Max cpu time", "Max file size")}  # fmt: skip
    found = {name: line.groups() for name, line in set_to.items() if line}
    assert found["Max core file size"] == ("0", "0")
    assert found["Max address space"] == (str(1 << 30), str(1 << 30))
    assert int(found["Max file size"][1]) <= 2 * SETTINGS.limits.file_bytes
    assert 20 <= int(found["Max cpu time"][0]) <= 23


def test_closing_does_not_wait_for_a_hanging_worker(make: Make, tmp_path: Path) -> None:
    (tmp_path / "poison.tif").write_bytes(b"HANG")
    box = make()
    result = box.submit(tmp_path, "poison.tif")
    [worker] = box._workers
    wait_until(lambda: worker._ready, "the worker is at it")
    began = time.monotonic()
    box.close()
    assert time.monotonic() - began < 2
    with pytest.raises(FrameVanishedError):
        result.result()
    assert threading.active_count() == 1 or all("decode" not in t.name for t in threading.enumerate())


def is_alive(pid: int) -> bool:
    """Whether a process has not ended, waited for or not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def test_workers_end_with_a_killed_parent(station: Station) -> None:
    running = Daemon(station, api=False)
    running.wait_ready()
    drop(station, "a")
    wait_until(lambda: outbox(station), "a verdict")
    children = Path(f"/proc/{running.process.pid}/task/{running.process.pid}/children").read_text().split()
    workers = [int(c) for c in children if b"decode_worker" in Path(f"/proc/{c}/cmdline").read_bytes()]
    assert workers
    running.kill()
    wait_until(lambda: not any(map(is_alive, workers)), "the workers ended")


def test_poison_in_the_inbox_stops_nobody(station: Station, monkeypatch: pytest.MonkeyPatch) -> None:
    (station.root / "umbra.toml").write_text("[limits]\ndecode_s = 1.0\n[watch]\nsettle_s = 0\nincomplete_s = 0\n")
    monkeypatch.setenv("PYTHONPATH", str(POISON))
    running = Daemon(station, api=False)
    running.wait_ready()
    lot = station.inbox / "P" / "L"
    lot.mkdir(parents=True)
    for word in ("SEGV", "HANG", "EXIT"):
        (lot / f"{word}.tif").write_bytes(word.encode())
        drop(station, f"beside_{word}", seed=ord(word[0]))
    wait_until(lambda: len(outbox(station)) == 6, "a verdict each")
    files = outbox(station)
    for word in ("SEGV", "HANG", "EXIT"):
        assert files[f"P/L/{word}.json"]["verdict"] == "RETEST"
        assert (station.quarantine / "P" / "L" / f"{word}.tif").read_bytes() == word.encode()
        assert files[f"P/L/beside_{word}.json"]["noise"] is not None
    assert "SIGSEGV" in files["P/L/SEGV.json"]["reason"]
    wait_until(lambda: (station.read_state() or {})["decoders_died"] == 6, "the deaths are counted")
    assert running.process.poll() is None
    assert len(running.log_lines("decoder.died")) == 6
    running.stop()
