"""`umbra labels` as a user types it: add, list, rename, export and import between two stations."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from appliance.formats import write_frame
from tests.appliance.test_cli import umbra
from tests.conftest import dark


@pytest.fixture(scope="module")
def stations(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two stations that judged the same three frames."""
    root = tmp_path_factory.mktemp("labels")
    for seed in range(3):
        write_frame(root / "frames" / "P" / "L", f"d{seed}", dark(seed=seed), bits=8, format_name="png")
    for name in ("one", "two"):
        umbra("screen", root / "frames", "--station", root / name)
    return root / "one", root / "two"


def listed(station: Path, *options: str) -> list[dict[str, object]]:
    found: list[dict[str, object]] = json.loads(
        umbra("labels", "list", "--json", "--station", station, *options).stdout
    )
    return found


def test_labels_go_from_station_to_station(stations: tuple[Path, Path], tmp_path: Path) -> None:
    one, two = stations
    add = ("labels", "add", "--station", one)
    umbra(
        *add,
        "d0.png",
        "--class",
        "Spot",
        "--level",
        "6",
        "--box",
        "10,20,50,60:ring",
        "--box",
        "1,2,3,4",
        "--who",
        "jo",
    )
    umbra(*add, "d1.png", "--class", "OK", "--who", "jo")
    umbra(*add, "d1.png", "--class", "Diagonal", "--who", "ann", "--note", "look again")
    assert [(f["frame"], f["disputed"]) for f in listed(one)] == [("P/L/d0.png", False), ("P/L/d1.png", True)]
    assert [f["frame"] for f in listed(one, "--disputed")] == ["P/L/d1.png"]
    assert (
        "ring is called halo: 1 boxes"
        in umbra("labels", "rename", "ring", "halo", "--station", one, "--who", "jo").stdout
    )
    for form in ("coco", "label_studio", "csv"):
        umbra("labels", "export", tmp_path / form, "--format", form, "--station", one)
        done = umbra("labels", "import", tmp_path / form, "--format", form, "--station", two)
        assert done.stdout.startswith(
            "3 labels added, 0 known already" if form == "coco" else "0 labels added, 3 known"
        )
    assert [f["labels"] for f in listed(two)] == [f["labels"] for f in listed(one)]
    task = json.loads((tmp_path / "label_studio").read_text())[0]
    assert task["data"]["image"].startswith("data:image/png;base64,")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("add", "nosuch.png", "--class", "Spot"), "nosuch.png: no such frame in the log"),
        (("add", "d2.png", "--class", "ring"), "class 'ring', wanted one of"),
        (("add", "d2.png", "--box", "0,0,900,9"), "outside the frame of 360x300 pixels"),
        (("rename", "nosuch", "halo"), "no box is called 'nosuch'"),
    ],
)
def test_what_cannot_be_is_said(stations: tuple[Path, Path], arguments: tuple[str, ...], message: str) -> None:
    assert message in " ".join(umbra("labels", *arguments, "--station", stations[0], expect=1).stderr.split())


def test_a_box_that_is_none_is_a_usage_error(stations: tuple[Path, Path]) -> None:
    assert "wanted" in umbra("labels", "add", "d2.png", "--box", "1,2,3", "--station", stations[0], expect=2).stderr
