"""`make soak`: 100,000 small frames through a running station; memory, handles, threads and pace must stay flat."""

from __future__ import annotations

import argparse
import os
import sqlite3
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean

import numpy as np

from appliance.station import Station
from benchmarks.harness import RESULTS, as_json, machine
from benchmarks.line.feeding import Kinds, station_at, verdicts_of

FRAMES = 100_000
KINDS = 200  # different frames; each is dropped under many names
BACKLOG = 200  # frames waiting at most: the feeder is a careful tester
SAMPLE_S, RETAIN_S = 10.0, 120.0
WARM = 0.1  # of the run: caches fill
SETTINGS = """
[watch]
settle_s = 0
[disk]
low_bytes = 0
[api]
port = 0
[retention]
done_bytes = 100_000_000
images_bytes = 200_000_000
"""
# How much may be more in the last fifth than in the first; pace is what other work on the machine changes most.
MOST_GROWTH = {"rss": 0.05, "decoders_rss": 0.1, "api_rss": 0.05, "handles": 0.05, "threads": 0.01, "pace": 0.2}
PICTURE = Path(__file__).parents[2] / "docs" / "pictures" / "soak.webp"


@dataclass(frozen=True, slots=True)
class Sample:
    """The screener and its decoders at one moment.

    Attributes:
        s: seconds since the first verdict.
        verdicts: so far.
        rss, decoders_rss, api_rss: bytes of memory.
        handles, threads, children: of the screener.
    """

    s: float
    verdicts: int
    rss: int
    decoders_rss: int
    api_rss: int
    handles: int
    threads: int
    children: int


def _rss(pid: int) -> int:
    fields = Path(f"/proc/{pid}/statm").read_text().split()
    return int(fields[1]) * os.sysconf("SC_PAGE_SIZE")


def _children(pid: int) -> dict[int, str]:
    """Processes that a process has started, by number, with their command lines; those that end meanwhile are left out."""
    found = {}
    for task in Path(f"/proc/{pid}/task").iterdir():
        with suppress(FileNotFoundError, ProcessLookupError):
            for child in (task / "children").read_text().split():
                found[int(child)] = Path(f"/proc/{child}/cmdline").read_bytes().decode(errors="replace")
    return found


def _rss_of(children: dict[int, str], word: str) -> int:
    total = 0
    for child, line in children.items():
        if word in line:
            with suppress(FileNotFoundError, ProcessLookupError, IndexError):
                total += _rss(child)
    return total


def _sample(pid: int, verdicts: int, began: float) -> Sample:
    children = _children(pid)
    threads = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("Threads"))
    return Sample(
        round(time.monotonic() - began, 1), verdicts, _rss(pid), _rss_of(children, "decode_worker"),
        _rss_of(children, "api"), len(list(Path(f"/proc/{pid}/fd").iterdir())), int(threads.split()[1]), len(children),
    )  # fmt: skip


def soak(folder: Path, *, frames: int) -> list[Sample]:
    """Feed a station and look at it every ten seconds, while `umbra retain` keeps its disk."""
    from tests.appliance.running import Daemon

    station = station_at(folder / "station", SETTINGS)
    kinds = Kinds.made(folder / "kinds", KINDS, height=240, width=256, bits=8)
    daemon = Daemon(station)
    daemon.wait_ready()
    fed, done, samples = 0, 0, []
    began = time.monotonic()
    next_sample, next_retain = 0.0, RETAIN_S
    retaining: subprocess.Popen[bytes] | None = None
    while done < frames:
        now = time.monotonic() - began
        done = verdicts_of(station)
        while fed < min(frames, done + BACKLOG):
            kinds.drop(station.inbox / "P" / f"L{fed // 1000:03d}", fed)
            fed += 1
        if now >= next_sample:
            samples.append(_sample(daemon.process.pid, done, began))
            next_sample = now + SAMPLE_S
            if len(samples) % 30 == 1:
                print(asdict(samples[-1]), flush=True)
        if now >= next_retain and (retaining is None or retaining.poll() is not None):
            command = [sys.executable, "-m", "appliance.cli", "retain", "--station", str(station.root)]
            retaining = subprocess.Popen(command, stdout=subprocess.DEVNULL)
            next_retain = now + RETAIN_S
        if daemon.process.poll() is not None:
            raise RuntimeError(f"the screener ended with {daemon.process.returncode} after {done} verdicts")
        time.sleep(0.2)
    samples.append(_sample(daemon.process.pid, done, began))
    if retaining is not None:
        retaining.wait()
    daemon.stop()
    _check(station, frames)
    return samples


def _check(station: Station, frames: int) -> None:
    """Every frame one verdict, every verdict its file."""
    with sqlite3.connect(station.database) as log:
        [(count, names)] = log.execute(
            "SELECT COUNT(*), COUNT(DISTINCT f.path) FROM verdicts v JOIN frames f ON f.id = v.frame_id"
        ).fetchall()
    files = sum(1 for _ in station.outbox.rglob("*.json"))
    if not count == names == files == frames:
        raise RuntimeError(f"{frames} frames, {count} verdicts of {names} paths, {files} verdict files")


def growth(samples: list[Sample]) -> dict[str, float]:
    """How much each number grew from the first to the last fifth, after the warm part; pace as seconds a frame."""
    warm = [s for s in samples if s.verdicts >= WARM * samples[-1].verdicts]
    fifth = max(2, len(warm) // 5)
    first, last = warm[:fifth], warm[-fifth:]
    told = {
        name: round(fmean(getattr(s, name) for s in last) / fmean(getattr(s, name) for s in first) - 1, 4)
        for name in ("rss", "decoders_rss", "api_rss", "handles", "threads")
    }
    pace = [(part[-1].s - part[0].s) / (part[-1].verdicts - part[0].verdicts) for part in (first, last)]
    return told | {"pace": round(pace[1] / pace[0] - 1, 4)}


def draw(samples: list[Sample], out: Path) -> None:
    """Verdicts, memory and handles over time."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    minutes = np.array([s.s for s in samples]) / 60
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(12, 3.4), layout="constrained")
    left.plot(minutes, [s.verdicts / 1000 for s in samples])
    left.set(xlabel="minutes", ylabel="verdicts, thousands", title="pace")
    for name, text in (("rss", "screener"), ("decoders_rss", "two decoders"), ("api_rss", "API")):
        middle.plot(minutes, [getattr(s, name) / 1e6 for s in samples], label=text)
    middle.set(xlabel="minutes", ylabel="MB", title="memory", ylim=(0, None))
    middle.legend()
    for name in ("handles", "threads", "children"):
        right.plot(minutes, [getattr(s, name) for s in samples], label=name)
    right.set(xlabel="minutes", title="of the screener", ylim=(0, None))
    right.legend()
    figure.savefig(out, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=FRAMES)
    parser.add_argument("--folder", type=Path, help="where; default: a temporary folder")
    parser.add_argument("--out", type=Path, default=RESULTS / "soak.json")
    parser.add_argument("--picture", type=Path, default=PICTURE)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="umbra-soak-", dir=chosen.folder) as folder:
        samples = soak(Path(folder), frames=chosen.frames)
    told = growth(samples)
    body = {"machine": machine(), "frames": chosen.frames, "seconds": samples[-1].s, "growth": told,
            "samples": {name: [getattr(s, name) for s in samples] for name in asdict(samples[0])}}  # fmt: skip
    chosen.out.write_text(as_json(body))
    draw(samples, chosen.picture)
    too_much = {name: value for name, value in told.items() if value > MOST_GROWTH[name]}
    print(
        f"{chosen.frames} frames in {samples[-1].s / 60:.1f} min; growth {told}; kept in {chosen.out} and {chosen.picture}"
    )
    if too_much:
        raise SystemExit(f"grew more than it may: {too_much}, at most {MOST_GROWTH}")


if __name__ == "__main__":
    main()
