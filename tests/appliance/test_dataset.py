"""Folders with truth: what is wrong is said before anything is trained or measured."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from appliance.assess import assess
from appliance.dataset import DataSetError, SimulationPlan, read_truth, write_simulated
from appliance.formats import write_frame
from appliance.training_sets import from_folder, training_sets
from engines import Inspector
from engines.training.data import AMBIGUOUS
from tests.conftest import dark


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("simulated")
    plan = SimulationPlan(folder, ("A", "B"), 11, ("tiff", "raw10"), paper_mix=False)
    write_simulated(plan, 24, workers=2, progress=lambda: None)
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
        ("file,class\nb.tif,OK\n", "1 of 1 files are not there, the first is b.tif"),
    ],
)
def test_wrong_truth_is_named(tmp_path: Path, truth: str, message: str) -> None:
    write_frame(tmp_path, "a", dark(), bits=8, format_name="tiff")
    (tmp_path / "truth.csv").write_text(truth)
    with pytest.raises(DataSetError, match=message):
        read_truth(tmp_path)


def test_a_folder_without_truth_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataSetError, match="neither"):
        read_truth(tmp_path)


def test_a_folder_becomes_training_images(simulated: Path) -> None:
    images = from_folder(simulated)
    assert images.images.shape[1:] == (224, 224)
    assert set(images.sensor) == {"A", "B"}
    visible = np.flatnonzero((images.rating >= 5) & (images.rating < 10))
    assert len(visible)
    for i in visible:
        assert (images.boxes_of(int(i)) <= 224).all()
        assert len(images.boxes_of(int(i)))
    train, check = training_sets(simulated, None, cache=simulated / "cache")
    assert len(train) + len(check) == len(images)
    assert (images.class_index != AMBIGUOUS).any()


def test_assessment_counts_every_frame(simulated: Path, inspector: Inspector) -> None:
    report = assess(simulated, inspector)
    assert report["n"] + report["ambiguous"] == 24
    assert sum(sum(row.values()) for row in report["confusion"].values()) == report["n"]
    assert report.keys() >= {"accuracy", "f1", "recall", "mae", "beyond_3", "pcc", "per_sensor", "conventional"}
    assert report["per_sensor"]["A"].keys() == {"n", "accuracy", "f1", "conventional"}
