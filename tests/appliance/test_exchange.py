"""Labels to COCO, Label Studio and CSV and back: nothing is lost, nothing is stored twice, what is wrong is named."""

from __future__ import annotations

import base64
import json
import os
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from appliance.decide import decide
from appliance.exchange import Incoming, LabeledFrame, format_named, import_labels, labeled_frames
from appliance.images import ImageStore
from appliance.labels import Label, LabelError, Origin, standing
from appliance.reading import UNREAD
from appliance.verdict import verdict_row
from appliance.verdict_log import VerdictLog
from engines.regions import find_regions
from kernels import UnseenMetrics
from tests.appliance.test_decide import frame, measured
from tests.appliance.test_labels import ANN, JO
from tests.appliance.test_verdict_log import row_of

WRITTEN = ("2026-05-01T00:00:00.000Z",) * 2  # time of a file
FORMATS = ("coco", "label_studio", "csv")
SAID = {
    1: [JO, replace(ANN, class_name="OK", level=0.0, boxes=(), box_classes=(), note='no, "really"\nnot')],
    2: [replace(JO, boxes=((0, 0, 360, 300), (7, 11, 13, 17), (7, 11, 13, 17)), box_classes=(None, "ring", "ring"), settles=True)],
    3: [replace(JO, class_name=None, level=2.25, boxes=(), box_classes=()),
        replace(JO, who="starter@1", origin=Origin.PROPOSAL, at="2026-02-01T00:00:00.000Z")],
}  # fmt: skip


def new_log(folder: Path) -> VerdictLog:
    """A log with frames 1 to 4 of 360x300 pixels; two of them share a name."""
    folder.mkdir(exist_ok=True)
    log = VerdictLog(folder / "umbra.db")
    for number, path in enumerate(("P/L/a.tif", "P/L/b.tif", "P/M/b.tif", "P/M/ü <&>.tif"), start=1):
        log.record(frame(), row_of(path, sha256=str(number) * 64))
    return log


@pytest.fixture
def log(tmp_path: Path) -> VerdictLog:
    made = new_log(tmp_path / "one")
    made.add_labels([(frame_id, label) for frame_id, labels in SAID.items() for label in labels])
    return made


@pytest.mark.parametrize("name", FORMATS)
def test_a_round_trip_loses_nothing(log: VerdictLog, tmp_path: Path, name: str) -> None:
    form, path = format_named(name), tmp_path / "labels"
    form.write(labeled_frames(log, log.labels()), path)
    other = new_log(tmp_path / "two")
    done = import_labels(other, form.read(path), who="importer", source="labels")
    assert (done.added, done.known, done.frames) == (5, 0, 3)

    def content(of: VerdictLog) -> dict[int, list[Label]]:
        return {frame_id: [replace(label, id=None) for label in labels] for frame_id, labels in of.labels().items()}

    assert content(other) == content(log) == SAID
    again = import_labels(other, form.read(path), who="importer", source="labels")
    assert (again.added, again.known) == (0, 5)


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


def as_exported(log: VerdictLog, tmp_path: Path, name: str, frames: list[int]) -> tuple[Path, Any]:
    path = tmp_path / "exported"
    format_named(name).write(labeled_frames(log, frames), path)
    return path, json.loads(path.read_text())


def imported(log: VerdictLog, path: Path, name: str, made: Any) -> int:
    path.write_text(json.dumps(made))
    return import_labels(log, format_named(name).read(path), who="max", source=name).added


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


def test_an_export_goes_where_a_link_leads_and_into_pipes(log: VerdictLog, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    link = tmp_path / "labels.csv"
    link.symlink_to(tmp_path / "elsewhere" / "kept.csv")
    format_named("csv").write(labeled_frames(log, [1]), link)
    assert link.is_symlink()
    text = (tmp_path / "elsewhere" / "kept.csv").read_text()
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with ThreadPoolExecutor(1) as pool:
        read = pool.submit(pipe.read_text)
        format_named("csv").write(labeled_frames(log, [1]), pipe)
        assert read.result() == text
    assert pipe.is_fifo()


def test_a_file_that_cannot_be_written_whole_leaves_the_one_before(log: VerdictLog, tmp_path: Path) -> None:
    def torn() -> Iterator[LabeledFrame]:
        yield from labeled_frames(log, [1])
        raise OSError("the disk is full")

    for name in FORMATS:
        path = tmp_path / name
        path.write_text("here before")
        with pytest.raises(OSError, match="full"):
            format_named(name).write(torn(), path)
        assert path.read_text() == "here before"
    assert len(list(tmp_path.glob(".*"))) == 0


@pytest.mark.parametrize("name", FORMATS)
def test_an_old_export_undoes_no_renaming_and_takes_nothing_back(log: VerdictLog, tmp_path: Path, name: str) -> None:
    path = tmp_path / "exported"
    for step in range(3):
        format_named(name).write(labeled_frames(log, log.labels(taken_back=True)), path)
        if step == 0:
            log.add_rename("ring", "halo", who="jo")
        elif step == 1:
            log.add_rename("halo", "corona", who="jo")
        else:
            log.retract_label(3, who="jo")
        before = log.labels(taken_back=True)
        done = import_labels(log, format_named(name).read(path), who="max", source=name)
        assert (done.added, done.known) == (0, 5)
        assert log.labels(taken_back=True) == before


@pytest.mark.parametrize("name", ["coco", "label_studio"])
def test_what_is_changed_in_a_file_that_was_out_while_a_class_was_renamed_has_the_new_name(
    log: VerdictLog, tmp_path: Path, name: str
) -> None:
    path, made = as_exported(log, tmp_path, name, [1, 2])
    log.add_rename("ring", "halo", who="jo")
    if name == "coco":
        made["annotations"][1]["bbox"] = [10, 20, 30, 40]
        ring = next(c["id"] for c in made["categories"] if c["name"] == "ring")
        made["annotations"].append({"id": 9, "image_id": 1, "category_id": ring, "bbox": [1, 2, 30, 40]})
    else:
        [annotation] = made[1]["annotations"]
        moved = next(one for one in annotation["result"] if one["value"].get("rectanglelabels") == ["ring"])
        moved["value"]["width"] *= 2
        made[0]["annotations"].append({"result": [moved | {"id": "drawn anew"}]})
    assert imported(log, path, name, made) == 2
    for frame_id in (1, 2):
        *_, newest = log.labels(frame_id)[frame_id]
        assert set(newest.box_classes) <= {None, "halo"}
        assert newest.boxes != JO.boxes
        assert "halo" in newest.box_classes
    assert imported(log, path, name, made) == 0
    holds = standing(log.labels(2)[2])
    assert holds.label is not None
    assert sorted(map(str, holds.label.box_classes)) == ["None", "halo", "halo"]


def test_of_a_name_used_before_and_after_a_renaming_the_label_that_was_changed_tells(
    log: VerdictLog, tmp_path: Path
) -> None:
    path, made = as_exported(log, tmp_path, "label_studio", [2])
    log.add_rename("ring", "halo", who="jo")
    log.add_labels([(4, replace(JO, boxes=((1, 2, 30, 40),), box_classes=("ring",), at="2026-03-01T00:00:00.000Z"))])
    made += as_exported(log, tmp_path, "label_studio", [4])[1]
    [annotation] = made[0]["annotations"]
    next(one for one in annotation["result"] if one["value"].get("rectanglelabels") == ["ring"])["value"]["width"] *= 2
    assert imported(log, path, "label_studio", made) == 1
    assert set(log.labels(2)[2][-1].box_classes) == {None, "halo"}
    assert log.labels(4)[4][-1].box_classes == ("ring",)


def test_a_name_that_was_given_up_and_is_used_again_stays_what_it_says(log: VerdictLog, tmp_path: Path) -> None:
    log.add_rename("ring", "halo", who="jo")
    log.add_labels([(4, replace(JO, boxes=((1, 2, 30, 40),), box_classes=("ring",), at="2026-03-01T00:00:00.000Z"))])
    path, made = as_exported(log, tmp_path, "coco", [2, 4])
    boxes = {a["image_id"]: a for a in made["annotations"]}
    boxes[4]["bbox"] = [5, 5, 30, 40]
    assert imported(log, path, "coco", made) == 1
    assert log.labels(4)[4][-1].box_classes == ("ring",)


@pytest.mark.parametrize("name", FORMATS)
def test_that_a_label_was_taken_back_goes_to_another_station(log: VerdictLog, tmp_path: Path, name: str) -> None:
    form, path, other = format_named(name), tmp_path / "exported", new_log(tmp_path / "two")
    form.write(labeled_frames(log, log.labels()), path)
    import_labels(other, form.read(path), who="max", source=name)
    log.retract_label(3, who="ann")
    form.write(labeled_frames(log, log.labels(taken_back=True)), path)
    done = import_labels(other, form.read(path), who="max", source=name)
    assert (done.added, done.known, done.taken_back) == (0, 5, 1)
    assert 2 not in other.labels()
    [kept] = other.labels(taken_back=True)[2]
    assert kept.retracted == log.labels(taken_back=True)[2][0].retracted


@pytest.mark.parametrize("name", FORMATS)
def test_a_renamed_class_goes_round_without_becoming_two(log: VerdictLog, tmp_path: Path, name: str) -> None:
    log.add_rename("ring", "halo", who="jo")
    path = tmp_path / "exported"
    format_named(name).write(labeled_frames(log, log.labels()), path)
    assert import_labels(log, format_named(name).read(path), who="max", source=name).added == 0


def test_a_file_without_times_is_stored_once(log: VerdictLog, tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_text("file,class,level,note\nP/L/b.tif,Spot,5,so\nP/L/b.tif,Spot,7,so\n")
    told = [import_labels(log, format_named("csv").read(path), who="max", source="csv", at=at) for at in WRITTEN]
    assert [(one.added, one.known) for one in told] == [(2, 0), (0, 2)]
    assert imported(log, tmp_path / "coco.json", "coco", coco()) == 1
    assert imported(log, tmp_path / "coco.json", "coco", coco()) == 0


def test_who_corrects_a_file_without_times_and_then_the_correction_is_heard(log: VerdictLog, tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    for hour, name in enumerate(("Spot", "OK", "Spot")):
        path.write_text(f"file,class\nP/L/b.tif,{name}\n")
        at = f"2026-05-01T0{hour}:00:00.000Z"
        assert import_labels(log, format_named("csv").read(path), who="max", source="csv", at=at).added == 1
    assert log.labels(2)[2][-1].class_name == "Spot"
    log.add_labels([(2, replace(JO, who="max", class_name="Error", boxes=(), box_classes=()))], said_now=True)
    again = import_labels(log, format_named("csv").read(path), who="max", source="csv", at=at)
    assert (again.added, again.known) == (0, 1)  # the file is older than what was said since
    holds = standing(log.labels(2)[2]).label
    assert holds is not None
    assert holds.class_name == "Error"


def test_rows_of_two_people_are_two_labels(log: VerdictLog, tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_text(
        "file,class,who,at\na.tif,Spot,jo,2026-02-02T00:00:00.000Z\na.tif,OK,ann,2026-02-03T00:00:00.000Z\n"
    )
    assert import_labels(log, format_named("csv").read(path), who="max", source="csv").added == 2
    path.write_text("file,class,origin\na.tif,Spot,proposal\n")
    with pytest.raises(LabelError, match="origin proposal without who and at"):
        import_labels(log, format_named("csv").read(path), who="max", source="csv")


@pytest.mark.parametrize(("row", "expected"), [("Spot,7", ("Spot", 7.0)), (",7", (None, 7.0)), ("OK,", ("OK", None))])
def test_a_short_row_beside_an_export_is_a_label_of_its_own(
    log: VerdictLog, tmp_path: Path, row: str, expected: tuple[str | None, float | None]
) -> None:
    form, path = format_named("csv"), tmp_path / "labels.csv"
    form.write(labeled_frames(log, [1]), path)
    head = path.read_text().splitlines()[0].split(",")
    given = dict(zip(("label_class", "level"), row.split(","), strict=True))
    fields = {"file": "P/L/a.tif", "class": given["label_class"], "level": given["level"]}
    with path.open("a") as file:
        file.write(",".join(fields.get(name, "") for name in head) + "\n")
    assert import_labels(log, form.read(path), who="max", source="csv").added == 1
    added = log.labels(1)[1][-1]
    assert (added.who, added.class_name, added.level, added.boxes, added.empty) == ("max", *expected, (), False)
    assert any(label.boxes == JO.boxes for label in log.labels(1)[1])


def coco(**changed: Any) -> dict[str, Any]:
    return {
        "images": [{"id": 7, "file_name": "a.tif"}],
        "categories": [{"id": 1, "name": "ring"}],
        "annotations": [{"id": 1, "image_id": 7, "category_id": 1, "bbox": [1.4, 2.2, 10, 20]}],
    } | changed


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


@pytest.mark.parametrize("name", ["coco", "label_studio"])
def test_a_file_that_goes_deep_is_refused(log: VerdictLog, tmp_path: Path, name: str) -> None:
    path = tmp_path / "deep.json"
    path.write_text("[" * 100_000)
    with pytest.raises(LabelError, match=r"deep\.json: no"):
        import_labels(log, format_named(name).read(path), who="max", source="deep.json")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("P/L/a.tif,,,maybe,,", "settles 'maybe', wanted 1 or 0"),
        ("P/L/a.tif,jo,2026-01-01,,ann,", "one of retracted_by and retracted_at without the other"),
        ("P/L/a.tif,,,,ann,2026-01-01", "taken back, without who and at"),
    ],
)
def test_a_row_that_cannot_be_read_is_named(log: VerdictLog, tmp_path: Path, row: str, message: str) -> None:
    path = tmp_path / "labels.csv"
    path.write_text(f"file,who,at,settles,retracted_by,retracted_at,class\n{row},OK\n")
    with pytest.raises(LabelError, match=message):
        import_labels(log, format_named("csv").read(path), who="max", source="csv")


@pytest.mark.parametrize(
    ("text", "settles"), [("true", True), ("TRUE", True), ("1", True), ("0", False), ("False", False), ("", False)]
)
def test_a_truth_is_read_as_spreadsheets_write_it(log: VerdictLog, tmp_path: Path, text: str, settles: bool) -> None:
    path = tmp_path / "labels.csv"
    path.write_text(f"file,class,settles\nP/L/a.tif,Spot,{text}\n")
    import_labels(log, format_named("csv").read(path), who="max", source="csv")
    assert log.labels(1)[1][-1].settles is settles


def test_a_label_finds_its_frame_by_bytes_only_where_these_are_one_frames(tmp_path: Path) -> None:
    log = VerdictLog(tmp_path / "umbra.db")
    for path, sha256 in (("P/L/a.tif", "1" * 64), ("P/M/a2.tif", "1" * 64), ("P/L/torn.tif", UNREAD)):
        log.record(frame(), row_of(path, sha256=sha256))

    def import_one(path: str, sha256: str) -> None:
        import_labels(log, [Incoming(path=path, sha256=sha256, labels=(JO,))], who="max", source="one")

    import_one("P/M/a2.tif", "1" * 64)
    assert list(log.labels()) == [2]
    with pytest.raises(
        LabelError, match=r"b\.tif: 2 frames have these bytes, the newest are P/M/a2\.tif and P/L/a\.tif"
    ):
        import_one("Q/b.tif", "1" * 64)
    with pytest.raises(LabelError, match="no such frame"):
        import_one("Q/other.tif", UNREAD)


@pytest.mark.parametrize("name", FORMATS)
def test_an_empty_file_is_named(log: VerdictLog, tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").write_text("")
    with pytest.raises(LabelError, match="empty"):
        import_labels(log, format_named(name).read(tmp_path / "empty"), who="max", source="empty")


def test_many_problems_are_told_together_and_nothing_is_imported(log: VerdictLog, tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_text("file,class,level\n" + "".join(f"none{i}.tif,Spot,5\n" for i in range(7)) + "a.tif,Spot,5\n")
    with pytest.raises(LabelError, match=r"nothing was imported: none0\.tif: no such frame.*none4\.tif.*; and 2 more"):
        import_labels(log, format_named("csv").read(path), who="max", source="labels.csv")
    assert len(log.labels(1)[1]) == 2


def test_a_short_csv_is_enough(log: VerdictLog, tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_text(
        "file,class,level,box_class,x0,y0,x1,y1\nP/L/b.tif,Spot,5,ring,1,2,3,4\nP/L/b.tif,Spot,5,,5,6,7,8\na.tif,OK,,,,,,\n"
    )
    assert import_labels(log, format_named("csv").read(path), who="max", source="csv").added == 2
    *_, newest = log.labels(2)[2]
    assert (newest.boxes, newest.box_classes) == (((1, 2, 3, 4), (5, 6, 7, 8)), ("ring", None))
    for text, message in (
        ("name\na\n", "columns name, wanted at least file"),
        ("file,colour\na,red\n", "column colour"),
        ("file,x0,y0,x1,y1\na.tif,1,2,,4\n", "box 1, 2, , 4, wanted x0, y0, x1, y1"),
    ):
        path.write_text(text)
        with pytest.raises(LabelError, match=message):
            import_labels(log, format_named("csv").read(path), who="max", source="csv")


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
