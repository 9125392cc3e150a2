"""`make queries`: what 200 queries a second cost a screener that is busy, in turns with none, in one run."""

from __future__ import annotations

import argparse
import datetime as dt
import json
import multiprocessing
import os
import select
import socket
import tempfile
import time
from collections import deque
from contextlib import ExitStack, closing
from itertools import count
from pathlib import Path
from statistics import fmean, median, quantiles
from typing import Any

import httpx

from appliance.screener import OUTBOX_CURSOR
from appliance.verdict_log import VerdictLog
from benchmarks.harness import Report, mean_interval, save
from benchmarks.line.feeding import Kinds, fill, station_at, verdicts_of

RATE = 200  # queries a second
TURN_S, TURNS = 10.0, 10  # of each kind
WAITS_S, FED = 60.0, 25  # seconds of waiting, frames that come a second meanwhile: nearly all that can be screened
CONNECTIONS = 8
KINDS = 24  # different frames
PAST = 100_000  # verdicts in the log before the first turn
FASTEST = 80  # frames a second that a station screens at most
PATHS = (
    "/v1/verdicts?limit=20", "/v1/status", "/v1/verdicts/{seq}", "/readyz", "/v1/verdicts?verdict=RETEST&limit=5",
    "/v1/verdicts?file=f000003.tif", "/metrics", "/v1/verdicts?min_score=0.2&limit=10",
)  # fmt: skip


def _read_answer(connection: socket.socket) -> bytes:
    """Status of a whole answer that has begun to come.

    Raises:
        ConnectionError: the server is gone.
    """

    def more() -> bytes:
        if not (part := connection.recv(1 << 16)):
            raise ConnectionError("the server is gone")
        return part

    answer = more()
    while b"\r\n\r\n" not in answer:
        answer += more()
    head, _, body = answer.partition(b"\r\n\r\n")
    missing = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0]) - len(body)
    while missing > 0:
        missing -= len(more())
    return head.split(b" ", 2)[1]


def ask(url: str, seconds: float, told: Any) -> None:
    """Ask at a steady rate over kept connections, whatever the answers take; tell the latencies and the processor time.

    In a process of its own, which takes what others leave of this machine, as one elsewhere would, and does no more than it must.
    """
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    host, port = url.removeprefix("http://").split(":")
    idle = deque(socket.create_connection((host, int(port))) for _ in range(CONNECTIONS))
    asked: dict[int, tuple[socket.socket, str, float]] = {}
    answers = select.poll()
    latencies: list[float] = []
    total = int(RATE * seconds)
    number, began, worked = 0, time.perf_counter(), time.process_time()
    while len(latencies) < total:
        now = time.perf_counter()
        while idle and number < total and (due := began + number / RATE) <= now:
            connection = idle.popleft()
            path = PATHS[number % len(PATHS)].format(seq=1 + number % 20)
            connection.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
            asked[connection.fileno()] = connection, path, due
            answers.register(connection, select.POLLIN)
            number += 1
        wait_s = began + number / RATE - time.perf_counter() if idle and number < total else 1.0
        for descriptor, _ in answers.poll(max(0.0, 1e3 * wait_s)):
            connection, path, due = asked.pop(descriptor)
            answers.unregister(descriptor)
            if (status := _read_answer(connection)) not in (b"200", b"503"):
                raise RuntimeError(f"{path}: {status.decode()}")
            latencies.append(time.perf_counter() - due)
            idle.append(connection)
    told.send((latencies, time.process_time() - worked))


def wait_times(url: str, inbox: Path, kinds: Kinds, seconds: float) -> dict[str, list[float]]:
    """Milliseconds from a verdict's decision to the answer of one who waits for it, over and over, by what he asks for."""
    taken: dict[str, list[float]] = {}
    with httpx.Client(base_url=url, timeout=60) as http:
        end = time.monotonic() + seconds
        for number in count():
            if time.monotonic() > end:
                return taken
            product, lot, wafer, x, y = f"Q{number}", f"M{number}", f"V{number}", number % 40, -number
            name = f"W{wafer}_X{x}_Y{y}.tif"
            asked: list[tuple[str, dict[str, str | float]]] = [
                ("anything", {}), ("product", {"product": product}), ("lot", {"lot": lot}), ("wafer", {"wafer": wafer}),
                ("die", {"die": f"{x},{y}"}), ("file", {"file": name}), ("score", {"product": product, "min_score": 0}),
            ]  # fmt: skip
            key, query = asked[number % len(asked)]
            newest = http.get("/v1/status").json()["last_seq"]
            kinds.drop(inbox / product / lot, number, name)
            answer = http.get("/v1/verdicts", params=query | {"cursor": newest, "wait": 30, "limit": 1}).json()
            [verdict] = answer["verdicts"]
            told = 1e3 * (time.time() - dt.datetime.fromisoformat(verdict["decided_at"]).timestamp())
            taken.setdefault(key, []).append(told)
    raise AssertionError


def cpu_s(pid: int) -> float:
    """Seconds of processor time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def bench_queries(*, turns: int = TURNS) -> Report:
    """Verdicts a second with and without queries, in turns."""
    from tests.appliance.running import Daemon, wait_until

    report = Report(f"{RATE} queries a second beside a busy screener")
    with ExitStack() as held:
        scratch = held.enter_context(tempfile.TemporaryDirectory(prefix="umbra-bench-"))
        station = station_at(
            Path(scratch) / "station", "[watch]\nsettle_s = 0\n[disk]\nlow_bytes = 0\n[api]\nport = 0\n"
        )
        with closing(VerdictLog(station.database)) as log:
            fill(log, PAST)
            log.set_cursor(OUTBOX_CURSOR, PAST)
        kinds = Kinds.made(Path(scratch) / "kinds", KINDS, height=1000, width=1200, bits=12)
        for number in range(int((2 * turns + 2) * TURN_S * FASTEST)):
            kinds.drop(station.inbox / "P" / "L", number)
        daemon = Daemon(station)
        held.callback(daemon.stop)
        url = daemon.url
        daemon.wait_ready()
        wait_until(lambda: (station.read_state() or {})["screened"] > 100, "it is at work")
        pid = json.loads((station.root / "api.json").read_text())["pid"]
        rates: dict[str, list[float]] = {"quiet": [], "asked": []}
        latencies: list[float] = []
        used = clients = 0.0
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
                waited, busy = ours.recv()
                latencies += waited
                clients += busy
                client.join()
        for path in (station.inbox / "P" / "L").iterdir():
            path.unlink(missing_ok=True)  # the screener may be quicker
        with kinds.fed(station.inbox / "P" / "M", FED):
            waits = wait_times(url, station.inbox, kinds, WAITS_S)
    told = [ms for some in waits.values() for ms in some]
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
        "verdicts in the log at first": PAST,
        "one who waits is told after, median, ms": round(median(told), 1),
        "one who waits is told after, 95 %, ms (goal < 50)": round(quantiles(told, n=20)[18], 1),
        "those who wait": len(told),
        **{f"one who waits for {key}, median, ms": round(median(ms), 1) for key, ms in waits.items()},
        **{f"one who waits for {key}, longest, ms": round(max(ms), 1) for key, ms in waits.items()},
        "processor time of the API, ms a query": round(1e3 * used / (RATE * TURN_S * turns), 2),
        "processor time of the client, ms a query": round(1e3 * clients / (RATE * (TURN_S + 1) * turns), 2),
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
