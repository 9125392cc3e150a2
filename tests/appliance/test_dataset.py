"""Folders with truth: what is wrong is said before anything is trained or measured."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from appliance.assess import assess
from appliance.dataset import DataSet, DataSetError
from appliance.formats import write_frame
from appliance.simulated import SimulationPlan, write_simulated
from appliance.training_sets import images_of, training_sets
from engines import Inspector
from engines.training.data import AMBIGUOUS
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
