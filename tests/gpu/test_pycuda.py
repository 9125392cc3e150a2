"""kernels/pycuda_device.py with the real pycuda and cuda-bindings over a driver that is none; skipped where they are missing."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.kernels.emulated import COMPILE, HERE

ROOT = Path(__file__).parents[2]


def pycuda_extension() -> Path | None:
    """pycuda's compiled part; None where it or cuda-bindings is not installed."""
    found = importlib.util.find_spec("pycuda")
    if found is None or found.origin is None or importlib.util.find_spec("cuda") is None:
        return None
    return next(Path(found.origin).parent.glob("_driver*.so"), None)


def emulated_driver(folder: Path, extension: Path) -> Path:
    """libcuda.so.1: what driver.cc has, and a refusal for every other name that pycuda was linked with."""
    wanted = set(re.findall(r" U (cu[A-Z]\w+)", subprocess.check_output(["nm", "-D", str(extension)], text=True)))
    here = set(re.findall(r"^int (cu\w+)\(", (HERE / "driver.cc").read_text(), flags=re.MULTILINE))
    rest = folder / "rest.cc"
    rest.write_text(
        "#include <cstdio>\n" + "\n".join(
            f'extern "C" int {name}() {{ std::fprintf(stderr, "{name} is not emulated\\n"); return 801; }}'
            for name in sorted(wanted - here)
        )
    )  # fmt: skip
    target = folder / "libcuda.so.1"
    sources = [str(HERE / "driver.cc"), str(HERE / "emulator.cc"), str(rest)]
    subprocess.run([*COMPILE, "-Wl,-soname,libcuda.so.1", *sources, "-ldl", "-o", str(target)], check=True)
    target.with_name("libcuda.so").symlink_to(target.name)  # what pycuda asks for where it was linked with a bare stub
    return target


@pytest.mark.timeout(900)
def test_pycuda_and_cuda_bindings_do_what_the_inspector_asks(tmp_path: Path) -> None:
    extension = pycuda_extension()
    if extension is None:
        pytest.skip(
            "PYCUDA OR CUDA-BINDINGS NOT INSTALLED: kernels/pycuda_device.py was not run; `make pycuda` installs them"
        )
    driver = emulated_driver(tmp_path, extension)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "tests.gpu.on_emulated_driver"], cwd=ROOT,
        capture_output=True, text=True, check=False, env={**os.environ, "LD_LIBRARY_PATH": str(driver.parent)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
