"""Proposals: what the shipped bundle says of simulated frames, marked as such, until a person accepts one."""

from __future__ import annotations

import csv
import json
import shutil
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from appliance.labels import Label, Origin, iou, standing
from appliance.put_away import places_of
from appliance.verdict_log import VerdictLog
from engines import find_objects
from tests.appliance.test_cli import umbra


@pytest.fixture(scope="module")
def station(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, dict[str, str]]]:
    """A station that screened simulated frames, and their truth."""
    root = tmp_path_factory.mktemp("propose")
    umbra("simulate", root / "frames", "--sensor", "A,B", "--count", "24", "--seed", "41", "--megapixels", "0.3")
    umbra("screen", root / "frames", "--station", root / "station")
    with (root / "frames" / "truth.csv").open(newline="") as file:
        return root / "station", {row["file"]: row for row in csv.DictReader(file)}


def test_frames_are_proposed_for_and_a_person_decides(station: tuple[Path, dict[str, dict[str, str]]]) -> None:
    root, truth = station
    log = VerdictLog(root / "umbra.db")
    paths = {row["path"]: row["id"] for row in log.frames("1", [])}
    mine = min(paths)
    log.add_labels([(paths[mine], Label(class_name="OK", who="jo", at="2026-01-01"))])
    assert "proposals by starter@" in umbra("labels", "propose", "--station", root, "--least", "0.6").stdout
    made = {path: standing(log.labels().get(frame_id, [])) for path, frame_id in paths.items()}
    assert made[mine].proposal is None
    proposed = {path: holds.proposal for path, holds in made.items() if holds.proposal}
    assert len(proposed) >= 18
    right = [label.class_name == truth[path]["class"] for path, label in proposed.items()]
    assert np.mean(right) >= 0.9
    assert all(label.origin is Origin.PROPOSAL and label.who.startswith("starter@") for label in proposed.values())
    defects = {path: label for path, label in proposed.items() if label.class_name in ("Spot", "Diagonal")}
    assert all(not label.boxes for path, label in proposed.items() if path not in defects)
    boxed = [path for path, label in defects.items() if label.boxes]
    assert len(boxed) >= 0.6 * len(defects)  # of the others the UNet says no more than the classifier
    best = []
    for path in boxed:
        known = [tuple(round(v) for v in box) for box in json.loads(truth[path]["boxes"])]
        best.append(max(iou(box, other) for box in defects[path].boxes for other in known))
    assert np.median(best) > 0.5

    again = umbra("labels", "propose", "--station", root, "--least", "0.6").stdout
    assert again.startswith("0 proposals")
    path = min(proposed)
    umbra("labels", "accept", path, "--station", root, "--who", "ann")
    holds = standing(log.labels()[paths[path]]).label
    assert holds is not None
    assert (holds.who, holds.boxes, holds.origin) == ("ann", proposed[path].boxes, Origin.PERSON)
    assert "labeled by ann already" in umbra("labels", "accept", path, "--station", root, expect=1).stderr
    assert "labeled by jo already" in umbra("labels", "accept", mine, "--station", root, expect=1).stderr


def test_a_frame_whose_picture_was_purged_is_proposed_for_from_its_file(
    station: tuple[Path, dict[str, dict[str, str]]], tmp_path: Path
) -> None:
    frames, root = station[0].parent / "frames", tmp_path / "station"
    two = sorted(path for path in frames.rglob("*.tif"))[:2]
    umbra("screen", *two, "--station", root)
    (root / "images.db").unlink()
    with closing(VerdictLog(root / "umbra.db")) as log:
        first = log.frames("1", [])[0]
        own, _ = places_of(root / "done", first["path"], first["sha256"])
        own.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(next(path for path in two if path.name == first["name"]), own)
        umbra("labels", "propose", "--station", root, "--least", "0.25")
        assert set(log.labels()) == {first["id"]}


def test_objects_lose_the_margin_that_training_gave_them() -> None:
    logits = np.stack([np.full((224, 224), v, np.float32) for v in (-3, -8)])  # background and object, both doubtful
    logits[1, 40:80, 50:100] = 8
    logits[1, 0:30, 200:224] = -1  # e^2 times as likely as background, and that is enough
    logits[1, 100:120, 10:40] = -2  # e times is not
    logits[1, 150:160, 150:160] = 8
    boxes = [region.box for region in find_objects(logits, (1.0, 1.0))]
    assert boxes == [(60, 50, 90, 70), (210, 0, 224, 20), (153, 153, 157, 157)]
