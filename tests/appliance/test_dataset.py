"""Folders with truth: what is wrong is said before anything is trained or measured."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from appliance.assess import assess
from appliance.dataset import DataSet, DataSetError
from appliance.formats import write_frame
from appliance.simulated import SimulationPlan, write_simulated
from appliance.training_sets import images_of, training_sets
from engines import Inspector
from engines.training.data import AMBIGUOUS, ImageSet, SetRecipe, simulate_set
from kernels import StretchParams
from tests.conftest import dark


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("simulated")
    plan = SimulationPlan(sensors=("A", "B"), seed=11, count=24, formats=("tiff", "raw10"))
    write_simulated(plan, folder, workers=2)
    return folder


@pytest.mark.parametrize(
    ("truth", "message"),
    [
        ("", "no rows"),
        ("file,class\n", "no rows"),
        ("name,class\na.tif,OK\n", "no column"),
        ("file,class\na.tif,Scratch\n", "class 'Scratch'"),
        ("file,class,level\na.tif,OK,11\n", "level 11"),
        ("file,class,level\na.tif,OK,many\n", "line 2"),
        ("file,class,split\na.tif,OK,dev\n", "split 'dev'"),
        ("file,class,boxes\na.tif,Spot,3\n", r"line 2: box 3, wanted \[x0"),
        ('file,class,boxes\na.tif,Spot,"[[1,2]]"\n', r"box \[1, 2\], wanted"),
        ('file,class,boxes\na.tif,Spot,"[[5,5,5,9]]"\n', "x0 < x1"),
        ("file,class\nb.tif,OK\n", "1 of 1 files are not there, the first is b.tif"),
    ],
)
def test_wrong_truth_is_named(tmp_path: Path, truth: str, message: str) -> None:
    write_frame(tmp_path, "a", dark(), bits=8, format_name="tiff")
    (tmp_path / "truth.csv").write_text(truth)
    with pytest.raises(DataSetError, match=message):
        DataSet.read(tmp_path)


def test_a_folder_without_truth_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataSetError, match="neither"):
        DataSet.read(tmp_path)


def test_a_folder_becomes_training_images(simulated: Path) -> None:
    images = images_of(known := DataSet.read(simulated), known.rows)
    assert images.images.shape[1:] == (224, 224)
    assert set(images.sensor) == {"A", "B"}
    visible = np.flatnonzero((images.rating >= 5) & (images.rating < 10))
    assert len(visible)
    for i in visible:
        assert (images.boxes_of(int(i)) <= 224).all()
        assert len(images.boxes_of(int(i)))
    train, check = training_sets(known, None, cache=simulated / "cache")
    assert len(train) + len(check) == len(images)
    assert (images.class_index != AMBIGUOUS).any()


def test_decoded_images_are_kept_until_a_file_changes(simulated: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known, cache = DataSet.read(simulated), simulated / "kept"
    before, _ = training_sets(known, None, cache=cache)
    with monkeypatch.context() as patch:
        patch.setattr("appliance.training_sets.ProcessPoolExecutor", None)  # decoding again would fail
        again, _ = training_sets(known, None, cache=cache)
    np.testing.assert_array_equal(before.images, again.images)
    changed = simulated / next(row.file for row in known.divided().rows if row.split == "train")
    os.utime(changed, (1, 1))
    training_sets(known, None, cache=cache)
    assert len(list(cache.iterdir())) == 3  # another training set, the same validation set


def test_a_simulated_set_goes_on_after_a_kill(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Shards that are there are not made again, and the set is the one that an undisturbed run makes."""
    monkeypatch.setattr("appliance.training_sets.SHARD", 40)
    whole, validation = training_sets(None, 96, cache=tmp_path / "a", seed=3)
    drawn: list[int] = []

    def until_killed(recipe: SetRecipe, count: int, params: StretchParams, *, first: int, **rest: Any) -> ImageSet:
        if len(drawn) == 2:
            raise KeyboardInterrupt
        drawn.append(first)
        return simulate_set(recipe, count, params, first=first, **rest)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("appliance.training_sets.simulate_set", until_killed)
        training_sets(None, 96, cache=tmp_path / "b", seed=3)
    said: list[tuple[str, int, int]] = []
    again, _ = training_sets(None, 96, cache=tmp_path / "b", seed=3, progress=lambda *told: said.append(told))
    assert drawn == [0, 40]
    assert said[0] == ("simulating training frames", 96, 96)  # the third shard alone
    np.testing.assert_array_equal(again.images, whole.images)
    np.testing.assert_array_equal(again.boxes, whole.boxes)
    assert not list(tmp_path.glob("b/*-shards"))
    assert len(validation) <= 96
    other, _ = training_sets(None, 96, cache=tmp_path / "a", seed=4)
    assert other.digest != whole.digest


def test_frames_of_a_group_are_not_divided_and_all_sensors_validate(simulated: Path) -> None:
    known = DataSet.read(simulated)
    rows = tuple(replace(row, group=f"pair {i // 2}") for i, row in enumerate(known.rows * 8))
    divided = replace(known, rows=rows).divided()
    splits = {split: {row.group for row in divided.rows if row.split == split} for split in ("train", "validation")}
    assert not splits["train"] & splits["validation"]
    assert {row.sensor for row in divided.rows if row.split == "validation"} == {"A", "B"}
    with pytest.raises(DataSetError, match="2 groups of frames, wanted at least 8"):
        replace(known, rows=rows[:4]).divided()


def test_a_split_set_is_judged_on_its_test_frames_by_specs_of_its_training_frames(
    tmp_path: Path, inspector: Inspector
) -> None:
    plan = SimulationPlan(sensors=("A", "B"), seed=3, count=12, paper="sensors", megapixels=0.1)
    write_simulated(plan, tmp_path, workers=2)
    known = DataSet.read(tmp_path)
    steps: list[tuple[int, int]] = []
    report = assess(known, inspector, progress=lambda done, total: steps.append((done, total)))
    assert (report["n"], report["split"]) == (12, "test")
    assert report["conventional_fitted_on"] == len(known.of_split("train")) == 200
    assert steps[-1] == (212, 212)
    with pytest.raises(DataSetError, match="no frame of split 'validation'"):
        assess(known, inspector, split="validation")


def test_assessment_counts_every_frame(simulated: Path, inspector: Inspector) -> None:
    report = assess(DataSet.read(simulated), inspector)
    assert report["n"] + report["ambiguous"] == 24
    assert sum(sum(row.values()) for row in report["confusion"].values()) == report["n"]
    assert report.keys() >= {"accuracy", "f1", "recall", "mae", "beyond_3", "pcc", "per_sensor", "conventional"}
    assert report["per_sensor"]["A"].keys() == {"n", "accuracy", "f1", "conventional"}
