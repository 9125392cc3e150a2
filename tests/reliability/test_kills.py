"""A daemon killed two dozen times, at random and in the middle of what it does; and one whose calls fail."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from pathlib import Path

import pytest

from appliance.verdict_log import VerdictLog
from tests.appliance.running import Daemon, wait_until
from tests.reliability.faults import Call, Faults
from tests.reliability.kills import run, station_at
from tests.reliability.ledger import Ledger


@pytest.mark.timeout(600)
def test_kills_lose_nothing_and_judge_nothing_twice(tmp_path: Path) -> None:
    where = run(tmp_path, kills=24, seed=7)
    assert where.total() == 24
    assert sum(count for name, count in where.items() if name not in ("elsewhere", "measuring")) >= 5, where


class Subject:
    """A station whose daemon is started again when it ends, as systemd does."""

    def __init__(self, folder: Path) -> None:
        self.station = station_at(folder / "station")
        self.ledger, self.faults = Ledger(self.station), Faults(folder, self.station.root)
        self.running = Daemon(self.station, api=False, environment=self.faults.environment)
        self.running.wait_ready()
        self.ended = 0

    def survive(self) -> None:
        """Until nothing is pending, with as many daemons as it takes."""

        def done() -> bool:
            if self.running.process.poll() is not None:
                self.ended += 1
                (self.station.root / ".deaths").unlink(missing_ok=True)  # no pauses here
                self.running = Daemon(self.station, api=False, environment=self.faults.environment)
            return self.ledger.pending() == 0

        wait_until(done, "every frame has its file and is put away", seconds=120)


@pytest.fixture
def subject(tmp_path: Path) -> Iterator[Subject]:
    made = Subject(tmp_path)
    yield made
    made.running.stop()


STEPS = [
    (Call.WRITE, "/umbra.db-wal"), (Call.SYNC, "/umbra.db-wal"), (Call.WRITE, "/outbox/"), (Call.SYNC, "/outbox/"),
    (Call.RENAME, "/outbox/"), (Call.RENAME, "/done/"), (Call.SYNC, "/done/"),
]  # fmt: skip
KILL = 0


@pytest.mark.timeout(900)
@pytest.mark.parametrize("error", [errno.EIO, errno.ENOSPC, KILL], ids=["EIO", "ENOSPC", "SIGKILL"])
def test_a_call_that_fails_or_kills_loses_nothing_at_any_step(error: int, subject: Subject) -> None:
    """Of three frames, the first and the second call of each step: commit, verdict file, its name, the frame's new place."""
    for number, (call, part) in enumerate(STEPS):
        for nth in (1, 2):
            subject.faults.arm(call, nth=nth, error=error, part=part)
            for i in range(3):
                subject.ledger.feed(f"s{number}-{nth}-{i}")
            subject.survive()
            assert subject.faults.fired == 1, f"{call.name} {nth} at {part} was never met"
            assert part in subject.faults.where
            subject.faults.disarm()
            subject.ledger.look()
    assert subject.ended >= (len(STEPS) if error == KILL else 0)
    subject.ledger.check()


def test_a_disk_that_takes_nothing_pauses_and_goes_on(subject: Subject) -> None:
    subject.faults.arm(Call.WRITE | Call.SYNC | Call.RENAME, nth=1, error=errno.ENOSPC, again=True)
    for i in range(4):
        subject.ledger.feed(f"f{i}")
    wait_until(lambda: subject.faults.fired, "the disk was asked")
    told = (subject.station.read_state() or {})["at"]
    asked = subject.faults.fired
    wait_until(
        lambda: subject.faults.fired >= asked + 6, "it goes on asking: each heartbeat wants to write twice or more"
    )
    assert (subject.station.read_state() or {})["at"] == told
    assert subject.running.process.poll() is None
    subject.faults.disarm()
    subject.ledger.wait_done()
    assert subject.running.process.poll() is None
    assert subject.ended == 0
    subject.ledger.check()
    wait_until(lambda: (subject.station.read_state() or {})["ready"], "ready again")
    log = VerdictLog(subject.station.database, readonly=True)
    assert log.newest_event("disk.back") is not None
    log.close()
