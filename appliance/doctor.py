"""`umbra doctor`: what is well with this machine and station, and what to do where it is not."""

from __future__ import annotations

import os
import platform
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from appliance.again import AgainLog
from appliance.api.access import Readers
from appliance.api.health import status_of
from appliance.errors import ApplianceError
from appliance.formats import write_frame
from appliance.mounts import NETWORK_FILE_SYSTEMS, file_system_of
from appliance.sandbox import Sandbox
from appliance.station import Station
from appliance.switch import check_identity
from appliance.verdict_log import VerdictLog
from engines import EngineError, Target, gpu, gpu_state
from engines.build import build_inspector, check_golden
from kernels import _native

LOOK_FOR_DAMAGE_S = 30.0


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
            with closing(VerdictLog(station.database, readonly=True)) as log:
                log.check(seconds=LOOK_FOR_DAMAGE_S)
                yield Check("database", True, f"{log.last_seq()} verdicts, no damage found")
        except ApplianceError as error:
            yield Check("database", False, str(error), "`umbra restore` puts a backup in its place")
    else:
        yield Check("database", None, "none yet")
    if station.again.database.exists():
        try:
            with closing(AgainLog(station)) as again:
                yield Check("judged again", True, f"{again.last_seq()} verdicts")
        except ApplianceError as error:
            yield Check(
                "judged again", None, str(error), f"delete {station.again.root}; `umbra rescreen` makes it anew"
            )
    yield _watching(station)
    yield _decoders(station)
    now = status_of(station, Readers(station.database))
    advice = "" if now["ready"] else "`umbra resume`" if now["paused"] else "`umbra run`"
    yield Check("screener", True if now["ready"] else None, "; ".join(now["reasons"]) or "ready", advice)


def _watching(station: Station) -> Check:
    """How files are found, and whether inotify has watches for all folders of the inbox."""
    kind = file_system_of(station.inbox)
    if kind in NETWORK_FILE_SYSTEMS or kind.startswith("fuse"):
        return Check("watching", True, f"{kind}: looked at every {station.settings.watch.rescan_s:g} s")
    folders = 1 + sum(entry.is_dir() for entry in station.inbox.rglob("*")) if station.inbox.is_dir() else 0
    limit = int(Path("/proc/sys/fs/inotify/max_user_watches").read_text())
    return Check("watching", True if folders < limit / 2 else None, f"events; {folders} folders, {limit} watches",
                 "raise fs.inotify.max_user_watches: without watches files are found by looking, a little later")  # fmt: skip


def _decoders(station: Station) -> Check:
    """Whether a process that decodes comes up under its limits, and takes a frame."""
    with TemporaryDirectory() as folder:
        write_frame(Path(folder), "doctor", np.full((8, 8), 7, np.uint16), bits=16, format_name="tiff")
        try:
            with closing(Sandbox(station.settings, workers=1)) as sandbox:
                frame = sandbox.submit(Path(folder), "doctor.tif").result()
        except ApplianceError as error:
            return Check(
                "decoders", False, str(error), "raise limits.decode_bytes, or look for what ends processes here"
            )
    return Check("decoders", frame.unreadable is None, frame.unreadable or "come up and decode", "reinstall umbra")


def _engines(station: Station, bundle: str | None) -> Check:
    try:
        activation = None if bundle else station.activation()
        chosen = station.load_bundle(bundle, active=activation["folder"] if activation else None)
        if activation is not None:
            check_identity(chosen, activation)
        if station.engine.target is not Target.OPENVINO and not gpu.built(chosen, station.engine, station.engines):
            return Check(
                "engines", None, f"{chosen.identity}: not built for {station.engine.target}", "`umbra engines build`"
            )
        with closing(build_inspector(chosen, station.engine, cache=station.engines)) as inspector:
            gate = check_golden(inspector)
    except EngineError as error:
        return Check("engines", False, str(error), "reinstall the bundle, or activate another one")
    except ApplianceError as error:  # the log, which says what is active, cannot be read
        return Check("engines", None, f"which bundle is active cannot be told: {error}", "mend the database first")
    found = f"{chosen.identity} on {inspector.engine}: {gate.frames} golden frames within {gate.score_difference:.4f}"
    return Check("engines", True, found)
