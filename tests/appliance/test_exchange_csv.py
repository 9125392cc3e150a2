"""Labels as CSV: short files, rows of several people, what is wrong is named."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from appliance.exchange import format_named, labeled_frames
from appliance.exchange.taking import import_labels
from appliance.labels import LabelError, standing
from appliance.verdict_log import VerdictLog
from tests.appliance.exchanged import WRITTEN, coco, imported, labeled_log
from tests.appliance.test_labels import JO


@pytest.fixture
def log(tmp_path: Path) -> VerdictLog:
    return labeled_log(tmp_path / "one")


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
