"""Engines that drift, crash, break or hang, in a real daemon; and how its successors behave."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from appliance.black_box import LONGEST_PAUSE_S, UNTRACED, BlackBox, Crash
from appliance.errors import NotNowError
from appliance.fitness import DiskGate
from appliance.formats import write_frame
from appliance.journal import Journal
from appliance.settings import DiskSettings, Settings
from appliance.station import Station
from appliance.verdict_log import VerdictLog
from benchmarks.line.feeding import fill
from tests.appliance.running import Daemon, drop, outbox, wait_until
from tests.appliance.test_cli import umbra
from tests.conftest import dark

POISON = Path(__file__).parent / "poison"


@pytest.fixture
def poison(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "poison"
    folder.mkdir()
    monkeypatch.setenv("PYTHONPATH", str(POISON))
    monkeypatch.setenv("UMBRA_POISON", str(folder))
    return folder


def wide(station: Station, name: str, width: int) -> Path:
    """A frame that the poisoned engines do not take."""
    made = write_frame(station.root / "scratch", name, dark(300, width), bits=8, format_name="tiff")
    target = station.inbox / "P" / "L" / made.name
    target.parent.mkdir(parents=True, exist_ok=True)
    return made.rename(target)


def state(station: Station) -> dict[str, Any]:
    return station.read_state() or {}


def kinds(station: Station) -> list[str]:
    log = VerdictLog(station.database, readonly=True)
    try:
        return [event["kind"] for event in reversed(log.table("events"))]
    finally:
        log.close()


def test_engines_that_drift_judge_nothing_until_they_are_well(station: Station, poison: Path) -> None:
    with (station.root / "umbra.toml").open("a") as settings:
        settings.write("[engine]\ngolden_s = 1.0\n")
    running = Daemon(station, api=False)
    running.wait_ready()
    drop(station, "before")
    wait_until(lambda: "P/L/before.json" in outbox(station), "a verdict")
    (poison / "drift").touch()
    wait_until(lambda: not state(station)["ready"], "not ready")
    assert "a golden frame measures otherwise" in state(station)["reasons"][0]
    assert state(station)["golden"]["passed"] is False
    waiting = drop(station, "meanwhile")
    looked = state(station)["golden"]["at"]
    wait_until(lambda: state(station)["golden"]["at"] > looked, "it was measured again")
    assert waiting.exists()
    assert len(outbox(station)) == 1
    refused = umbra("engines", "check", "--station", station.root, expect=1)
    assert "a golden frame measures otherwise" in " ".join(refused.stderr.split())
    (poison / "drift").unlink()
    wait_until(lambda: "P/L/meanwhile.json" in outbox(station), "the pending frame's verdict")
    assert state(station)["ready"]
    assert "golden frames within" in umbra("engines", "check", "--station", station.root).stdout
    assert kinds(station).count("golden.failed") >= 1
    assert "golden.passed" in kinds(station)
    assert running.stop() == 0


def test_golden_frames_are_measured_on_demand_without_a_screener(station: Station) -> None:
    assert "golden frames within" in umbra("engines", "check", "--station", station.root).stdout


def until_all_have_verdicts(station: Station, count: int) -> int:
    """Start daemons as systemd does until so many frames are judged; how many it took."""
    starts = 0
    while len(outbox(station)) < count:
        running = Daemon(station, api=False)
        starts += 1
        wait_until(
            lambda: running.process.poll() is not None or len(outbox(station)) == count,  # noqa: B023
            "it dies, or all are judged",
        )
        running.stop()
    return starts


@pytest.mark.parametrize(("width", "how"), [(301, "Segmentation fault"), (303, "EngineFaultError")])
def test_a_frame_that_kills_the_screener_twice_is_quarantined(
    width: int, how: str, station: Station, poison: Path
) -> None:
    drop(station, "before", seed=1)
    wide(station, "poison", width)
    drop(station, "beside", seed=2)
    assert until_all_have_verdicts(station, 3) == 3
    files = outbox(station)
    assert files["P/L/poison.json"]["verdict"] == "RETEST"
    assert (station.quarantine / "P" / "L" / "poison.tif").exists()
    assert files["P/L/poison.json"]["reason"] == "unreadable: the screener died 2 times while this frame was measured"
    assert files["P/L/before.json"]["noise"] is not None
    assert files["P/L/beside.json"]["noise"] is not None
    log = VerdictLog(station.database, readonly=True)
    suspects = log.events("frame.suspect")
    assert [s["detail"]["path"] for s in suspects] == ["P/L/poison.tif"] * 2
    assert how in suspects[0]["detail"]["how"]
    assert how in log.events("screener.crashed")[0]["detail"]["how"]
    log.close()


def test_frames_in_hand_at_a_kill_are_no_suspects(station: Station, poison: Path) -> None:
    wide(station, "hangs", 302)
    for _ in range(3):
        running = Daemon(station, api=False)
        running.wait_ready()
        wait_until(lambda: b"hangs" in (station.root / ".in-hand").read_bytes(), "it is in hand")
        running.kill()
    assert "frame.suspect" not in kinds(station)


def test_a_wedged_engine_starves_the_watchdog_and_is_blamed(
    station: Station, poison: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    manager.bind(str(tmp_path / "notify"))
    manager.settimeout(30)
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    running = Daemon(station, api=False)
    while b"READY=1" not in manager.recv(4096):
        pass
    for _ in range(2):
        assert b"WATCHDOG=1" in manager.recv(4096)
    wide(station, "hangs", 302)
    manager.settimeout(4)  # the heart beats once a second
    with pytest.raises(TimeoutError):
        while True:
            manager.recv(4096)
    os.kill(running.process.pid, signal.SIGABRT)  # as systemd's watchdog does
    assert running.wait_ended() == -signal.SIGABRT
    again = Daemon(station, api=False)
    wait_until(lambda: "frame.suspect" in kinds(station), "the frame is a suspect")
    again.kill()
    manager.close()


def die(station: Station, now: float) -> float:
    """One screener that ends over an error at a time: the pause that it was told to make."""
    with pytest.raises(RuntimeError, match="engine gone"), BlackBox(station, clock=lambda: now) as box:
        box.begin()
        raise RuntimeError("engine gone")
    os.utime(station.root / ".crash", (now, now))
    return box.pause_s


def test_deaths_in_a_row_make_longer_pauses(station: Station) -> None:
    assert [die(station, 1000.0 + n) for n in range(9)] == [0, 0, 2, 4, 8, 16, 32, LONGEST_PAUSE_S, LONGEST_PAUSE_S]
    with BlackBox(station, clock=lambda: 5000.0) as box:
        assert box.pause_s == 0
        assert box.crash is not None
        assert box.crash.how == "RuntimeError: engine gone"


def test_a_crash_is_kept_and_counted_once_until_it_was_told(station: Station) -> None:
    for n in range(2):
        die(station, 1000.0 + n)
    for _ in range(3):
        with BlackBox(station, clock=lambda: 1010.0) as box:
            assert box.crash is not None
            assert box.pause_s == 2
    with BlackBox(station, clock=lambda: 1010.0) as box:
        box.begin()
    with BlackBox(station, clock=lambda: 1010.0) as box:
        assert box.crash is None


def test_frames_in_hand_at_deaths_without_a_trace_are_blamed_in_the_end(station: Station) -> None:
    """As the kernel kills a process when memory runs out."""
    frame, crashes = ("P/L/a.tif", "ab" * 32), []
    for _ in range(UNTRACED + 1):
        with BlackBox(station) as box:
            crashes.append(box.crash)
            box.begin()
            box.hold([frame])  # SIGKILL would come here
    assert crashes[:-1] == [None] * UNTRACED
    assert crashes[-1] == Crash(f"ended {UNTRACED} times without a trace", (frame,))
    with BlackBox(station) as box:
        box.begin()
        box.hold(())
    with BlackBox(station) as box:
        box.begin()
        box.hold([frame])
    with BlackBox(station) as box:
        assert box.crash is None, "it was measured in between"


def test_starts_that_come_to_nothing_are_no_deaths_of_the_frames_in_hand(station: Station) -> None:
    with BlackBox(station) as box:
        box.begin()
        box.hold([("P/L/a.tif", "ab" * 32)])  # a loss of power
    for _ in range(3 * UNTRACED):  # the log is refused before anything was measured
        with BlackBox(station) as box:
            assert box.crash is None


def test_a_screener_that_backs_off_says_so_and_can_be_stopped(station: Station) -> None:
    for n in range(8):
        die(station, time.time() - 8 + n)
    running = Daemon(station, api=False)
    wait_until(lambda: any("it waits 60 s" in r for r in state(station).get("reasons", [])), "the reason")
    began = time.monotonic()
    assert running.stop() == 0
    assert time.monotonic() - began < 5


class Gate:
    """A gate whose disk and clock the test sets; screening stops below 100 bytes."""

    def __init__(self, station: Station, log: VerdictLog) -> None:
        self.free, self.now = 1000, 50.0
        settings = Settings(disk=DiskSettings(stop_bytes=100))
        self.gate = DiskGate(Station(station.root, settings), Journal(log), clock=lambda: self.now)


@pytest.fixture
def gate(station: Station, monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    with closing(VerdictLog(station.database)) as log:
        made = Gate(station, log)
        monkeypatch.setattr(Station, "free_bytes", lambda _self: made.free)
        yield made


def test_below_the_mark_it_is_closed_until_there_is_more_room_than_that(gate: Gate) -> None:
    seen = []
    for gate.free in (1000, 99, 110, 125, 110):
        gate.gate.look()
        seen.append((gate.gate.closed, gate.gate.reason is not None))
    assert seen == [(False, False), (True, True), (True, True), (False, False), (False, False)]


def test_after_a_refusal_frames_are_tried_and_one_that_goes_through_shows_that_all_is_well(gate: Gate) -> None:
    gate.free = 110
    gate.gate.refused(NotNowError("database is locked"))
    gate.gate.look(idle=False)
    seen = [(gate.gate.closed, gate.gate.reason)]
    gate.now += 6
    gate.gate.look(idle=False)
    seen.append((gate.gate.closed, gate.gate.reason))
    gate.gate.took()
    seen.append((gate.gate.closed, gate.gate.reason))
    why = "storage: database is locked"
    assert seen == [(True, why), (False, why), (False, None)]


def test_after_a_refusal_with_nothing_to_try_time_is_enough(gate: Gate) -> None:
    gate.gate.refused(NotNowError("no room"))
    gate.gate.look()
    assert gate.gate.reason is not None
    gate.now += 6
    gate.gate.look()
    assert gate.gate.reason is None


def test_who_has_much_to_publish_feeds_the_watchdog(
    station: Station, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a restored log whose outbox is behind: it must not be ended half-way, each time anew."""
    with closing(VerdictLog(station.database)) as log:
        fill(log, 6000)
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(60)
        running = Daemon(station, api=False)
        fed_at: list[int] = []
        while len(outbox(station)) < 6000:
            if manager.recv(256) == b"WATCHDOG=1":
                fed_at.append(len(outbox(station)))
        running.stop()
    assert any(0 < published < 6000 for published in fed_at)
