"""Shared by all tests: where real data lie, a station folder, the shipped bundle and an inspector over it."""

from __future__ import annotations

import faulthandler
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from appliance.station import Station
from engines import Bundle, Inspector, bundle
from engines.build import build_inspector

pytest.register_assert_rewrite("tests.kernels.parity")

REAL_DATA = Path(os.environ.get("UMBRA_REAL_DATA", Path(__file__).parents[2] / "shared" / "data"))


_STDERR = pytest.StashKey[int]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_STDERR] = os.dup(sys.__stderr__.fileno()) if sys.__stderr__ is not None else 2


@pytest.fixture(autouse=True)
def _crashes_are_told(request: pytest.FixtureRequest) -> None:
    """The black box of a station takes faulthandler for itself: give it back, so that a crash says where."""
    if not faulthandler.is_enabled():
        faulthandler.enable(request.config.stash[_STDERR])


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real frames, or a loud skip."""
    if not REAL_DATA.is_dir():
        pytest.skip(f"REAL DATA NOT THERE: {REAL_DATA}; set UMBRA_REAL_DATA")
    return REAL_DATA


@pytest.fixture(scope="session")
def starter() -> Bundle:
    return bundle.load(bundle.find("starter"))


@pytest.fixture(scope="session")
def engine_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("engines")


@pytest.fixture(scope="session")
def inspector(starter: Bundle, engine_cache: Path) -> Inspector:
    return build_inspector(starter, cache=engine_cache)


@pytest.fixture
def station(tmp_path: Path) -> Station:
    """An empty station that looks often and gives up on broken files quickly."""
    root = tmp_path / "station"
    root.mkdir()
    (root / "umbra.toml").write_text(
        "[watch]\nrescan_s = 0.1\nsettle_s = 0.1\nincomplete_s = 4.0\n[api]\nport = 0\n[disk]\nlow_bytes = 0\n"
    )
    return Station.open(root, create=True)


def dark(
    height: int = 300, width: int = 360, *, sigma: float = 4.0, pedestal: float = 64.0, seed: int = 0
) -> NDArray[np.uint16]:
    """(h, w) uint16 Gaussian noise around a pedestal, DN."""
    noise = np.random.default_rng(seed).normal(pedestal, sigma, (height, width))
    return np.clip(np.rint(noise), 0, 65535).astype(np.uint16)


@dataclass(slots=True)
class Taken:
    """Memory that a piece of work took at its largest, bytes."""

    bytes_: int = -1


@contextmanager
def memory_taken() -> Iterator[Taken]:
    """How much this process grew, at the most, inside of the context."""
    Path("/proc/self/clear_refs").write_text("5")  # the mark of the largest size begins anew
    before, taken = _status("VmRSS"), Taken()
    yield taken
    taken.bytes_ = _status("VmHWM") - before


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(name))
