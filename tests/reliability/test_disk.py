"""Disks that fill, on a small real one (tmpfs)."""

from __future__ import annotations

from pathlib import Path

from appliance.station import Station
from tests.appliance.running import Daemon, drop, outbox, wait_until
from tests.reliability.spaces import full_disk, in_spaces, low_disk


def test_a_full_disk_loses_nothing_at_any_step(tmp_path: Path) -> None:
    found = in_spaces(full_disk, tmp_path)
    assert (found["frames"], found["ended"]) == (20, 0)
    assert len(found["too small"]) >= 3, "the disk was hardly ever too small"


def test_below_the_mark_nothing_is_screened(tmp_path: Path) -> None:
    assert in_spaces(low_disk, tmp_path) == {"pending frame waited": True, "told": True, "ended": 0}


def test_a_log_that_takes_no_line_stops_nobody(station: Station) -> None:
    running = Daemon(station, log=Path("/dev/full"))
    running.wait_ready()
    drop(station, "a")
    wait_until(lambda: outbox(station), "a verdict")
    assert running.stop() == 0
