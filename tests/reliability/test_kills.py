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
    assert sum(count for name, count in where.items() if name.startswith("at a ")) >= 5, "hardly any kill in a call"


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


@pytest.mark.timeout(900)
@pytest.mark.parametrize("error", [errno.EIO, errno.ENOSPC], ids=errno.errorcode.get)
@pytest.mark.parametrize(
    ("call", "when"), [(Call.WRITE, (1, 5, 12, 25, 40)), (Call.SYNC, (1, 2, 3, 5, 8)), (Call.RENAME, (1, 2, 3, 4))]
)
def test_a_call_that_fails_loses_nothing(call: Call, when: tuple[int, ...], error: int, subject: Subject) -> None:
    fired = 0
    for nth in when:
        subject.faults.arm(call, nth=nth, error=error)
        for i in range(2):
            subject.ledger.feed(f"n{nth:03d}-{i}")
        subject.survive()
        fired += subject.faults.fired > 0
        subject.faults.disarm()
        subject.ledger.look()
    assert fired >= len(when) - 1, "the faults were never met"
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
