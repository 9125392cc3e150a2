"""A log with labels, and files of labels that go out and come back, as tests of the exchange share them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from appliance.exchange import format_named, labeled_frames
from appliance.exchange.taking import import_labels
from appliance.labels import Origin
from appliance.verdict_log import VerdictLog
from tests.appliance.test_decide import frame
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


def labeled_log(folder: Path) -> VerdictLog:
    """A log as new_log with the labels of SAID."""
    made = new_log(folder)
    made.add_labels([(frame_id, label) for frame_id, labels in SAID.items() for label in labels])
    return made


def as_exported(log: VerdictLog, tmp_path: Path, name: str, frames: list[int]) -> tuple[Path, Any]:
    path = tmp_path / "exported"
    format_named(name).write(labeled_frames(log, frames), path)
    return path, json.loads(path.read_text())


def imported(log: VerdictLog, path: Path, name: str, made: Any) -> int:
    path.write_text(json.dumps(made))
    return import_labels(log, format_named(name).read(path), who="max", source=name).added


def coco(**changed: Any) -> dict[str, Any]:
    """A file of another program."""
    return {
        "images": [{"id": 7, "file_name": "a.tif"}],
        "categories": [{"id": 1, "name": "ring"}],
        "annotations": [{"id": 1, "image_id": 7, "category_id": 1, "bbox": [1.4, 2.2, 10, 20]}],
    } | changed
