"""Simulate, train and evaluate in processes of their own: what a user types, what comes out, what is refused."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from appliance.dataset import DataSet
from appliance.formats import write_frame
from appliance.training_sets import images_of
from engines.models import build
from engines.training.fit import predict
from tests.appliance.test_cli import umbra
from tests.conftest import dark


@pytest.fixture(scope="module")
def sensors(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sensors")
    umbra("simulate", folder, "--paper-mix", "--part", "sensors", "--sensor", "A,C", "--count", "10",
          "--megapixels", "0.1", "--seed", "2")  # fmt: skip
    return folder


def test_an_evaluation_writes_its_report_and_pictures(sensors: Path, tmp_path: Path) -> None:
    done = umbra("evaluate", "--data", sensors, "--against", "f32", "--out", tmp_path / "report", "--json")
    report = json.loads(done.stdout)
    assert json.loads((tmp_path / "report" / "report.json").read_text()) == report
    assert (report["n"], report["conventional_fitted_on"]) == (10, 200)
    assert report["against"]["engine"].startswith("openvino-f32@")
    assert report["against"]["flips"] <= 1
    assert {path.name for path in (tmp_path / "report").glob("*.png")} == {
        "sensors.png", "confusion.png", "scores.png", "levels.png",
    }  # fmt: skip


@pytest.mark.parametrize("option", ["--precision", "--against"])
def test_an_evaluation_in_what_only_a_gpu_computes_is_refused(option: str, tmp_path: Path) -> None:
    refused = umbra("evaluate", "--data", tmp_path, option, "fp16", expect=2).stderr
    assert "openvino does not compute in fp16" in " ".join(refused.replace("│", " ").split())


def test_an_evaluation_is_printed_with_intervals(sensors: Path) -> None:
    printed = umbra("evaluate", "--data", sensors).stdout
    for wanted in ("total", "true class", "false alarms", " to ", "fitted on 200 training frames"):
        assert wanted in printed


def test_a_sensor_is_fitted_to_frames_given_one_by_one(tmp_path: Path) -> None:
    paths = [write_frame(tmp_path / "real", f"d{n}", dark(seed=n), bits=8, format_name="png") for n in range(3)]
    umbra("simulate", tmp_path / "alike", "--count", "2", "--like", *paths)
    likeness = json.loads((tmp_path / "alike" / "likeness.json").read_text())
    assert likeness["frames"] == 3
    assert likeness["simulated"]["temporal_dn"] == pytest.approx(4.0, rel=0.03)
    assert (tmp_path / "alike" / "likeness.png").stat().st_size > 10_000
    with (tmp_path / "alike" / "truth.csv").open(newline="") as file:
        assert {(row["sensor"], row["width"]) for row in csv.DictReader(file)} == {("like", "360")}
    write_frame(tmp_path / "real", "e", dark(200, 200), bits=8, format_name="png")
    refused = umbra("simulate", tmp_path / "none", "--like", tmp_path / "real", expect=1)
    assert "200x200 pixels" in refused.stderr


def test_options_that_do_not_go_together_are_named(tmp_path: Path) -> None:
    assert "--part wants" in umbra("simulate", tmp_path / "a", "--part", "sensors", expect=2).stderr
    assert "--like" in umbra("simulate", tmp_path / "a", tmp_path / "frame.png", expect=2).stderr
    (tmp_path / "labels.csv").write_text("file,class\na.tif,OK\n")
    write_frame(tmp_path, "a", dark(), bits=8, format_name="tiff")
    assert "wanted K/N" in umbra("evaluate", "--data", tmp_path, "--fold", "2", expect=2).stderr


def test_pictures_are_trained_on_and_evaluated_fold_by_fold(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    lines = ["file,kind"]
    for i in range(40):
        picture = rng.integers(0, 40, (64, 64), dtype=np.uint8)
        if i % 2:
            picture[20:40, 20:40] = 200
        cv2.imwrite(str(tmp_path / f"{i}.png"), picture)
        lines.append(f"{i}.png,{'dot' if i % 2 else 'none'}")
    (tmp_path / "labels.csv").write_text("\n".join(lines) + "\n")
    (tmp_path / "map.toml").write_text('label = "kind"\npictures = "turned"\n[classes]\ndot = "Spot"\nnone = "OK"\n')
    known = ("--data", tmp_path, "--class-map", tmp_path / "map.toml", "--fold", "1/4")
    run = tmp_path / "runs" / "classifier"
    training = ("train", "classifier", *known, "--out", run, "--preset", "smoke", "--from", "starter")
    umbra(*training)
    assert "resumed at stage 2" in umbra(*training).stderr  # the same command goes on where it was
    (run / "checkpoint.pt").write_bytes(b"torn")
    assert "checkpoint.pt: not a checkpoint that can be read" in umbra(*training, expect=1).stderr
    assert (run / "curve.png").stat().st_size > 1000
    report = json.loads(umbra("evaluate", *known, "--runs", tmp_path / "runs", "--json").stdout)
    assert (report["n"], report["split"]) == (10, "test")
    assert 0 <= report["class_accuracy"] <= 1
    assert report["mae"] is None
    assert report["conventional"]["accuracy"] is None


@pytest.mark.parametrize(("boxes", "recipe"), [("boxes.csv", "exposed"), ("coco.json", "paper")])
def test_the_unseen_network_is_trained_on_boxes_alone(tmp_path: Path, boxes: str, recipe: str) -> None:
    """A folder with boxes.csv, or with COCO, and no labels; what comes out has a map for objects and one for the rest."""
    names = [f"f{number}" for number in range(16)]
    for number, name in enumerate(names):
        raw = dark(seed=number)
        raw[90:210, 120:240] += 40
        write_frame(tmp_path, name, raw, bits=8, format_name="tiff")
    if boxes == "boxes.csv":
        rows = [f"{name}.tif,120,90,240,210" for name in names]
        (tmp_path / boxes).write_text("\n".join(["file,x0,y0,x1,y1", *rows]) + "\n")
    else:
        numbered = list(enumerate(names, start=1))
        coco = {
            "images": [{"id": n, "file_name": f"{name}.tif"} for n, name in numbered],
            "categories": [{"id": 1, "name": "square"}],
            "annotations": [
                {"id": n, "image_id": n, "category_id": 1, "bbox": [120, 90, 120, 120]} for n, _ in numbered
            ],
        }
        (tmp_path / boxes).write_text(json.dumps(coco))
    umbra("train", "unseen", "--data", tmp_path, "--out", tmp_path / "run", "--preset", "smoke", "--recipe", recipe)
    model = build("unseen")
    model.load_state_dict(torch.load(tmp_path / "run" / "weights.pt", weights_only=True))
    known = DataSet.read(tmp_path)
    logits = predict(model, images_of(known, known.rows).images, 224, batch=8)[:, :, ::8, ::8]
    objects, background = logits[:, 1, 9:18, 10:17], logits[:, 1, :, :8]
    assert objects.mean() > background.mean() + 0.2
    assert np.isfinite(logits).all()


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (["a.tif,OK,1", "gone.tif,Spot,6"], "1 of 2 files are not there, the first is gone.tif"),
        (["a.tif,Scratch,1"], "class 'Scratch'"),
        (["a.tif,OK,11"], "level 11"),
        ([f"{name}.tif,OK,1" for name in "abcdefgh"], "one class only"),
        (["a.tif,OK,1", "b.tif,Spot,6"], "2 groups of frames, wanted at least 8"),
    ],
)
def test_a_training_folder_that_cannot_teach_is_refused_before_the_first_epoch(
    tmp_path: Path, rows: list[str], message: str
) -> None:
    for name in "abcdefgh":
        write_frame(tmp_path, name, dark(), bits=8, format_name="tiff")
    (tmp_path / "labels.csv").write_text("\n".join(["file,class,level", *rows]) + "\n")
    said = umbra(
        "train", "classifier", "--data", tmp_path, "--out", tmp_path / "run", "--preset", "smoke", expect=1
    ).stderr
    assert message in " ".join(said.split())
    assert not (tmp_path / "run" / "checkpoint.pt").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("evaluate", "--data", ".", "--runs", ".", "--against", "f32"), "--precision and --against are for a bundle"),
        (("train", "regressor", "--simulate", "64", "--out", "run", "--classes", "2"), "--classes 2 is for the class"),
        (
            ("train", "regressor", "--simulate", "64", "--out", "run", "--recipe", "paper"),
            "--recipe paper is for the un",
        ),
        (("train", "regressor", "--out", "run"), "wanted one of --data and --simulate"),
    ],
)
def test_options_that_would_do_nothing_are_refused(
    tmp_path: Path, arguments: tuple[str, ...], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_frame(tmp_path, "a", dark(), bits=8, format_name="tiff")
    (tmp_path / "labels.csv").write_text("file,class\na.tif,OK\n")
    monkeypatch.chdir(tmp_path)
    assert message in " ".join(umbra(*arguments, expect=2).stderr.replace("│", " ").split())


def test_a_frame_that_cannot_be_read_is_no_detection(tmp_path: Path) -> None:
    """Counted as refused it would be a right answer for a defect."""
    (tmp_path / "a.tif").write_bytes(b"no picture")
    (tmp_path / "labels.csv").write_text("file,class\na.tif,Spot\n")
    assert "a.tif: " in umbra("evaluate", "--data", tmp_path, expect=1).stderr


def test_agreement_is_reported_from_a_csv(tmp_path: Path) -> None:
    rows = [f"f{level},{level},r{r},{min(10, level + r / 10)}" for level in range(11) for r in range(5)]
    (tmp_path / "ratings.csv").write_text("\n".join(["frame,level,rater,score", *rows]) + "\n")
    done = umbra("report", "agreement", tmp_path / "ratings.csv", "--picture", tmp_path / "a.png", "--json")
    report = json.loads(done.stdout)
    assert (report["frames"], report["raters"]) == (10, 5)
    assert report["pcc_mean"] == pytest.approx(1.0)
    assert (tmp_path / "a.png").stat().st_size > 5000
    (tmp_path / "bad.csv").write_text("frame,level,rater,score\nf,3,r,12\n")
    assert "line 2: level 3, score 12" in umbra("report", "agreement", tmp_path / "bad.csv", expect=1).stderr
