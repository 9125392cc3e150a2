"""`make kernel-report`: what nvcc says of the CUDA kernels that are installed, as one table; needs no GPU."""

from __future__ import annotations

import re
from collections import defaultdict

from benchmarks.harness import RESULTS
from kernels import fatbin

ENTRY = re.compile(
    r"Compiling entry function '(?P<kernel>\w+)' for 'sm_(?P<arch>\d+)'.*?(?P<spill>\d+) bytes spill stores"
    r".*?Used (?P<registers>\d+) registers(?P<rest>[^\n]*)",
    re.DOTALL,
)


def report() -> str:
    """The table of the kernels that are installed."""
    table: dict[str, dict[int, str]] = defaultdict(dict)
    for kernel in fatbin.KERNELS:
        for entry in ENTRY.finditer(fatbin.path_of(kernel).with_suffix(".ptxas").read_text()):
            shared = re.search(r"(\d+) bytes smem", entry["rest"])
            table[entry["kernel"]][int(entry["arch"])] = (
                f"{entry['registers']}/{shared[1] if shared else 0}/{entry['spill']}"
            )
    archs = sorted({arch for row in table.values() for arch in row})
    lines = ["registers a thread / bytes of shared memory a block / bytes spilt, by compute capability", ""]
    lines.append(f"{'':22}" + "".join(f"{arch / 10:>14.1f}" for arch in archs))
    lines += [
        f"{name:22}" + "".join(f"{row.get(arch, '-'):>14}" for arch in archs) for name, row in sorted(table.items())
    ]
    lines += ["", *(f"{k}.fatbin: {fatbin.path_of(k).stat().st_size:,} bytes" for k in fatbin.KERNELS)]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Write benchmarks/results/cuda-kernels.txt."""
    (RESULTS / "cuda-kernels.txt").write_text(report())
    print(report())


if __name__ == "__main__":
    main()
