"""Files dropped -> verdicts committed, sustained, beside a plain torch + OpenCV + sqlite loop and the bare engines."""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
import time
from pathlib import Path

import numpy as np

from appliance.formats import write_frame
from appliance.station import Station
from benchmarks.harness import Report
from engines import bundle
from engines.openvino import OpenVinoEngines
from engines.simulation import SENSORS, Plan, simulate
from kernels import IMAGE_SIDE

FRAMES = 60
PLAIN_FRAMES = 10


def bench_line() -> list[Report]:
    """12 MP TIFF and headerless u16."""
    with tempfile.TemporaryDirectory(prefix="umbra-bench-") as scratch:
        return [_bench_format(Path(scratch), name) for name in ("tiff", "raw")]


def _bench_format(scratch: Path, format_name: str) -> Report:
    report = Report(f"line, 12 MP {format_name}, {FRAMES} frames")
    made = []
    for i in range(4):
        plan = Plan("Spot", 6.0) if i % 2 else Plan("OK", 0.0)
        frame = simulate(SENSORS["F"], plan, seed=i)
        made.append(write_frame(scratch / format_name, f"s{i}", frame.samples, bits=14, format_name=format_name))
    umbra = _umbra_frames_s(scratch / f"station-{format_name}", made)
    plain = _plain_frames_s(made) if format_name == "tiff" else 0.0
    bare = _bare_frames_s()
    report.facts |= {"umbra, frames/s": round(umbra, 2), "bare engines, frames/s": round(bare, 2)}
    report.ratio("umbra / bare engines (goal >= 0.9)", umbra / bare)
    if plain:
        report.facts["plain loop, frames/s"] = round(plain, 2)
        report.ratio("umbra / plain loop (goal >= 5)", umbra / plain)
    return report


def _umbra_frames_s(root: Path, made: list[Path]) -> float:
    """Frames a second between the first and the last commit of a real daemon."""
    from tests.appliance.running import Daemon, wait_until

    root.mkdir(parents=True)
    (root / "umbra.toml").write_text("[watch]\nsettle_s = 0.1\nrescan_s = 0.2\n[disk]\nlow_bytes = 0\n")
    station = Station.open(root, create=True)
    lot = station.inbox / "F" / "L"
    lot.mkdir(parents=True)
    for i in range(FRAMES):
        source = made[i % len(made)]
        for path in (source.with_name(source.name + ".json"), source):
            if path.exists():
                shutil.copyfile(path, lot / path.name.replace(source.stem, f"f{i:03d}"))
    daemon = Daemon(station, api=False)
    daemon.wait_ready()
    wait_until(lambda: len(list(station.done.rglob(f"f*{made[0].suffix}"))) == FRAMES, "all frames", seconds=120)
    daemon.stop()
    with sqlite3.connect(station.database) as log:
        [(first, last, count)] = log.execute(
            "SELECT MIN(julianday(decided_at)), MAX(julianday(decided_at)), COUNT(*) FROM verdicts"
        ).fetchall()
    shutil.rmtree(root)
    return float((count - 1) / ((last - first) * 86400))


def _plain_frames_s(made: list[Path]) -> float:
    """What one writes in an afternoon: OpenCV reads and resizes, eager torch infers, sqlite stores."""
    import cv2
    import torch

    from engines.models import ROLES, build

    models = [build(role).eval() for role in ROLES]
    with tempfile.TemporaryDirectory() as scratch, sqlite3.connect(Path(scratch, "plain.db")) as log:
        log.execute("CREATE TABLE verdicts (name TEXT, score REAL)")
        began = time.perf_counter()
        for i in range(PLAIN_FRAMES):
            frame = np.asarray(cv2.imread(str(made[i % len(made)]), cv2.IMREAD_UNCHANGED))
            low, high = np.percentile(frame, [0.5, 99.5])
            image = cv2.resize(np.clip((frame - low) / (high - low), 0, 1).astype(np.float32), (IMAGE_SIDE, IMAGE_SIDE),
                               interpolation=cv2.INTER_AREA)  # fmt: skip
            with torch.no_grad():
                outputs = [model(torch.from_numpy(image)[None, None]) for model in models]
            score = float(torch.softmax(outputs[0], 1)[0, 1:].sum() * outputs[1][0, 0] / 10)
            log.execute("INSERT INTO verdicts VALUES (?, ?)", (str(i), score))
            log.commit()
        return PLAIN_FRAMES / (time.perf_counter() - began)


def _bare_frames_s() -> float:
    engines = OpenVinoEngines(bundle.load(bundle.find("starter")))
    image = np.random.default_rng(0).random((IMAGE_SIDE, IMAGE_SIDE), np.float32)
    for _ in range(3):
        engines.infer(image)
    began = time.perf_counter()
    for _ in range(40):
        engines.infer(image)
    return 40 / (time.perf_counter() - began)
