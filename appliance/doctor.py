"""`umbra doctor`: what is well with this machine and station, and what to do where it is not."""

from __future__ import annotations

import os
import platform
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from appliance.api.health import not_ready
from appliance.errors import ApplianceError
from appliance.mounts import NETWORK_FILE_SYSTEMS, file_system_of
from appliance.station import Station
from appliance.verdict_log import VerdictLog
from engines import EngineError, Target, gpu, gpu_state
from engines.build import build_inspector, check_golden
from engines.inspector import Inspector
from kernels import _native


@dataclass(frozen=True, slots=True)
class Check:
    """One line of the report.

    Attributes:
        name: what was looked at.
        ok: True good, False broken, None off or not applicable.
        found: what was found.
        advice: what to do; "" where nothing needs doing.
    """

    name: str
    ok: bool | None
    found: str
    advice: str = ""


def examine(root: Path, *, bundle: str | None = None) -> Iterator[Check]:
    """Check the machine, then the station."""
    yield _versions()
    yield Check("kernels", True, f"{_native.isa()} on {platform.machine()}")
    if not root.is_dir():
        yield from _gpu(Target.OPENVINO)
        yield Check("station", None, f"{root} is not there", f"`umbra run --station {root}` makes it")
        return
    try:
        station = Station.open(root)
    except ApplianceError as error:
        yield Check("settings", False, str(error), "correct umbra.toml")
        return
    yield Check("settings", True, "umbra.toml read" if (root / "umbra.toml").exists() else "defaults")
    yield from _gpu(station.engine.target)
    yield from _station(station)
    yield _engines(station, bundle)


def _versions() -> Check:
    names = ("umbra", "openvino", "numpy", "opencv-python-headless", "tifffile", "imagecodecs", "rawpy", "astropy")
    found = []
    for name in names:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            return Check("packages", False, f"{name} is missing", "reinstall umbra")
    return Check(
        "packages", True, f"Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}, " + ", ".join(found)
    )


def _gpu(wanted: Target) -> Iterator[Check]:
    """The way to a GPU: broken where the station's engines want it, off elsewhere."""
    state = gpu_state.look()
    for part in state.parts:
        if part.missing is None:
            yield Check(part.name, True, part.found or "")
        else:
            needed = wanted is not Target.OPENVINO and part.name not in Target._value2member_map_
            broken = needed or part.name == wanted
            found = f"{part.found}: {part.missing}" if part.found else part.missing
            yield Check(part.name, False if broken else None, found, part.advice)


def _station(station: Station) -> Iterator[Check]:
    kind = file_system_of(station.root)
    yield Check("file system", kind not in NETWORK_FILE_SYSTEMS, kind or "unknown", "put the station on a local disk")
    free = station.free_bytes()
    enough = free >= station.settings.disk.low_bytes
    yield Check("disk", enough, f"{free / 1e9:.1f} GB free", "make room, or lower disk.low_bytes")
    yield Check("inbox", station.inbox.is_dir(), str(station.inbox), f"mkdir -p {station.inbox}")
    writable = os.access(station.root, os.W_OK)
    yield Check("permissions", writable, "writable" if writable else "not writable", f"chown the folder {station.root}")
    if station.database.exists():
        try:
            log = VerdictLog(station.database, readonly=True)
            yield Check("database", True, f"{log.last_seq()} verdicts")
            log.close()
        except ApplianceError as error:
            yield Check("database", False, str(error), "restore a backup")
    else:
        yield Check("database", None, "none yet")
    reasons = not_ready(station)
    yield Check("screener", None if reasons else True, "; ".join(reasons) or "ready", "`umbra run`" if reasons else "")


def _engines(station: Station, bundle: str | None) -> Check:
    try:
        chosen = station.load_bundle(bundle, active=station.active_bundle())
        if station.engine.target is not Target.OPENVINO and not gpu.built(chosen, station.engine, station.engines):
            return Check(
                "engines", None, f"{chosen.identity}: not built for {station.engine.target}", "`umbra engines build`"
            )
        inspector: Inspector = build_inspector(chosen, station.engine, cache=station.engines)
        gate = check_golden(inspector)
        inspector.close()
    except EngineError as error:
        return Check("engines", False, str(error), "reinstall the bundle")
    found = f"{chosen.identity} on {inspector.engine}: {gate.frames} golden frames within {gate.score_difference:.4f}"
    return Check("engines", True, found)
