"""Labels to COCO, Label Studio and CSV and back: nothing is lost, nothing is stored twice, what is wrong is named."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from appliance.exchange import Incoming, LabeledFrame, format_named, labeled_frames
from appliance.exchange.taking import import_labels
from appliance.labels import Label, LabelError
from appliance.reading import UNREAD
from appliance.verdict_log import VerdictLog
from tests.appliance.exchanged import FORMATS, SAID, labeled_log, new_log
from tests.appliance.test_decide import frame
from tests.appliance.test_labels import JO
from tests.appliance.test_verdict_log import row_of


@pytest.fixture
def log(tmp_path: Path) -> VerdictLog:
    return labeled_log(tmp_path / "one")


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


@pytest.mark.parametrize("name", ["coco", "label_studio"])
def test_a_file_that_goes_deep_is_refused(log: VerdictLog, tmp_path: Path, name: str) -> None:
    path = tmp_path / "deep.json"
    path.write_text("[" * 100_000)
    with pytest.raises(LabelError, match=r"deep\.json: no"):
        import_labels(log, format_named(name).read(path), who="max", source="deep.json")


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
