"""Simulated sets hold what the paper's tables say, and a run that was killed goes on to the same bytes."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest

from appliance.dataset import DataSetError
from appliance.simulated import CHECKSUMS, MANIFEST, ROWS, SimulationPlan, read_stack, write_simulated
from engines.simulation import SENSORS, plans
from tests.appliance.running import wait_until

ALL = tuple(SENSORS)
MODELS = tuple(SENSORS.values())


def rows_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "truth.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_classification_set_has_the_counts_of_table_1() -> None:
    frames = plans.classification_set(MODELS, None, seed=1)
    assert len(frames) == 40_276
    counted = Counter((f.split, f.plan.class_name) for f in frames)
    assert counted == {(split, name): n for split, row in plans.TABLE_1.items() for name, n in row.items()}
    assert not [f for f in frames if f.plan.class_name != "Error" and 2.5 < f.plan.level < 3.5]


def test_the_regression_set_has_the_levels_of_table_2_as_rated() -> None:
    frames = plans.regression_set(MODELS, None, seed=1)
    assert len(frames) == 6_514
    counted = Counter((f.split, f.plan.rating) for f in frames)
    assert counted == {(split, level): n for split, row in plans.TABLE_2.items() for level, n in enumerate(row)}
    assert sum(abs(f.plan.level - (f.plan.rating or 0)) > 1.5 for f in frames) < 10  # SD of rounding and jitter: 0.42


def test_the_sensor_test_has_the_frames_of_table_3() -> None:
    frames = plans.sensor_set(MODELS, None, seed=1)
    assert Counter(f.sensor for f in frames if f.split == "test") == plans.TABLE_3
    training = Counter(f.sensor for f in frames if f.split == "train")
    assert all(training[name] >= 100 for name in ALL)


@pytest.mark.parametrize("count", [1, 7, 60, 4000])
def test_a_smaller_set_keeps_the_proportions(count: int) -> None:
    frames = plans.classification_set(MODELS, count, seed=3)
    assert len(frames) == count
    ok = sum(f.plan.class_name == "OK" for f in frames)
    assert abs(ok - count * 34_773 / 40_276) <= 3  # three cells are rounded


def test_files_manifest_and_checksums_agree(tmp_path: Path) -> None:
    plan = SimulationPlan(
        sensors=ALL, seed=5, count=24, formats=("raw10", "tiff"), paper="regression", megapixels=0.1
    )  # fmt: skip
    done: list[tuple[int, int]] = []
    write_simulated(plan, tmp_path, workers=2, progress=lambda n, total: done.append((n, total)))
    rows = rows_of(tmp_path)
    manifest = json.loads((tmp_path / MANIFEST).read_text())
    assert manifest["complete"]
    assert manifest["frames"] == len(rows) == 24
    assert manifest["counts"]["split"] == dict(Counter(row["split"] for row in rows))
    assert manifest["truth_sha256"] == hashlib.sha256((tmp_path / "truth.csv").read_bytes()).hexdigest()
    sums = {line[66:]: line[:64] for line in (tmp_path / CHECKSUMS).read_text().splitlines()}
    frames = {p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*") if p.is_file() and p.parent != tmp_path}
    assert set(sums) == frames >= {row["file"] for row in rows}
    assert all(hashlib.sha256((tmp_path / name).read_bytes()).hexdigest() == digest for name, digest in sums.items())
    assert max(int(row["width"]) * int(row["height"]) for row in rows) <= 100_000
    assert done[0] == (0, 24)
    assert done[-1] == (24, 24)


def test_a_killed_run_goes_on_to_the_same_files(tmp_path: Path) -> None:
    arguments = ["--seed", "9", "--count", "41", "--paper-mix", "--megapixels", "0.2", "--workers", "2"]
    command = [sys.executable, "-m", "appliance.cli", "simulate"]
    killed = subprocess.Popen([*command, tmp_path / "killed", *arguments], start_new_session=True)
    journal = tmp_path / "killed" / ROWS
    wait_until(lambda: journal.exists() and len(journal.read_text().splitlines()) >= 3, "three frames are written")
    assert killed.poll() is None
    os.killpg(killed.pid, signal.SIGKILL)
    killed.wait()
    assert not (tmp_path / "killed" / "truth.csv").exists()
    with journal.open("a") as file:
        file.write('[40, {"file": "A/')  # the line that was being written
    kept = len(journal.read_text().splitlines()) - 1
    made = {p: p.stat().st_mtime_ns for p in (tmp_path / "killed").rglob("*.tif")}
    subprocess.run([*command, tmp_path / "killed", *arguments], check=True)
    subprocess.run([*command, tmp_path / "whole", *arguments], check=True)
    for name in (CHECKSUMS, "truth.csv", MANIFEST):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert sum(p.stat().st_mtime_ns == mtime for p, mtime in made.items()) >= kept
    assert not journal.exists()


def test_a_folder_with_another_set_is_refused(tmp_path: Path) -> None:
    plan = SimulationPlan(sensors=("A",), seed=5, count=2, megapixels=0.1)
    write_simulated(plan, tmp_path, workers=1)
    before = (tmp_path / "truth.csv").read_bytes()
    write_simulated(plan, tmp_path, workers=1)
    assert (tmp_path / "truth.csv").read_bytes() == before
    with pytest.raises(DataSetError, match="choose another folder"):
        write_simulated(SimulationPlan(sensors=("A",), seed=6, count=2), tmp_path, workers=1)
    (tmp_path / MANIFEST).unlink()
    with pytest.raises(DataSetError, match="there is a data set already"):
        write_simulated(plan, tmp_path, workers=1)


def test_stronger_shading_changes_the_broad_shape_alone(tmp_path: Path) -> None:
    """The same noise lies on three times the shading and glow."""
    spreads, fine = [], []
    for shading in (1.0, 3.0):
        plan = SimulationPlan(sensors=("D",), seed=2, count=2, formats=("npy",), megapixels=0.3, shading=shading)
        write_simulated(plan, tmp_path / str(shading), workers=1)
        assert json.loads((tmp_path / str(shading) / MANIFEST).read_text())["plan"]["shading"] == shading
        samples = np.load(next((tmp_path / str(shading)).rglob("*.npy"))).astype(float)
        h, w = (n // 32 * 32 for n in samples.shape)
        cells = samples[:h, :w].reshape(h // 32, 32, w // 32, 32).mean((1, 3))
        spreads.append(cells.std())
        fine.append(np.median(np.abs(np.diff(samples))))
    assert spreads[1] > 1.4 * spreads[0]
    assert fine[1] == pytest.approx(fine[0], rel=0.1)


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        (((40, 60), (40, 64)), "60x40 pixels of 8 bits and 64x40 pixels of 8 bits, wanted one size"),
        (((8, 60),), "60x8 pixels of 8 bits, wanted at least 16x16"),
        ((), "no frames"),
    ],
)
def test_frames_that_no_sensor_can_be_fitted_to_are_named(
    tmp_path: Path, shapes: tuple[tuple[int, int], ...], message: str
) -> None:
    paths = [tmp_path / f"{i}.pgm" for i in range(len(shapes))]
    for path, shape in zip(paths, shapes, strict=True):
        cv2.imwrite(str(path), np.full(shape, 9, np.uint8))
    with pytest.raises(DataSetError, match=message):
        read_stack(paths)


def test_frames_of_two_depths_are_refused(tmp_path: Path) -> None:
    paths = [tmp_path / "a.pgm", tmp_path / "b.pgm"]
    cv2.imwrite(str(paths[0]), np.full((40, 60), 9, np.uint8))
    cv2.imwrite(str(paths[1]), np.full((40, 60), 9, np.uint16))
    with pytest.raises(DataSetError, match="of 16 bits and 60x40 pixels of 8 bits, wanted one size and one depth"):
        read_stack(paths)


def test_a_fitted_sensor_has_no_shading_to_strengthen() -> None:
    with pytest.raises(DataSetError, match="shading is of the six sensors"):
        SimulationPlan(sensors=("A",), seed=1, count=1, like=SENSORS["A"], shading=3.0)
