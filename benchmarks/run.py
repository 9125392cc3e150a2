"""`make bench`: all benchmarks, printed, and kept in benchmarks/results/<machine>.json."""

from __future__ import annotations

import argparse

from benchmarks.engines.bench_engines import bench_engines
from benchmarks.harness import save
from benchmarks.kernels.bench_kernels import bench_reduce, bench_stretch
from benchmarks.line.bench_line import bench_line


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--name", default="cpu-2-cores", help="of the result file")
    name = parser.parse_args().name
    reports = [bench_stretch(), bench_reduce(), bench_engines(), *bench_line()]
    for report in reports:
        report.show()
    print(f"\nkept in {save(reports, name)}")


if __name__ == "__main__":
    main()
