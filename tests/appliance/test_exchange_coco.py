"""Labels as COCO: boxes of other programs, what is wrong is named."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from appliance.exchange import format_named, labeled_frames
from appliance.exchange.taking import import_labels
from appliance.labels import LabelError, standing
from appliance.verdict_log import VerdictLog
from tests.appliance.exchanged import as_exported, coco, imported, labeled_log
from tests.appliance.test_labels import JO


@pytest.fixture
def log(tmp_path: Path) -> VerdictLog:
    return labeled_log(tmp_path / "one")


def test_coco_boxes_are_those_of_the_label_that_holds(log: VerdictLog, tmp_path: Path) -> None:
    format_named("coco").write(labeled_frames(log, log.labels()), tmp_path / "coco.json")
    made = json.loads((tmp_path / "coco.json").read_text())
    names = {c["id"]: c["name"] for c in made["categories"]}
    found = [(a["image_id"], a["bbox"], names[a["category_id"]]) for a in made["annotations"]]
    assert found == [(2, [0, 0, 360, 300], "object"), (2, [7, 11, 6, 6], "ring"), (2, [7, 11, 6, 6], "ring")]
    assert [(i["file_name"], i["width"], i["height"]) for i in made["images"]][:1] == [("P/L/a.tif", 360, 300)]


def test_boxes_changed_in_another_program_become_a_new_label(log: VerdictLog, tmp_path: Path) -> None:
    path = tmp_path / "coco.json"
    format_named("coco").write(labeled_frames(log, log.labels()), path)
    made = json.loads(path.read_text())
    made["annotations"][1]["bbox"] = [10, 20, 30, 40]
    path.write_text(json.dumps(made))
    assert import_labels(log, format_named("coco").read(path), who="max", source="coco").added == 1
    *_, newest = log.labels(2)[2]
    holds = standing(log.labels(2)[2]).label
    assert holds is not None
    assert (newest.who, holds.class_name, holds.level) == ("max", "Spot", 6.0)
    assert holds.boxes[1] == (10, 20, 40, 60)


def test_boxes_moved_back_to_an_earlier_state_are_a_new_label(log: VerdictLog, tmp_path: Path) -> None:
    log.add_labels([(1, replace(JO, class_name="Spot", at="2026-01-05", boxes=((50, 50, 70, 70),)))])
    path, made = as_exported(log, tmp_path, "coco", [1])
    made["annotations"][0]["bbox"] = [10, 20, 40, 40]  # as jo's first label had it
    assert imported(log, path, "coco", made) == 1
    holds = standing(log.labels(1)[1]).label
    assert holds is not None
    assert holds.boxes == JO.boxes
    made["annotations"] = []  # all of them deleted
    assert imported(log, path, "coco", made) == 1
    holds = standing(log.labels(1)[1]).label
    assert holds is not None
    assert (holds.boxes, holds.empty) == ((), True)


def boxed(**changed: Any) -> dict[str, Any]:
    return coco(annotations=[{"id": 1, "image_id": 7, "category_id": 1, "bbox": [1, 2, 4, 2]} | changed])


def test_coco_of_others_is_read_by_the_name_of_the_file(log: VerdictLog, tmp_path: Path) -> None:
    path = tmp_path / "coco.json"
    path.write_text(json.dumps(coco()))
    import_labels(log, format_named("coco").read(path), who="max", source="coco")
    *_, newest = log.labels(1)[1]
    assert (newest.boxes, newest.box_classes, newest.who) == (((1, 2, 11, 22),), ("ring",), "max")
    path.write_text(json.dumps(coco(annotations=[])))
    import_labels(log, format_named("coco").read(path), who="max", source="coco")
    *_, newest = log.labels(1)[1]
    assert newest.boxes == ()
    holds = standing(log.labels(1)[1]).label
    assert holds is not None
    assert (holds.boxes, holds.class_name) == ((), "OK")  # a file of boxes says nothing of the class


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (boxed(bbox=[350, 2, 40, 20]), r"a\.tif: box \[350, 2, 390, 22\] lies outside"),
        (boxed(bbox=[float("nan"), 2, 4, 2]), "a box whose corner is no number"),
        (boxed(image_id=8), "image 8, which is not among"),
        (boxed(category_id=3), "annotation 1 of category 3, which is not among"),
        (coco(annotations=[{"image_id": 7, "category_id": 1}]), "no COCO file: 'bbox' is missing"),
        (coco(images=[{"id": 7, "file_name": "a.tif", "width": 224, "height": 224}]),
         r"a\.tif: boxes in pixels of an image of 224x224, the frame has 360x300"),
        (coco(images=[{"id": 7, "file_name": "a.tif"}, {"id": 8, "file_name": "P/L/a.tif"}]),
         r"P/L/a\.tif: the same frame as a\.tif"),
        (coco(images=[{"id": 7, "file_name": "nowhere.tif"}]), r"nowhere\.tif: no such frame in the log"),
        (coco(images=[{"id": 7, "file_name": "b.tif"}]), "2 frames have this name, the newest are P/M/b.tif and P/L/b.tif"),
        (coco(images=[], annotations=[]), "no frame in it"),
        (coco(images=[{"id": 7, "file_name": "a.tif"}] * 2), "two images of one id, 7 the first"),
        (coco(images=[{"id": k, "file_name": "a.tif"} for k in (7, 8)]), "two images of one frame, .'a.tif', None."),
        (coco(images=[{"id": 7, "file_name": "a.tif", "umbra": {"sha256": [1]}}]), r"sha256 \[1\], wanted text"),
        (coco(images=[{"id": 7, "file_name": "\ud800"}]), "no name of a frame"),
        (coco(categories=[{"id": 1, "name": "\ud800"}]), "surrogates not allowed"),
        (coco(images=[{"id": 7, "file_name": "a.tif", "width": float("inf"), "height": 1}]), "no COCO file: .*infinity"),
        ({}, "no COCO file: wanted images, categories and annotations"),
        ([], "no COCO file: wanted images, categories and annotations"),
    ],
)  # fmt: skip
def test_a_coco_file_that_cannot_be_true_is_refused_whole(
    log: VerdictLog, tmp_path: Path, made: Any, message: str
) -> None:
    path = tmp_path / "coco.json"
    path.write_text(json.dumps(made))
    before = log.labels()
    with pytest.raises(LabelError, match=message):
        import_labels(log, format_named("coco").read(path), who="max", source="coco.json")
    assert log.labels() == before
