"""Labels as Label Studio tasks and back: annotations, pictures, what is wrong is named."""

from __future__ import annotations

import base64
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from appliance.decide import decide
from appliance.exchange import format_named, labeled_frames
from appliance.exchange.taking import import_labels
from appliance.images import ImageStore
from appliance.labels import LabelError, Origin, standing
from appliance.verdict import verdict_row
from appliance.verdict_log import VerdictLog
from engines.regions import find_regions
from kernels import UnseenMetrics
from tests.appliance.exchanged import as_exported, imported, labeled_log
from tests.appliance.test_decide import frame, measured
from tests.appliance.test_labels import JO


@pytest.fixture
def log(tmp_path: Path) -> VerdictLog:
    return labeled_log(tmp_path / "one")


def test_an_annotation_changed_until_it_agrees_is_a_new_label(log: VerdictLog, tmp_path: Path) -> None:
    path, [task] = as_exported(log, tmp_path, "label_studio", [1])
    assert standing(log.labels(1)[1]).disputed
    jo, ann = task["annotations"]
    changed = [dict(one, id=one["id"].replace("label-1-", "label-2-")) for one in jo["result"]]
    ann |= {"result": changed, "completed_by": {"email": "ann"}, "updated_at": "2026-03-09T22:16:08Z"}
    assert imported(log, path, "label_studio", [task]) == 1
    assert not standing(log.labels(1)[1]).disputed


def test_a_proposal_accepted_unchanged_is_a_persons_label(log: VerdictLog, tmp_path: Path) -> None:
    path, [task] = as_exported(log, tmp_path, "label_studio", [3])
    task["annotations"].append({"result": task["predictions"][-1]["result"], "completed_by": {"email": "ann"},
                                "updated_at": "2026-03-09T22:16:08Z"})  # fmt: skip
    assert imported(log, path, "label_studio", [task]) == 1
    holds = standing(log.labels(3)[3]).label
    assert holds is not None
    assert (holds.who, holds.origin, holds.class_name) == ("ann", Origin.PERSON, "Spot")


@pytest.mark.parametrize("left", [("choices", "number"), ()])
def test_boxes_deleted_in_label_studio_are_gone(log: VerdictLog, tmp_path: Path, left: tuple[str, ...]) -> None:
    path, [task] = as_exported(log, tmp_path, "label_studio", [2])
    [annotation] = task["annotations"]
    annotation["result"] = [one for one in annotation["result"] if one["type"] in left]
    assert imported(log, path, "label_studio", [task]) == 1
    holds = standing(log.labels(2)[2]).label
    assert holds is not None
    assert (holds.class_name, holds.level, holds.boxes, holds.empty) == ("Spot", 6.0, (), True)
    assert imported(log, path, "label_studio", [task]) == 0


def test_that_there_is_nothing_goes_to_label_studio_and_back(log: VerdictLog, tmp_path: Path) -> None:
    nothing = replace(JO, class_name=None, level=None, boxes=(), box_classes=(), empty=True)
    log.add_labels([(4, nothing), (4, replace(nothing, empty=False, note="blurred", who="ann"))])
    path, [task] = as_exported(log, tmp_path, "label_studio", [4])
    assert len(task["annotations"]) == 1  # a note alone is none
    assert imported(log, path, "label_studio", [task]) == 0
    task["annotations"][0]["result"].append(json.loads(json.dumps(exported()[0]["annotations"][0]["result"][1])))
    assert imported(log, path, "label_studio", [task]) == 1
    *_, newest = log.labels(4)[4]
    assert (newest.class_name, newest.empty) == ("Diagonal", True)


def test_that_there_is_nothing_cannot_be_left_open_again(log: VerdictLog, tmp_path: Path) -> None:
    log.add_labels([(4, replace(JO, boxes=(), box_classes=(), empty=True))])
    path, [task] = as_exported(log, tmp_path, "label_studio", [4])
    [annotation] = task["annotations"]
    annotation["result"] = [one for one in annotation["result"] if one["from_name"] != "empty"]
    assert annotation["result"]
    with pytest.raises(
        LabelError, match=r"nothing to draw a box around, of label 6, was removed.*umbra labels retract 6"
    ):
        imported(log, path, "label_studio", [task])


@pytest.mark.parametrize(("gone", "what"), [("choices", "class Spot"), ("number", "level 6.0")])
def test_a_class_that_was_removed_is_named(log: VerdictLog, tmp_path: Path, gone: str, what: str) -> None:
    path, [task] = as_exported(log, tmp_path, "label_studio", [2])
    [annotation] = task["annotations"]
    annotation["result"] = [one for one in annotation["result"] if one["type"] != gone]
    with pytest.raises(LabelError, match=f"the {what}, of label 3, was removed.*umbra labels retract 3"):
        imported(log, path, "label_studio", [task])


def test_whoever_has_a_number_in_label_studio_gets_a_name(log: VerdictLog, tmp_path: Path) -> None:
    path = tmp_path / "tasks.json"
    path.write_text(json.dumps(exported()))
    import_labels(log, format_named("label_studio").read(path), who="max", source="tasks", users={"3": "jo"})
    assert log.labels(1)[1][-1].who == "jo"
    assert standing(log.labels(1)[1]).disputed  # ann says OK
    assert len({label.who for label in log.labels(1)[1]}) == 2


def test_the_interface_does_not_overwrite_its_tasks(log: VerdictLog, tmp_path: Path) -> None:
    path = tmp_path / "tasks.xml"
    path.write_text("here before")
    with pytest.raises(LabelError, match=r"tasks\.xml: wanted another suffix"):
        format_named("label_studio").write(labeled_frames(log, [1]), path)
    assert path.read_text() == "here before"


def exported(**changed: Any) -> list[dict[str, Any]]:
    """What Label Studio itself exports of a task that came with no more than a picture."""
    shape = {"to_name": "image", "original_width": 224, "original_height": 224, "image_rotation": 0}
    annotation = {
        "id": 5, "completed_by": 3, "was_cancelled": False, "created_at": "2026-03-09T21:52:49.513742Z",
        "updated_at": "2026-03-09T22:16:08.746926+02:00",
        "result": [
            {"id": "x", "type": "rectanglelabels", "from_name": "box",
             "value": {"x": 10.0, "y": 20.0, "width": 30.0, "height": 40.0, "rotation": 0, "rectanglelabels": ["ring"]}} | shape,
            {"id": "y", "type": "choices", "from_name": "class", "value": {"choices": ["Diagonal"]}} | shape,
            {"id": "z", "type": "number", "from_name": "level", "value": {"number": 5}} | shape,
        ],
    }  # fmt: skip
    return [{"id": 1, "data": {"image": "a.tif"}, "annotations": [annotation | changed]}]


def test_an_export_of_label_studio_is_read(log: VerdictLog, tmp_path: Path) -> None:
    path = tmp_path / "tasks.json"
    path.write_text(json.dumps(exported()))
    import_labels(log, format_named("label_studio").read(path), who="max", source="tasks")
    *_, newest = log.labels(1)[1]
    assert (newest.class_name, newest.level, newest.boxes) == ("Diagonal", 5.0, ((36, 60, 144, 180),))
    assert (newest.who, newest.at) == ("label-studio:3", "2026-03-09T20:16:08.746Z")
    path.write_text(json.dumps(exported(completed_by={"id": 3, "email": "ann@fab"}, updated_at=None)))
    import_labels(log, format_named("label_studio").read(path), who="max", source="tasks")
    assert log.labels(1)[1][-1].who == "ann@fab"


def test_skipped_annotations_say_nothing(log: VerdictLog, tmp_path: Path) -> None:
    path = tmp_path / "tasks.json"
    path.write_text(json.dumps(exported(was_cancelled=True)))
    assert import_labels(log, format_named("label_studio").read(path), who="max", source="tasks").added == 0


def test_a_turned_rectangle_becomes_the_box_around_it(log: VerdictLog, tmp_path: Path) -> None:
    path = tmp_path / "tasks.json"
    tasks = exported()
    tasks[0]["annotations"][0]["result"][0]["value"] |= {
        "rotation": 90,
        "x": 50.0,
        "y": 50.0,
        "width": 10.0,
        "height": 20.0,
    }
    path.write_text(json.dumps(tasks))
    import_labels(log, format_named("label_studio").read(path), who="max", source="tasks")
    assert log.labels(1)[1][-1].boxes == ((108, 150, 180, 180),)


@pytest.mark.parametrize(
    ("tasks", "message"),
    [({}, "wanted a list of tasks"), ([{"id": 1}], "no export of Label Studio: task 1: 'data' is missing"),
     (exported(result=[{"type": "rectanglelabels", "value": {"x": 1, "y": 1, "width": 2, "height": 2}}]),
      "task 1.*a rectangle without a label"),
     (exported(result=[{"type": "brushlabels", "value": {}}]), "type brushlabels")],
)  # fmt: skip
def test_what_is_no_export_of_label_studio_is_named(log: VerdictLog, tmp_path: Path, tasks: Any, message: str) -> None:
    path = tmp_path / "tasks.json"
    path.write_text(json.dumps(tasks))
    with pytest.raises(LabelError, match=message):
        import_labels(log, format_named("label_studio").read(path), who="max", source="tasks")


def test_a_task_has_pictures_regions_and_an_interface(log: VerdictLog, tmp_path: Path) -> None:
    unseen_map = np.zeros((224, 224), np.uint8)
    unseen_map[56:112, 28:84] = 200
    measurement = replace(
        measured(), image=np.full((224, 224), 127, np.uint8), regions=tuple(find_regions(unseen_map, threshold=0.5)),
        unseen=UnseenMetrics(56 * 56, 1.0, 0.8, np.zeros(256, np.uint32), unseen_map),
    )  # fmt: skip
    decision = decide(frame(), measurement, spec=0.3, capture_failed="retest")
    row = verdict_row(frame(), measurement, decision, bundle=("b@1", "e@1"), unseen=(0.5, 2.0),
                      ms={"decode": 1, "inspect": 2, "total": 3})  # fmt: skip
    stored = log.record(frame(), row | {"path": "P/N/c.tif", "sha256": "5" * 64, "lot": "N", "name": "c.tif"})
    ImageStore(tmp_path / "images.db").add(stored["frame_id"], measurement, seq=stored["seq"])
    path = tmp_path / "tasks.json"
    frames = labeled_frames(log, [stored["frame_id"], 4, 2], images=tmp_path / "images.db")
    format_named("label_studio").write(frames, path)
    first, second, _ = json.loads(path.read_text())
    for key, side in (("image", 224), ("overlay", 448)):
        head, _, picture = first["data"][key].partition(",")
        assert head == "data:image/png;base64"
        decoded = cv2.imdecode(np.frombuffer(base64.b64decode(picture), np.uint8), cv2.IMREAD_UNCHANGED)
        assert decoded is not None
        assert decoded.shape[:2] == (side, side)
    [prediction] = first["predictions"]
    assert prediction["model_version"] == "b@1"
    value = prediction["result"][0]["value"]
    assert value.pop("rectanglelabels") == ["unseen"]
    assert value == {"x": 12.5, "y": 25.0, "width": 25.0, "height": 25.0, "rotation": 0}
    assert (second["data"]["image"], second["annotations"]) == (None, [])
    interface = path.with_suffix(".xml").read_text()
    assert re.findall('<Label value="(.*?)"/>', interface) == ["ring", "object", "unseen"]
    assert re.findall('<Choice value="(.*?)"/>', interface) == [
        "OK",
        "Spot",
        "Diagonal",
        "Error",
        "nothing to draw a box around",
    ]
