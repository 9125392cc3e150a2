"""One harness for all benchmarks: check the answer first, then time; ratios to the alternative and the limit in one run."""

from __future__ import annotations

import fcntl
import hashlib
import json
import math
import os
import platform
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import fmean, median, quantiles, stdev
from types import ModuleType
from typing import Any

RESULTS = Path(__file__).parent / "results"
SAMPLES = 30
T_95 = dict(enumerate((
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110,
    2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045,
), start=2))  # by values  # fmt: skip


@dataclass(frozen=True, slots=True)
class Timing:
    """One thing timed.

    Attributes:
        name: what.
        median_ms, spread_ms: of the samples; the spread is between the 10th and 90th percentile.
        samples: how many.
    """

    name: str
    median_ms: float
    spread_ms: float
    samples: int


@dataclass(slots=True)
class Report:
    """The numbers of one benchmark, with ratios.

    Attributes:
        name: of the benchmark.
        timings: by name.
        ratios: text -> number; what is compared with what.
        facts: other numbers.
    """

    name: str
    timings: dict[str, Timing] = field(default_factory=dict)
    ratios: dict[str, float] = field(default_factory=dict)
    facts: dict[str, float | str] = field(default_factory=dict)

    def time(self, name: str, work: Callable[[int], object], *, samples: int = SAMPLES) -> float:
        """Time work(i) for i = 0.. after two warm-ups; i rotates inputs past the cache. Median in milliseconds."""
        for i in range(2):
            work(i)
        taken = []
        for i in range(samples):
            began = time.perf_counter()
            work(i)
            taken.append((time.perf_counter() - began) * 1e3)
        tenths = quantiles(taken, n=10)
        self.timings[name] = Timing(name, median(taken), tenths[-1] - tenths[0], samples)
        return median(taken)

    def ratio(self, text: str, value: float) -> None:
        """Note a ratio."""
        self.ratios[text] = round(value, 3)

    def show(self) -> None:
        """Print the table."""
        print(f"\n{self.name}")
        for timing in self.timings.values():
            print(f"  {timing.name:46} {timing.median_ms:10.3f} ms  +- {timing.spread_ms / 2:.3f}")
        for text, value in {**self.ratios, **self.facts}.items():
            print(f"  {text:70} {value}")


def mean_interval(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean and half of its 95 % interval (Student's t); None of one value.

    Raises:
        KeyError: more than thirty values.
    """
    if len(values) < 2:
        return values[0], None
    return fmean(values), T_95[len(values)] * stdev(values) / math.sqrt(len(values))


def digest_of(*modules: ModuleType) -> str:
    """Names the code that a result is of: eight hexadecimal digits of the SHA-256 of some modules' sources."""
    found = hashlib.sha256()
    for module in modules:
        found.update(Path(str(module.__file__)).read_bytes())
    return found.hexdigest()[:8]


def as_json(results: Mapping[str, Any]) -> str:
    """Results as they are kept: numbers to four significant digits, one line for each entry of the two outer levels."""

    def line(value: object) -> str:
        return json.dumps(_rounded(value), separators=(",", ":"))

    def block(entries: Mapping[str, Any], indent: str, one: Callable[[object], str]) -> str:
        inner = ",\n".join(f"{indent} {json.dumps(key)}: {one(value)}" for key, value in entries.items())
        return f"{{\n{inner}\n{indent}}}"

    def entry(value: object) -> str:
        return block(value, " ", line) if isinstance(value, Mapping) and value else line(value)

    return block(results, "", entry) + "\n"


def _rounded(value: object) -> object:
    if isinstance(value, float):
        return float(f"{value:.4g}")
    if isinstance(value, Mapping):
        return {key: _rounded(one) for key, one in value.items()}
    return [_rounded(one) for one in value] if isinstance(value, list | tuple) else value


@contextmanager
def results_of(path: Path) -> Iterator[dict[str, Any]]:
    """What a results file holds, to be changed in place and written again; other processes wait meanwhile."""
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
        yield found
        temporary = path.with_suffix(".tmp")
        temporary.write_text(as_json(found))
        temporary.replace(path)
    finally:
        os.close(folder)


def machine() -> dict[str, str]:
    """Processor, cores, Python, and the commit that was measured."""
    cpu = next(
        (line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line),
        "?",
    )
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    ).stdout.strip()
    return {
        "cpu": cpu,
        "cores": str(len(os.sched_getaffinity(0))),
        "python": platform.python_version(),
        "commit": commit,
    }


def save(reports: list[Report], file: str) -> Path:
    """Write reports and the machine to benchmarks/results/<file>.json."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{file}.json"
    body = {
        "machine": machine(),
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "benchmarks": [asdict(r) for r in reports],
    }
    path.write_text(as_json(body))
    return path
