"""Verdict files with a file beside them that says that they are whole, by a real daemon."""

from __future__ import annotations

import json
from collections.abc import Callable

from appliance.station import Station
from tests.appliance.running import Daemon, drop, outbox, wait_until


def test_each_verdict_file_has_one_beside_it(with_hosts: Callable[[str], Station]) -> None:
    station = with_hosts("[line.files]\ndone = true")
    running = Daemon(station, api=False)
    running.wait_ready()
    drop(station, "a", seed=1)
    drop(station, "b", seed=2)
    wait_until(lambda: len(list(station.outbox.rglob("*.done"))) == 2, "both are done")
    for name, told in outbox(station).items():
        assert (station.outbox / name).with_suffix(".done").read_text() == f"{told['seq']}\n"
    done = station.outbox / "P" / "L" / "a.done"
    running.kill()
    done.unlink()
    (station.outbox / "P" / "L" / "a.json").unlink()
    again = Daemon(station, api=False)
    drop(station, "a", seed=1)  # what was judged before is published anew where its file is gone
    wait_until(done.exists, "told again")
    assert json.loads(done.with_suffix(".json").read_text())["seq"] == int(done.read_text())
    assert again.stop() == 0
