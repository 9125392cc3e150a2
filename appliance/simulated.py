"""`umbra simulate`: simulated frames as files, with truth.csv, checksums and a manifest; a run that was stopped goes on."""

from __future__ import annotations

import csv
import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from appliance.dataset import TRUTH_FILE, DataSetError
from appliance.formats import FORMATS, fits_format, write_frame
from appliance.reading import read_frame
from appliance.settings import Settings
from appliance.sidecar import SIDECAR_SUFFIX
from engines.simulation import PAPER_SETS, SENSORS, SIMULATION_VERSION, FramePlan, Sensor, mixed_set, simulate
from engines.simulation.emva import SMALLEST_SIDE
from engines.simulation.likeness import clean_frames, compare
from kernels import unpack

COLUMNS = (
    "file", "sensor", "lot", "class", "kind", "level", "true_level", "boxes", "width", "height", "bits", "seed", "split",
)  # fmt: skip
MANIFEST, CHECKSUMS, ROWS = "manifest.json", "SHA256SUMS", ".rows.jsonl"
FRAME_TAG = 7  # parts these frames' streams from those of training sets with the same seed


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulationPlan:
    """What `umbra simulate` writes; the same plan writes the same files.

    Attributes:
        sensors: names out of A..F, taken in turn.
        seed: of the set.
        count: frames, or None for as many as the paper's set has.
        formats: used in turn, each where it holds the sensor's depth.
        paper: one of PAPER_SETS, or None for frames of which half are OK.
        like: the one sensor, fitted to real frames, instead of A..F.
        megapixels: frames above this size are simulated with fewer pixels that look the same once stretched.
        shading: factor on the nominal shading and glow, >= 0.
    """

    sensors: tuple[str, ...]
    seed: int
    count: int | None = None
    formats: tuple[str, ...] = ("tiff",)
    paper: str | None = None
    like: Sensor | None = None
    megapixels: float | None = None
    shading: float = 1.0

    def __post_init__(self) -> None:
        known = self._known()
        if unknown := [s for s in self.sensors if s not in known]:
            raise DataSetError(f"sensor {', '.join(unknown)}: wanted some of {', '.join(known)}")
        if unknown := [f for f in self.formats if f not in FORMATS]:
            raise DataSetError(f"format {', '.join(unknown)}: wanted some of {', '.join(FORMATS)}")
        for sensor in self.sensors:
            if not any(fits_format(f, known[sensor].bits) for f in self.formats):
                raise DataSetError(
                    f"sensor {sensor} has {known[sensor].bits} bits: {', '.join(self.formats)} holds fewer"
                )
        if self.like is not None and (self.paper == "sensors" or self.megapixels is not None):
            raise DataSetError("a sensor fitted to real frames has their size and is none of the six of Table 3")
        if self.like is not None and self.shading != 1:
            raise DataSetError("shading is of the six sensors: one fitted to real frames has none of its own")
        if self.paper is None and self.count is None:
            raise DataSetError("neither a number of frames nor one of the paper's sets")

    def _known(self) -> Mapping[str, Sensor]:
        return SENSORS if self.like is None else {self.like.name: self.like}

    def frames(self) -> list[FramePlan]:
        """What each frame shows."""
        sensors = [self._known()[name] for name in self.sensors]
        if self.paper is None:
            return mixed_set(sensors, self.count or 0, self.seed)
        return PAPER_SETS[self.paper](sensors, self.count, self.seed)

    def sized(self, name: str) -> Sensor:
        """A sensor, resized where it has more than `megapixels`."""
        sensor = self._known()[name]
        if self.megapixels is None or sensor.width * sensor.height <= self.megapixels * 1e6:
            return sensor
        factor = (self.megapixels * 1e6 / (sensor.width * sensor.height)) ** 0.5
        # Whole groups of every packed layout and whole 2x2 cells of the colour filter.
        return sensor.resized(int(sensor.width * factor) // 4 * 4, int(sensor.height * factor) // 2 * 2)

    def as_json(self) -> dict[str, object]:
        """The plan as the manifest holds it."""
        return {
            "simulation": SIMULATION_VERSION, "paper": self.paper, "sensors": list(self.sensors), "seed": self.seed,
            "count": len(self.frames()), "formats": list(self.formats), "megapixels": self.megapixels,
            "shading": self.shading,
            "like": None if self.like is None else hashlib.sha256(repr(self.like).encode()).hexdigest(),
        }  # fmt: skip


def read_stack(paths: Sequence[Path]) -> tuple[NDArray[np.uint16], int]:
    """Real dark frames of one sensor and exposure: (frames, h, w) samples, and their depth in bits.

    Raises:
        DataSetError: no frames, one that cannot be read, frames of different sizes or depths, or smaller than 16x16.
    """
    settings, stack, kinds = Settings(), [], set()
    for path in paths:
        frame = read_frame(path, path.name, settings)
        if frame.raw is None:
            raise DataSetError(f"{path}: {frame.unreadable}")
        samples = unpack(frame.raw)
        kinds.add(f"{samples.shape[1]}x{samples.shape[0]} pixels of {frame.raw.bits} bits")
        if len(kinds) > 1:
            raise DataSetError(f"{path}: frames of {' and '.join(sorted(kinds))}, wanted one size and one depth")
        if min(samples.shape) < SMALLEST_SIDE:
            raise DataSetError(f"{path}: {next(iter(kinds))}, wanted at least {SMALLEST_SIDE}x{SMALLEST_SIDE}")
        stack.append(samples)
        bits = frame.raw.bits
    if not stack:
        raise DataSetError("no frames to fit a sensor to")
    return np.stack(stack), bits


def write_likeness(plan: SimulationPlan, real: NDArray[np.uint16], out: Path) -> Path:
    """Write likeness.json and likeness.png: the real frames beside as many clean simulated ones."""
    if plan.like is None:
        raise DataSetError("no sensor was fitted to real frames")
    simulated = clean_frames(plan.like, len(real))
    sensor = {key: value for key, value in asdict(plan.like).items() if key != "lines"}
    _replace(out / "likeness.json", json.dumps({"sensor": sensor, **compare(real, simulated)}, indent=1) + "\n")
    try:
        from engines.training.pictures import draw_likeness
    except ImportError:  # without the train extra: numbers alone
        return out / "likeness.json"
    return draw_likeness(real, simulated, out / "likeness.png")


def _write_one(task: tuple[SimulationPlan, Path, int, FramePlan]) -> tuple[dict[str, object], dict[str, str]]:
    """One frame's row of truth.csv, and the SHA-256 of its files."""
    plan, out, index, planned = task
    sensor = plan.sized(planned.sensor)
    frame = simulate(sensor, planned.plan, seed=(plan.seed, index, FRAME_TAG), shading=plan.shading)
    usable = [f for f in plan.formats if fits_format(f, sensor.bits)]
    lot = f"L{plan.seed % 1000:03d}"
    stem = f"{sensor.name}{index:05d}_W{1 + index // 200:02d}_X{index % 20}_Y{index // 20 % 10}"
    path = write_frame(out / sensor.name / lot, stem, frame.samples, bits=sensor.bits,
                       format_name=usable[sum(divmod(index, len(plan.sensors))) % len(usable)])  # fmt: skip
    truth = frame.truth
    values = (
        path.relative_to(out).as_posix(), sensor.name, lot, truth.class_name, truth.kind, truth.rating,
        round(truth.level, 4), json.dumps(truth.boxes), sensor.width, sensor.height, sensor.bits, plan.seed,
        planned.split,
    )  # fmt: skip
    written = [p for p in (path, path.with_name(path.name + SIDECAR_SUFFIX)) if p.exists()]
    sums = {p.relative_to(out).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in written}
    return dict(zip(COLUMNS, values, strict=True)), sums


def write_simulated(
    plan: SimulationPlan, out: Path, *, workers: int, progress: Callable[[int, int], None] = lambda _done, _total: None
) -> Path:
    """Write the frames, truth.csv, SHA256SUMS and manifest.json; or what a stopped run of the same plan left undone.

    Args:
        plan: of the set.
        out: folder; made.
        workers: processes.
        progress: called with frames done and frames in all.

    Returns:
        The path of truth.csv, whose `level` is a rater's whole number and `true_level` the simulated one.

    Raises:
        DataSetError: the folder holds another set.
    """
    frames = plan.frames()
    done = _begin(plan, out)
    if (out / TRUTH_FILE).exists():
        progress(len(frames), len(frames))
        return out / TRUTH_FILE
    progress(len(done), len(frames))
    tasks = [(plan, out, i, planned) for i, planned in enumerate(frames) if i not in done]
    with (
        (out / ROWS).open("a", encoding="utf-8") as journal,
        ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool,
    ):
        for task, (row, sums) in zip(tasks, pool.map(_write_one, tasks), strict=True):
            done[task[2]] = (row, sums)
            journal.write(json.dumps([task[2], row, sums]) + "\n")
            journal.flush()
            progress(len(done), len(frames))
    return _finish(plan, out, [done[i] for i in range(len(frames))])


def _begin(plan: SimulationPlan, out: Path) -> dict[int, tuple[dict[str, object], dict[str, str]]]:
    """Claim the folder for this plan; returns the frames that a stopped run finished, by index."""
    out.mkdir(parents=True, exist_ok=True)
    manifest = out / MANIFEST
    if manifest.exists():
        begun = json.loads(manifest.read_text(encoding="utf-8"))["plan"]
        if begun != plan.as_json():
            raise DataSetError(f"{out}: holds the set {begun}, wanted {plan.as_json()}; choose another folder")
    elif (out / TRUTH_FILE).exists():
        raise DataSetError(f"{out / TRUTH_FILE}: there is a data set already; choose another folder")
    else:
        _replace(manifest, json.dumps({"plan": plan.as_json(), "complete": False}, indent=1) + "\n")
    done = {}
    journal = out / ROWS
    if journal.exists():
        lines = journal.read_text(encoding="utf-8").split("\n")
        for line in lines[:-1]:  # what follows the last line end was being written when the run stopped
            index, row, sums = json.loads(line)
            if all((out / name).is_file() for name in sums):
                done[index] = (row, sums)
        _replace(journal, "".join(json.dumps([i, *both]) + "\n" for i, both in done.items()))
    return done


def _finish(plan: SimulationPlan, out: Path, rows: list[tuple[dict[str, object], dict[str, str]]]) -> Path:
    lines = [f"{digest}  {name}\n" for _, sums in rows for name, digest in sums.items()]
    _replace(out / CHECKSUMS, "".join(lines))
    temporary = out / f".{TRUTH_FILE}.tmp"
    with temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(row for row, _ in rows)
    counts = {key: dict(sorted(Counter(str(row[key]) for row, _ in rows).items()))
              for key in ("split", "class", "level", "sensor", "kind")}  # fmt: skip
    whole = {"plan": plan.as_json(), "complete": True, "frames": len(rows), "counts": counts,
             "truth_sha256": hashlib.sha256(temporary.read_bytes()).hexdigest()}  # fmt: skip
    _replace(out / MANIFEST, json.dumps(whole, indent=1) + "\n")
    temporary.replace(out / TRUTH_FILE)
    (out / ROWS).unlink(missing_ok=True)
    return out / TRUTH_FILE


def _replace(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    temporary = path.with_name(f"{path.name}.tmp")
    with temporary.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
