"""`make questions`: what-if and ranking over a million stored frames, beside the same question asked of SQLite's rows."""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from appliance.columns import columns
from appliance.order import Metric, Wanted
from appliance.rank import rank
from appliance.station import Station
from appliance.verdict_log import VerdictLog
from appliance.whatif import what_if
from benchmarks.harness import Report, save
from benchmarks.line.feeding import BUNDLE, fill

FRAMES = 1_000_000
GOAL_MS = 1000.0


def bench_questions(scratch: Path, count: int) -> Report:
    """Each question as the CLI and HTTP ask it, the log open, columns made."""
    report = Report(f"questions over {count:,} frames")
    place = Station.open(scratch / "station", create=True)
    log = VerdictLog(place.database)
    fill(log, count)
    began = time.perf_counter()
    held = columns(place.columns, log, BUNDLE)
    report.facts["columns made from the log, s"] = round(time.perf_counter() - began, 1)
    report.facts["columns, MB"] = round(sum(p.stat().st_size for p in place.columns.rglob("*")) / 1e6)
    report.facts["umbra.db, MB"] = round(place.database.stat().st_size / 1e6)
    found = what_if(place, log, t=0.5)["unseen"]["m_thresh"]
    expected = float(held.histogram[:, 128:].sum(1).mean())
    if not (found["exact"] and abs(found["mean"][0] - expected) < 1e-6):
        raise ValueError(f"M_thresh: {found['mean']}, wanted {expected}")
    questions: dict[str, Callable[[], object]] = {
        "what-if t": partial(what_if, place, log, t=0.5),
        "what-if alpha": partial(what_if, place, log, alpha=3.0),
        "what-if t and alpha of one product": partial(what_if, place, log, t=0.43, alpha=1.5, product="P3"),
        "what-if limit": partial(what_if, place, log, spec=0.3),
        **{f"rank {metric}": partial(rank, place, log, Wanted(metric=metric)) for metric in Metric},
    }
    for name, ask in questions.items():
        taken = report.time(name, partial(_asked, ask), samples=10)
        report.ratio(f"{name}, of the goal of {GOAL_MS:.0f} ms", taken / GOAL_MS)
    began = time.perf_counter()
    total = sum(
        int(np.frombuffer(row[0], "<u4")[128:].sum())
        for row in log.database.conn.execute("SELECT histogram FROM verdicts")
    )
    rows_ms = (time.perf_counter() - began) * 1e3
    if abs(total / count - expected) > 1e-6:
        raise ValueError(f"rows: {total / count}, wanted {expected}")
    report.ratio("what-if t from rows / from columns", rows_ms / report.timings["what-if t"].median_ms)
    return report


def _asked(ask: Callable[[], object], _sample: int) -> None:
    ask()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=FRAMES)
    parser.add_argument("--name", default="questions", help="of the result file")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="umbra-bench-") as scratch:
        report = bench_questions(Path(scratch), arguments.frames)
    report.show()
    print(f"\nkept in {save([report], arguments.name)}")


if __name__ == "__main__":
    main()
