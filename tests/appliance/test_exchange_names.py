"""Classes renamed while files are out, and what a file tells another station of it."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from appliance.exchange import format_named, labeled_frames
from appliance.exchange.taking import import_labels
from appliance.labels import Label, LabelError, standing
from appliance.verdict_log import VerdictLog
from tests.appliance.exchanged import FORMATS, as_exported, imported, labeled_log, new_log
from tests.appliance.test_labels import JO


@pytest.fixture
def log(tmp_path: Path) -> VerdictLog:
    return labeled_log(tmp_path / "one")


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
def test_a_renamed_class_goes_round_without_becoming_two(log: VerdictLog, tmp_path: Path, name: str) -> None:
    log.add_rename("ring", "halo", who="jo")
    path = tmp_path / "exported"
    format_named(name).write(labeled_frames(log, log.labels()), path)
    assert import_labels(log, format_named(name).read(path), who="max", source=name).added == 0


def everything(log: VerdictLog) -> dict[int, list[Label]]:
    labels = log.labels(taken_back=True).items()
    return {frame_id: [replace(label, id=None) for label in of_frame] for frame_id, of_frame in labels}


def to(other: VerdictLog, log: VerdictLog, path: Path, name: str) -> tuple[int, int]:
    """What is added, and what was known, of all that one log says to another."""
    format_named(name).write(labeled_frames(log, log.labels(taken_back=True)), path)
    done = import_labels(other, format_named(name).read(path), who="max", source=name)
    return done.added, done.known


@pytest.mark.parametrize("name", FORMATS)
def test_what_classes_were_called_and_who_renamed_them_when_goes_to_another_station(
    log: VerdictLog, tmp_path: Path, name: str
) -> None:
    log.add_rename("ring", "halo", who="jo")
    log.add_labels([(4, replace(JO, at="2026-03-01T00:00:00.000Z"))])  # ring again, and meant
    log.add_rename("halo", "corona", who="ann")
    earlier = log.labels(2)[2][0].earlier
    assert earlier is not None
    assert (earlier.box_classes, log.labels(2)[2][0].box_classes) == (
        (None, "ring", "ring"),
        (None, "corona", "corona"),
    )
    assert [one[:3] for one in earlier.renamed] == [("ring", "halo", "jo"), ("halo", "corona", "ann")]
    other = new_log(tmp_path / "two")
    assert to(other, log, tmp_path / "exported", name) == (6, 0)
    assert everything(other) == everything(log)
    assert to(other, log, tmp_path / "exported", name) == (0, 6)
    assert to(log, other, tmp_path / "exported", name) == (0, 6)
    assert everything(other) == everything(log)


@pytest.mark.parametrize("name", FORMATS)
def test_a_renaming_follows_labels_that_went_before_it_and_leaves_others_alone(
    log: VerdictLog, tmp_path: Path, name: str
) -> None:
    other, before = new_log(tmp_path / "two"), tmp_path / "before"
    format_named(name).write(labeled_frames(log, log.labels()), before)
    import_labels(other, format_named(name).read(before), who="max", source=name)
    own = replace(JO, who="eva", at="2026-03-01T00:00:00.000Z")
    other.add_labels([(4, own)])
    log.add_rename("ring", "halo", who="jo")
    assert to(other, log, tmp_path / "after", name) == (0, 5)
    assert everything(other) == everything(log) | {4: [own]}
    assert import_labels(other, format_named(name).read(before), who="max", source=name).added == 0
    assert everything(other) == everything(log) | {4: [own]}
    third = new_log(tmp_path / "three")  # the other way about
    assert to(third, log, tmp_path / "after", name) == (5, 0)
    assert import_labels(third, format_named(name).read(before), who="max", source=name).added == 0
    assert everything(third) == everything(log)


@pytest.mark.parametrize("name", FORMATS)
def test_where_two_stations_rename_otherwise_each_keeps_its_name_and_one_that_goes_on_is_followed(
    log: VerdictLog, tmp_path: Path, name: str
) -> None:
    other, path = new_log(tmp_path / "two"), tmp_path / "exported"
    to(other, log, path, name)
    log.add_rename("ring", "halo", who="jo")
    other.add_rename("ring", "circle", who="eva")
    for one, another in ((other, log), (log, other), (other, log)):
        assert to(one, another, path, name) == (0, 5)
    assert (log.labels(2)[2][0].box_classes, other.labels(2)[2][0].box_classes) == (
        (None, "halo", "halo"), (None, "circle", "circle"),
    )  # fmt: skip
    other.add_rename("circle", "ring", who="eva")  # given up there
    assert to(other, log, path, name) == (0, 5)
    assert other.labels(2)[2][0].box_classes == (None, "halo", "halo")
    other.add_rename("halo", "corona", who="eva")  # after what came
    other.add_rename("ring", "never", who="eva")  # which nothing is called any more
    assert other.labels(2)[2][0].box_classes == (None, "corona", "corona")
    assert to(log, other, path, name) == (0, 5)
    assert log.labels(2)[2][0].box_classes == (None, "corona", "corona")


@pytest.mark.parametrize("name", ["coco", "label_studio"])
def test_what_is_changed_in_a_file_with_a_renaming_has_the_name_that_the_renaming_gives(
    log: VerdictLog, tmp_path: Path, name: str
) -> None:
    other = new_log(tmp_path / "two")
    to(other, log, tmp_path / "before", name)
    log.add_rename("ring", "halo", who="jo")
    path, made = as_exported(log, tmp_path, name, [2])
    if name == "coco":
        made["annotations"][1]["bbox"] = [10, 20, 30, 40]
    else:
        [annotation] = made[0]["annotations"]
        next(r for r in annotation["result"] if r["value"].get("rectanglelabels") == ["halo"])["value"]["width"] *= 2
    assert imported(other, path, name, made) == 1
    assert [label.box_classes for label in other.labels(2)[2]] == [(None, "halo", "halo")] * 2


def test_a_class_that_was_changed_by_hand_beside_its_earlier_names_is_refused(log: VerdictLog, tmp_path: Path) -> None:
    log.add_rename("ring", "halo", who="jo")
    path = tmp_path / "labels.csv"
    format_named("csv").write(labeled_frames(log, [2]), path)
    written = path.read_text()
    for text, message in (
        (
            written.replace("halo,7", "arc,7", 1),
            "boxes called object, arc, halo, which by their earlier names and renamings are",
        ),
        (written.replace('""ring""', "ring"), "Expecting value"),
        (written.replace('""jo""', "null"), r"renamed \['ring', 'halo', None, .*\], wanted text"),
        (re.sub(r'"\[\[.*\]\]"', "[" * 100_000, written), "recursion|Recursion|nested"),
        (
            re.sub(r',ring,"\[\[.*\]\]"', ",,", written.replace("halo,7", "arc,7", 1), count=1),
            "boxes of one label with different renamed: .* must be emptied in all rows of its label",
        ),
        (re.sub(r'"\[\[.*\]\]"', "", written), "earlier_box_class without renamed"),
        (
            re.sub(r'"\[\[.*\]\]"', '"[[1]]"', written),
            r"renamed \[\[1\]\], wanted a JSON list of \[old, new, who, at\]",
        ),
        (written.replace("2026-", "when-"), "time"),
    ):
        path.write_text(text)
        with pytest.raises(LabelError, match=message):
            import_labels(log, format_named("csv").read(path), who="max", source="csv")


def test_a_file_read_twice_says_the_same_twice_whatever_it_renames_forth_and_back(
    log: VerdictLog, tmp_path: Path
) -> None:
    other, path = new_log(tmp_path / "two"), tmp_path / "exported"
    to(other, log, path, "csv")
    other.add_rename("ring", "halo", who="eva")
    log.add_rename("ring", "halo", who="jo")
    log.add_rename("halo", "ring", who="jo")
    for _ in range(2):
        assert to(other, log, path, "csv") == (0, 5)
        assert other.labels(2)[2][0].box_classes == (None, "ring", "ring")


def test_a_name_that_became_two_elsewhere_is_not_taken_for_one_of_them(log: VerdictLog, tmp_path: Path) -> None:
    said = replace(
        JO, boxes=((0, 0, 9, 9), (20, 20, 30, 30)), box_classes=("dot", "edge"), at="2026-03-01T00:00:00.000Z"
    )
    log.add_labels([(4, said)])
    other = new_log(tmp_path / "two")
    to(other, log, tmp_path / "before", "coco")
    log.add_rename("edge", "dot", who="jo")
    other.add_rename("edge", "rim", who="eva")
    path, made = as_exported(log, tmp_path, "coco", [4])
    made["annotations"][0]["bbox"] = [1, 1, 9, 9]
    assert imported(other, path, "coco", made) == 1
    assert other.labels(4)[4][-1].box_classes == ("dot", "dot")  # as the file says


def test_boxes_without_a_class_beside_a_renamed_one_stay_without(log: VerdictLog, tmp_path: Path) -> None:
    log.add_rename("ring", "halo", who="jo")
    path, other = tmp_path / "labels.csv", new_log(tmp_path / "two")
    format_named("csv").write(labeled_frames(log, [2]), path)
    written = path.read_text().replace(",,0,0,360,300,", ",object,0,0,360,300,")
    assert "object" in written
    for _ in range(2):
        path.write_text(written)
        import_labels(other, format_named("csv").read(path), who="max", source="csv")
        assert everything(other) == {2: everything(log)[2]}


def test_nobody_without_a_name_renames_and_who_did_so_before_that_was_asked_goes_along(
    log: VerdictLog, tmp_path: Path
) -> None:
    with pytest.raises(LabelError, match="name ''"):
        log.add_rename("ring", "halo", who="")
    with log.transaction() as db:  # as an earlier version did
        db.execute(
            "INSERT INTO class_names (old, new, last_label, who, at) VALUES ('ring', 'halo', 99, '', '2026-04-01')"
        )
    other = new_log(tmp_path / "two")
    assert to(other, log, tmp_path / "exported", "csv") == (5, 0)
    assert to(log, log, tmp_path / "exported", "csv") == (0, 5)
    assert other.labels(2)[2][0].box_classes == (None, "halo", "halo")


def test_a_renamed_label_taken_back_and_said_again_is_heard(log: VerdictLog) -> None:
    log.add_rename("ring", "halo", who="jo")
    [told] = log.labels(2)[2]
    log.retract_label(told.id or 0, who="jo")
    again = replace(told, id=None, earlier=None)
    assert log.add_labels([(2, again)], said_now=True)[0].new
    assert [label.box_classes for label in log.labels(2)[2]] == [(None, "halo", "halo")]
