"""Boxes of others, as CSV and as COCO: read whole, named where they are none."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from appliance.boxes import BoxesError, find_boxes, read_boxes
from appliance.dataset import DataSet, DataSetError
from appliance.exchange import LabeledFrame
from appliance.exchange import coco as coco_format
from appliance.formats import write_frame
from appliance.labels import Label, Origin
from appliance.training_sets import images_of
from tests.conftest import dark

HEADERS = ("x0,y0,x1,y1", "x1,y1,x2,y2", "xmin,ymin,xmax,ymax", "x1,y1,x2_exclusive,y2_exclusive")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in range(3):
        write_frame(tmp_path, f"f{number}", dark(seed=number), bits=8, format_name="tiff")
    return tmp_path


def coco(**changed: Any) -> str:
    document = {
        "images": [{"id": n, "file_name": f"f{n}.tif"} for n in range(3)],
        "categories": [{"id": 1, "name": "ring"}],
        "annotations": [{"id": 4, "image_id": 1, "category_id": 1, "bbox": [1, 2, 10.5, 20]}],
    }
    return json.dumps(document | changed)


@pytest.mark.parametrize("header", HEADERS)
def test_boxes_csv_is_read_by_whatever_names_its_corners_have(folder: Path, header: str) -> None:
    (folder / "boxes.csv").write_text(
        f"file,{header},class\nf1.tif,1,2,11.5,22,ring\nf1.tif,5,5,6,6,dot\nf2.tif,,,,,\n"
    )
    rows = {row.file: row for row in DataSet.read(folder).rows}
    assert [*rows["f1.tif"].boxes] == [(1, 2, 11.5, 22), (5, 5, 6, 6)]
    assert {name: row.class_name for name, row in rows.items()} == {"f1.tif": "Spot", "f2.tif": "OK"}
    assert rows["f2.tif"].boxes == ()


def test_coco_is_read_with_images_on_which_there_is_nothing(folder: Path) -> None:
    (folder / "anything.json").write_text(coco())
    (folder / "other.json").write_text('{"no": "coco"}')
    rows = {row.file: row for row in DataSet.read(folder).rows}
    assert [*rows["f1.tif"].boxes] == [(1, 2, 11.5, 22)]
    assert [rows[f"f{n}.tif"].class_name for n in range(3)] == ["OK", "Spot", "OK"]


def test_boxes_join_the_classes_of_labels_csv(folder: Path) -> None:
    (folder / "labels.csv").write_text('file,class,boxes\nf0.tif,OK,\nf1.tif,Diagonal,\nf2.tif,Spot,"[[3,3,9,9]]"\n')
    (folder / "boxes.csv").write_text("file,x0,y0,x1,y1\nf1.tif,1,2,3,4\nf2.tif,5,5,6,6\n")
    rows = {row.file: row for row in DataSet.read(folder).rows}
    assert [rows[f"f{n}.tif"].boxes for n in range(3)] == [(), ((1, 2, 3, 4),), ((3, 3, 9, 9),)]  # the nearer file wins
    assert rows["f1.tif"].class_name == "Diagonal"


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("boxes.csv", "", "columns none, wanted file, x0"),
        ("boxes.csv", "name,x0,y0,x1,y1\n", "columns name, x0"),
        ("boxes.csv", "file,x0,y0,x1,y1\nf0.tif,1,2,3,\n", r"boxes\.csv line 2: box .* could not convert"),
        ("boxes.csv", "file,x0,y0,x1,y1\nf0.tif,3,2,1,4\n", r"line 2: box \[3\.0, 2\.0, 1\.0, 4\.0\] has no area"),
        ("boxes.csv", "file,x0,y0,x1,y1\nf0.tif,1,2,inf,4\n", r"line 2: box \[1\.0, 2\.0, inf, 4\.0\] has no area"),
        (
            "c.json",
            coco(annotations=[{"id": 4, "image_id": 9, "bbox": [1, 2, 3, 4]}]),
            r"c\.json: annotation 4 is of image 9, which is not among the images",
        ),
        ("c.json", coco(images=[{"file_name": "f0.tif"}]), "no COCO file: KeyError"),
        (
            "c.json",
            coco(images=[{"id": 1, "file_name": "f1.tif", "umbra": {"labels": [{"who": "Jo"}]}}]),
            "label .*'at'",
        ),
        (
            "c.json",
            coco(annotations=[{"id": 4, "image_id": 1, "bbox": [1, 2, 0, 4]}]),
            r"annotation 4 of f1\.tif: .* no area",
        ),
    ],
)
def test_boxes_that_are_none_are_named(folder: Path, name: str, text: str, message: str) -> None:
    (folder / name).write_text(text)
    with pytest.raises(BoxesError, match=message):
        DataSet.read(folder)


def test_boxes_that_no_row_claims_are_named(folder: Path) -> None:
    (folder / "labels.csv").write_text("file,class\nf0.tif,OK\n")
    (folder / "boxes.csv").write_text("file,x0,y0,x1,y1\nimages/f0.tif,1,2,3,4\n")
    with pytest.raises(DataSetError, match=r"boxes of images/f0\.tif, which labels\.csv does not name"):
        DataSet.read(folder)
    (folder / "boxes.csv").write_bytes("file,x0,y0,x1,y1\nü.tif,1,2,3,4\n".encode("latin-1"))
    with pytest.raises(BoxesError, match=r"boxes\.csv: .*codec"):
        DataSet.read(folder)


def test_an_empty_list_of_boxes_and_missing_files_are_named(folder: Path) -> None:
    (folder / "boxes.csv").write_text("file,x0,y0,x1,y1\n")
    with pytest.raises(DataSetError, match=r"boxes\.csv: no rows"):
        DataSet.read(folder)
    (folder / "boxes.csv").write_text("file,x0,y0,x1,y1\nf9.tif,1,2,3,4\n")
    with pytest.raises(DataSetError, match=r"1 of 1 files are not there, the first is f9\.tif"):
        DataSet.read(folder)


def test_two_coco_files_are_one_too_many(folder: Path) -> None:
    (folder / "a.json").write_text(coco())
    (folder / "b.json").write_text(coco())
    with pytest.raises(BoxesError, match=r"a\.json and b\.json are both COCO"):
        find_boxes(folder)


def test_an_export_of_labels_teaches_what_people_said(tmp_path: Path) -> None:
    """Where nobody looked for boxes, an image without any says nothing, and not that nothing is on it."""
    drawn = Label(boxes=((1, 2, 11, 22),), box_classes=("ring",), who="Jo", at="2026-01-31T13:05:00Z")
    said = {
        "boxes": [drawn],
        "nothing": [replace(drawn, boxes=(), box_classes=(), empty=True)],
        "ok": [replace(drawn, boxes=(), box_classes=(), class_name="OK")],
        "spot": [replace(drawn, boxes=(), box_classes=(), class_name="Spot")],
        "level": [drawn, replace(drawn, boxes=(), box_classes=(), level=7.0)],
        "proposed": [replace(drawn, origin=Origin.PROPOSAL)],
        "unlabeled": [],
    }
    coco_format.write(
        [
            LabeledFrame(
                frame_id=number,
                path=f"{name}.tif",
                sha256="0" * 64,
                product="P",
                lot="L",
                width=40,
                height=30,
                labels=tuple(labels),
                rois=(),
                bundle="starter@1",
            )
            for number, (name, labels) in enumerate(said.items())
        ],
        tmp_path / "export.json",
    )
    box = ((1, 2, 11, 22),)
    assert read_boxes(tmp_path / "export.json") == {"boxes.tif": box, "nothing.tif": (), "ok.tif": (), "level.tif": box}


def boxed(folder: Path, *corners: float) -> NDArray[np.float32]:
    (folder / "boxes.csv").write_text(f"file,x0,y0,x1,y1\nf1.tif,{','.join(map(str, corners))}\n")
    known = DataSet.read(folder)
    return images_of(known, known.rows).boxes


def test_a_box_a_pixel_out_of_its_frame_is_cut(folder: Path) -> None:
    """Others count the last pixel in, or the first one as 1."""
    assert boxed(folder, -1, 150, 90, 301).tolist() == [[0, 0, 112, 56, 224]]


@pytest.mark.parametrize("corners", [(-20, 2, 10, 20), (1, 2, 10, 302), (4000, 2, 4800, 20), (-50, 2, -20, 20)])
def test_a_box_outside_of_its_frame_is_named(folder: Path, corners: tuple[float, ...]) -> None:
    with pytest.raises(DataSetError, match=r"f1\.tif: box \[.*\] lies outside the frame of 360x300 pixels"):
        boxed(folder, *corners)
