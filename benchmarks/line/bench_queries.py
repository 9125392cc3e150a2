"""`make queries`: what 200 queries a second cost a screener that is busy, in turns with none, in one run."""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import tempfile
import time
from pathlib import Path
from statistics import fmean, median, quantiles
from typing import Any

import httpx

from benchmarks.harness import Report, mean_interval, save
from benchmarks.line.feeding import Kinds, station_at, verdicts_of

RATE = 200  # queries a second
TURN_S, TURNS = 10.0, 10  # of each kind
CONNECTIONS = 8
KINDS = 24  # different frames
FASTEST = 80  # frames a second that a station screens at most
PATHS = (
    "/v1/verdicts?limit=20", "/v1/status", "/v1/verdicts/{seq}", "/readyz", "/v1/verdicts?verdict=RETEST&limit=5",
    "/v1/verdicts?file=f000003.tif", "/metrics", "/v1/verdicts?min_score=0.2&limit=10",
)  # fmt: skip


async def _ask(url: str, seconds: float, told: Any) -> None:
    """Ask at a steady rate over kept connections, whatever the answers take; tell the latencies."""
    host, port = url.removeprefix("http://").split(":")
    waiting: asyncio.Queue[tuple[str, float]] = asyncio.Queue()
    latencies: list[float] = []

    async def connection() -> None:
        reader, writer = await asyncio.open_connection(host, int(port))
        while True:
            path, due = await waiting.get()
            writer.write(f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
            head = await reader.readuntil(b"\r\n\r\n")
            if head.split(b" ", 2)[1] not in (b"200", b"503"):
                raise RuntimeError(f"{path}: {head.decode()}")
            await reader.readexactly(int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0]))
            latencies.append(time.perf_counter() - due)

    tasks = [asyncio.create_task(connection()) for _ in range(CONNECTIONS)]
    began = time.perf_counter()
    for number in range(int(RATE * seconds)):
        due = began + number / RATE
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        waiting.put_nowait((PATHS[number % len(PATHS)].format(seq=1 + number % 20), due))
    await asyncio.sleep(0)
    for task in tasks:
        if task.done():
            task.result()  # what went wrong
        task.cancel()
    told.send(latencies)


def ask(url: str, seconds: float, told: Any) -> None:
    """A client in a process of its own, which takes what others leave of this machine, as one elsewhere would."""
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    asyncio.run(_ask(url, seconds, told))


def cpu_s(pid: int) -> float:
    """Seconds of processor time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def bench_queries(*, turns: int = TURNS) -> Report:
    """Verdicts a second with and without queries, in turns."""
    from tests.appliance.running import Daemon, wait_until

    report = Report(f"{RATE} queries a second beside a busy screener")
    with tempfile.TemporaryDirectory(prefix="umbra-bench-") as scratch:
        station = station_at(
            Path(scratch) / "station", "[watch]\nsettle_s = 0\n[disk]\nlow_bytes = 0\n[api]\nport = 0\n"
        )
        kinds = Kinds.made(Path(scratch) / "kinds", KINDS, height=1000, width=1200, bits=12)
        for number in range(int(2 * turns * TURN_S * FASTEST)):
            kinds.drop(station.inbox / "P" / "L", number)
        daemon = Daemon(station)
        url = daemon.url
        daemon.wait_ready()
        wait_until(lambda: (station.read_state() or {})["screened"] > 100, "it is at work")
        pid = json.loads((station.root / "api.json").read_text())["pid"]
        rates: dict[str, list[float]] = {"quiet": [], "asked": []}
        latencies: list[float] = []
        used = 0.0
        for turn in range(2 * turns):
            kind = ("quiet", "asked", "asked", "quiet")[turn % 4]  # what drifts weighs on both alike
            ours, theirs = multiprocessing.Pipe()
            client = multiprocessing.get_context("spawn").Process(target=ask, args=(url, TURN_S + 1, theirs))
            if kind == "asked":
                client.start()
                time.sleep(1)  # it starts
            seq, began, before = verdicts_of(station), time.perf_counter(), cpu_s(pid)
            time.sleep(TURN_S)
            rates[kind].append((verdicts_of(station) - seq) / (time.perf_counter() - began))
            if kind == "asked":
                used += cpu_s(pid) - before
                latencies += ours.recv()
                client.join()
        httpx.get(f"{url}/livez").raise_for_status()
        daemon.stop()
    losses = [1 - a / q for a, q in zip(rates["asked"], rates["quiet"], strict=True)]
    loss, half = mean_interval(losses)
    answered = len(latencies) / (turns * (TURN_S + 1))
    if answered < 0.95 * RATE:
        raise SystemExit(f"only {answered:.0f} of {RATE} queries a second were answered: the loss says nothing")
    report.ratio(f"throughput lost to {RATE} queries/s (goal < 0.05), mean of {len(losses)} pairs of turns", loss)
    report.facts |= {
        "95 % interval of it, +-": round(half or 0.0, 4), "quiet, frames/s": round(fmean(rates["quiet"]), 2),
        "asked, frames/s": round(fmean(rates["asked"]), 2), "queries answered/s": round(answered, 1),
        "latency, median, ms": round(1e3 * median(latencies), 1),
        "latency, 99 %, ms": round(1e3 * quantiles(latencies, n=100)[98], 1),
        "processor time of the API, ms a query": round(1e3 * used / (RATE * TURN_S * turns), 2),
    }  # fmt: skip
    return report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=TURNS, help="of each kind, ten seconds each")
    parser.add_argument("--name", default="queries", help="of the result file")
    chosen = parser.parse_args()
    report = bench_queries(turns=chosen.turns)
    report.show()
    print(f"\nkept in {save([report], chosen.name)}")


if __name__ == "__main__":
    main()
