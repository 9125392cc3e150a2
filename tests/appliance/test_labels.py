"""Labels are appended, never changed; which one holds; who disagrees; what cannot be true is refused."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from appliance.labels import Label, LabelError, Origin, checked, fields_of, iou, label_of, renaming, standing
from appliance.migrations import MIGRATIONS
from appliance.verdict_log import VerdictLog
from tests.appliance.test_decide import frame
from tests.appliance.test_verdict_log import row_of

SIZE = (400, 300)
JO = Label(who="jo", at="2026-01-01T00:00:00.000Z", class_name="Spot", level=6.0, boxes=((10, 20, 50, 60),),
           box_classes=("ring",))  # fmt: skip
ANN = replace(JO, who="ann", at="2026-01-02T00:00:00.000Z")


@pytest.fixture
def log(tmp_path: Path) -> VerdictLog:
    opened = VerdictLog(tmp_path / "umbra.db")
    opened.record(frame(), row_of())
    return opened


def test_a_label_comes_back_as_it_was_said(log: VerdictLog) -> None:
    said = replace(JO, note="seen twice", settles=True, boxes=((0, 0, 5, 5), (1, 1, 9, 9)), box_classes=(None, "halo"))
    assert [stored.id for stored in log.add_labels([(1, said)])] == [1]
    assert log.labels() == {1: [replace(said, id=1)]}
    assert label_of(fields_of(replace(said, id=1))) == replace(said, id=1)


def test_the_very_same_label_is_stored_once(log: VerdictLog) -> None:
    stored = log.add_labels([(1, JO), (1, ANN), (1, JO)])
    assert [(one.id, one.new) for one in stored] == [(1, True), (2, True), (1, False)]


def test_the_newest_of_a_person_holds_whenever_it_was_stored(log: VerdictLog) -> None:
    early = replace(JO, at="2025-12-31T23:00:00-05:00", class_name="Diagonal")  # four hours later, in UTC
    log.add_labels([(1, early), (1, JO), (1, replace(JO, at="2025-06-01", class_name="Error"))])
    assert [label.class_name for label in log.labels(1)[1]] == ["Error", "Spot", "Diagonal"]
    holds = standing(log.labels(1)[1]).label
    assert holds is not None
    assert holds.class_name == "Diagonal"


def test_what_is_said_now_holds_though_the_clock_was_set_back(log: VerdictLog) -> None:
    log.add_labels([(1, replace(JO, at="2031-01-01T00:00:00.000Z"))])
    log.add_labels([(1, replace(JO, class_name="OK", boxes=(), box_classes=()))], said_now=True)
    holds = standing(log.labels(1)[1]).label
    assert holds is not None
    assert (holds.class_name, holds.at) == ("OK", "2031-01-01T00:00:00.000Z")


def test_a_label_that_was_taken_back_stays_and_says_nothing(log: VerdictLog) -> None:
    log.add_labels([(1, JO)])
    for nobody in ("", " ann", "ann\n"):
        with pytest.raises(LabelError, match="characters that can be seen"):
            log.retract_label(1, who=nobody)
    assert log.retract_label(1, who="ann")
    assert not log.retract_label(1, who="ann")
    assert log.labels() == {}
    [kept] = log.labels(taken_back=True)[1]
    assert kept.retracted is not None
    assert kept.retracted.who == "ann"
    assert standing([kept]).label is None
    [again] = log.add_labels([(1, JO)])
    assert (again.id, again.new) == (1, False)
    assert log.labels() == {}
    [meant] = log.add_labels([(1, JO)], said_now=True)  # once more, in the same millisecond
    assert (meant.id, meant.new) == (2, True)
    assert standing(log.labels(1)[1]).label is not None


def test_a_correction_holds_and_what_was_said_before_stays(log: VerdictLog) -> None:
    later = replace(JO, at="2026-01-03T00:00:00.000Z", class_name="OK", boxes=(), box_classes=())
    log.add_labels([(1, JO), (1, later)])
    assert [label.class_name for label in log.labels(1)[1]] == ["Spot", "OK"]
    assert standing(log.labels(1)[1]).label == replace(later, id=2)
    for sql in ("UPDATE labels SET class = 'OK'", "DELETE FROM labels"):
        with pytest.raises(sqlite3.IntegrityError, match="append-only"):
            log.database.conn.execute(sql)


@pytest.mark.parametrize(
    ("other", "differ"),
    [
        (ANN, False),
        (replace(ANN, class_name="Diagonal"), True),
        (replace(ANN, class_name=None), False),
        (replace(ANN, level=7.0), False),
        (replace(ANN, level=7.5), True),
        (replace(ANN, boxes=((12, 22, 52, 62),)), False),
        (replace(ANN, boxes=((40, 50, 80, 90),)), True),
        (replace(ANN, box_classes=("halo",)), True),
        (replace(ANN, boxes=(*JO.boxes, (100, 100, 120, 120)), box_classes=("ring", "ring")), True),
        (replace(ANN, boxes=(), box_classes=()), False),  # a class alone says nothing of where
        (replace(ANN, class_name="OK", level=0.0, boxes=(), box_classes=()), True),
    ],
)
def test_two_people_dispute_where_both_cannot_be_right(other: Label, differ: bool) -> None:
    assert standing([JO, other]).disputed is differ
    assert standing([other, JO]).disputed is differ


def test_a_dispute_ends_by_agreement_or_by_a_label_that_settles_it() -> None:
    wrong = replace(ANN, class_name="Diagonal")
    assert standing([JO, wrong]).disputed
    assert not standing([JO, wrong, replace(ANN, at="2026-01-04")]).disputed
    third = replace(JO, who="max", class_name="Error")
    assert standing([JO, wrong, third]).disputed
    assert not standing([JO, wrong, replace(third, settles=True)]).disputed
    assert standing([JO, wrong, replace(third, settles=True), JO]).disputed


def test_every_two_people_count_in_a_dispute() -> None:
    max_ = Label(who="max", at="2026-01-03", level=6.0, boxes=JO.boxes, box_classes=JO.box_classes)
    wrong = replace(ANN, class_name="Diagonal")
    assert standing([JO, wrong, max_]).disputed  # max says nothing of the class
    assert standing([JO, wrong, replace(max_, who="jo")]).disputed  # and jo has said it before
    levels = [replace(JO, who=who, level=level) for who, level in (("jo", 4.0), ("ann", 6.0), ("max", 5.0))]
    assert standing(levels).disputed
    assert not standing([*levels[:1], replace(levels[1], level=5.0), levels[2]]).disputed


def test_only_a_label_that_says_so_means_that_there_is_nothing() -> None:
    level_only = Label(who="jo", at="2026-01-03", level=8.0)
    holds = standing([JO, level_only]).label
    assert holds is not None
    assert (holds.boxes, holds.level, level_only.says_where) == (JO.boxes, 8.0, False)
    nothing = standing([JO, Label(who="jo", at="2026-01-04", empty=True)]).label
    assert nothing is not None
    assert (nothing.boxes, nothing.empty, nothing.class_name) == ((), True, "Spot")
    assert standing([JO, Label(who="ann", at="2026-01-04", empty=True)]).disputed


def test_what_a_label_leaves_open_is_as_it_was_said_before() -> None:
    class_only = Label(who="jo", at="2026-01-03", class_name="Diagonal")
    boxes_only = Label(who="jo", at="2026-01-04", boxes=((0, 0, 9, 9),), box_classes=("halo",))
    holds = standing([JO, class_only, boxes_only]).label
    assert holds is not None
    assert (holds.class_name, holds.level, holds.boxes, holds.at) == ("Diagonal", 6.0, ((0, 0, 9, 9),), "2026-01-04")
    cleared = standing([JO, Label(who="jo", at="2026-01-05", class_name="OK")]).label
    assert cleared is not None
    assert cleared.boxes == ()


def test_a_proposal_never_holds() -> None:
    proposal = replace(JO, who="starter@1", origin=Origin.PROPOSAL)
    alone = standing([proposal])
    assert (alone.label, alone.proposal, alone.disputed) == (None, proposal, False)
    both = standing([replace(ANN, class_name="OK", boxes=(), box_classes=()), proposal])
    assert (both.label and both.label.who, both.disputed) == ("ann", False)


@pytest.mark.parametrize(
    ("label", "message"),
    [
        (replace(JO, class_name="ring"), r"class 'ring', wanted one of OK, Spot, Diagonal, Error; other names belong to boxes"),
        (replace(JO, at="yesterday"), r"time .yesterday., wanted as ISO 8601"),
        (replace(JO, level=11), r"level 11, wanted 0\.\.10"),
        (replace(JO, level=float("nan")), "level nan"),
        (replace(JO, boxes=((10, 20, 500, 60),)), r"box \[10, 20, 500, 60\] lies outside the frame of 400x300 pixels"),
        (replace(JO, boxes=((-2, 0, 10, 10),)), r"box \[-2, 0, 10, 10\] lies outside"),
        (replace(JO, boxes=((10, 20, 10, 60),)), r"box \[10, 20, 10, 60\] has no area"),
        (replace(JO, box_classes=(" ring",)), r"name ' ring'"),
        (replace(JO, box_classes=()), "1 boxes and 0 classes"),
        (replace(JO, who=""), "name ''"),
        (replace(JO, box_classes=("\ud800x",)), "surrogates not allowed"),
        (replace(JO, who="jo\x00"), r"name 'jo\\x00', wanted 1 to 200 characters that can be seen"),
        (replace(JO, note="\udcff"), "note .* surrogates not allowed"),
        (replace(JO, empty=True), "1 boxes, and that there is nothing"),
        (Label(who="jo", at="2026-01-01"), "says nothing"),
    ],
)  # fmt: skip
def test_what_cannot_be_true_is_refused(label: Label, message: str) -> None:
    with pytest.raises(LabelError, match=message):
        checked(label, SIZE)


@pytest.mark.parametrize(
    "fields",
    [
        {"boxes": [[float("inf"), 0, 1, 1]]},
        {"level": 10**400},
        {"note": {}},
        {"class": 7},
        {"retracted": {"who": "jo"}},
    ],
)
def test_a_field_that_is_not_what_it_should_be_is_named(fields: dict[str, object]) -> None:
    with pytest.raises(LabelError, match=r"label \{"):
        label_of({"who": "jo", "at": "2026-01-01", **fields})


def test_a_box_a_pixel_too_large_is_cut() -> None:
    assert checked(replace(JO, boxes=((-1, 0, 401, 300),)), SIZE).boxes == ((0, 0, 400, 300),)


def test_boxes_on_a_file_that_could_not_be_read_are_refused() -> None:
    with pytest.raises(LabelError, match="could not be read"):
        checked(JO, None)
    assert checked(replace(JO, boxes=(), box_classes=()), None).class_name == "Spot"


def test_a_class_renamed_half_way_has_its_new_name_everywhere_and_its_old_one_in_the_log(log: VerdictLog) -> None:
    log.add_labels([(1, JO)])
    assert renaming("ring", "halo", log.labels()) == (1, 0)
    log.add_rename("ring", "halo", who="jo")
    assert [label.box_classes for label in log.labels(1)[1]] == [("halo",)]
    stored = log.database.conn.execute("SELECT box_classes FROM labels").fetchall()
    assert [row[0] for row in stored] == ['["ring"]']
    log.add_labels([(1, ANN)])  # ring means what it says again
    assert [label.box_classes for label in log.labels(1)[1]] == [("halo",), ("ring",)]
    log.add_rename("halo", "ring", who="ann")  # back again
    assert [label.box_classes for label in log.labels(1)[1]] == [("ring",), ("ring",)]
    log.add_labels([(1, replace(JO, at="2026-01-09", box_classes=("halo",)))])
    assert log.labels(1)[1][-1].box_classes == ("halo",)


@pytest.mark.parametrize(("old", "new"), [("ring", "ring"), ("ring", ""), ("ring", "object"), ("spot", "halo")])
def test_a_renaming_that_makes_no_sense_is_refused(old: str, new: str) -> None:
    with pytest.raises(LabelError, match=r"name|called"):
        renaming(old, new, {1: [JO]})


def test_labels_of_an_earlier_schema_are_kept(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "umbra.db") as old:
        old.executescript(f"{MIGRATIONS[0]}; PRAGMA user_version = 1")
        old.execute(
            "INSERT INTO frames (path, sha256, name, product, lot, file_bytes, first_seen_at) VALUES ('a','b','a','p','l',1,'t')"
        )
        old.execute(
            "INSERT INTO labels (frame_id, class, boxes, who, at) VALUES (1, 'Spot', '[[1, 2, 3, 4]]', 'jo', 't')"
        )
    [label] = VerdictLog(tmp_path / "umbra.db").labels(1)[1]
    assert (label.class_name, label.boxes, label.box_classes, label.origin) == (
        "Spot",
        ((1, 2, 3, 4),),
        (None,),
        "person",
    )


def test_processes_that_open_a_new_station_at_once_make_its_log_once(tmp_path: Path) -> None:
    script = f"""
import sys
from pathlib import Path
from appliance.verdict_log import VerdictLog
print("ready", flush=True)
sys.stdin.read()
VerdictLog(Path({str(tmp_path / "umbra.db")!r}))
"""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    waiting = [subprocess.Popen([sys.executable, "-c", script], text=True, **pipes) for _ in range(4)]  # type: ignore[call-overload]
    for process in waiting:
        assert process.stdout.readline() == "ready\n"
    for process in waiting:
        process.stdin.close()
    assert [process.stderr.read() for process in waiting] == [""] * 4
    for process in waiting:
        process.wait()
        process.stdout.close()
        process.stderr.close()


def test_iou_of_boxes() -> None:
    assert iou((0, 0, 10, 10), (5, 0, 15, 10)) == pytest.approx(1 / 3)
    assert iou((0, 0, 10, 10), (10, 0, 20, 10)) == 0
