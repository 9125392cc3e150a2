"""Kills a real daemon again and again while frames come in; `make chaos` runs it long, the tests shortly.

Half of the kills come at a random moment, the others at the n-th write, sync, rename or hand-over to a decoder.
"""

from __future__ import annotations

import argparse
import random
import signal
import subprocess
import tempfile
import time
from collections import Counter
from pathlib import Path

from appliance.station import Station
from tests.appliance.running import Daemon
from tests.reliability.faults import Call, Faults
from tests.reliability.ledger import Ledger

SETTINGS = "[watch]\nrescan_s = 0.1\nsettle_s = 0.1\nincomplete_s = 0\n[disk]\nlow_bytes = 0\nstop_bytes = 0\n"
FRAMES_A_LIFE = 5
LONGEST_LIFE_S = 3.0
AFTER_THE_START = 0.7  # of the lives are counted from when the screener is ready, on however slow a machine
MOST_CALLS = {Call.WRITE: 160, Call.SYNC: 40, Call.RENAME: 14, Call.SEND: 6}


def station_at(root: Path) -> Station:
    """An empty station that looks often."""
    root.mkdir()
    (root / "umbra.toml").write_text(SETTINGS)
    return Station.open(root, create=True)


def where_it_was(station: Station) -> str:
    """What the screener was doing when it died, as far as can be told."""
    in_hand = (
        (station.root / ".in-hand").read_bytes().split(b"\0", 1)[0] if (station.root / ".in-hand").exists() else b""
    )
    return "measuring" if in_hand not in (b"", b"[]") else "elsewhere"


def is_ready(running: Daemon) -> bool:
    """Whether this very process has said that it is."""
    state = running.station.read_state() or {}
    return state.get("pid") == running.process.pid and bool(state["ready"])


def die_once(ledger: Ledger, faults: Faults, chance: random.Random) -> str:
    """One life: a daemon is started, fed and killed; where it was killed."""
    call = chance.choice([None, None, None, None, *Call])
    if call is None:
        faults.disarm()
    else:
        faults.arm(call, nth=1 + int(MOST_CALLS[call] * chance.random() ** 2), error=0)
    running = Daemon(ledger.station, api=False, environment=faults.environment)
    end = time.monotonic() + chance.uniform(0.0, LONGEST_LIFE_S)
    if chance.random() < AFTER_THE_START:
        while running.process.poll() is None and not is_ready(running):
            time.sleep(0.02)
        end = time.monotonic() + chance.uniform(0.0, LONGEST_LIFE_S)
    while time.monotonic() < end and running.process.poll() is None:
        if len(ledger.fed) < ledger.goal:
            ledger.feed(f"f{len(ledger.fed):06d}")
        time.sleep(chance.uniform(0, 0.1))
    died_at = running.process.poll()
    running.kill()
    assert died_at in (None, -signal.SIGKILL), f"the daemon ended by itself with {died_at}"
    faults.disarm()
    if died_at is None or call is None:
        return where_it_was(ledger.station)
    return (
        f"{call.name.lower()} {_kind(Path(faults.where).relative_to(ledger.station.root))}" if faults.where else "send"
    )


def _kind(path: Path) -> str:
    """What a file of the station is: its name, or the folder that it lies in."""
    return path.parts[0] if path.parts else "."


def run(folder: Path, *, kills: int, seed: int) -> Counter[str]:
    """Kill so often, then let the last daemon finish, and check everything.

    Returns:
        How many kills fell where.
    """
    chance = random.Random(seed)
    station = station_at(folder / "station")
    ledger, faults = Ledger(station), Faults(folder, station.root)
    where: Counter[str] = Counter()
    for number in range(1, kills + 1):
        ledger.goal = FRAMES_A_LIFE * number
        where[die_once(ledger, faults, chance)] += 1
        ledger.look()
        if number % 50 == 0:
            print(
                f"{number} kills, {len(ledger.fed)} frames, {len(ledger.published)} verdicts: {dict(where)}", flush=True
            )
    assert ledger.published, "nothing was ever judged"
    last = Daemon(station, api=False)
    try:
        ledger.wait_done()
        ledger.check()
    finally:
        last.stop()
    return where


def main() -> None:
    """`python -m tests.reliability.kills`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    chosen = parser.parse_args()
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False).stdout
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="umbra-chaos-") as folder:
        where = run(Path(folder), kills=chosen.kills, seed=chosen.seed)
    print(f"{chosen.kills} kills at commit {commit.strip()} in {(time.monotonic() - began) / 60:.0f} min: "
          f"{dict(where)}; every frame has one verdict, every file is its row")  # fmt: skip


if __name__ == "__main__":
    main()
