"""The label loop from end to end: what next, label, train, activate, back."""

from __future__ import annotations

import csv
import fcntl
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

from appliance.errors import ApplianceError
from appliance.label_set import label_set, teaches
from appliance.labels import Label, Origin
from appliance.log import BUNDLE_REFUSED
from appliance.loop import TRAINED
from appliance.put_away import places_of
from appliance.retrain import Retraining, retrain
from appliance.station import Station
from appliance.verdict_log import VerdictLog
from engines.classes import CLASSES
from engines.training.data import join
from kernels import StretchParams
from tests.appliance.test_cli import umbra

OK = Label(class_name="OK", level=0.0, who="jo", at="2026-01-01T00:00:00.000Z")
SPOT = replace(OK, class_name="Spot", level=6.0, boxes=((30, 30, 90, 90),), box_classes=("ring",))


@pytest.fixture(scope="module")
def screened(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, str]]]:
    """A station that screened simulated frames, and their truth."""
    root = tmp_path_factory.mktemp("loop")
    umbra("simulate", root / "frames", "--sensor", "A,C", "--count", "30", "--seed", "17", "--megapixels", "0.1")
    umbra("screen", root / "frames", "--station", root / "station")
    with (root / "frames" / "truth.csv").open(newline="") as file:
        return root / "station", list(csv.DictReader(file))


@pytest.fixture
def station(screened: tuple[Path, list[dict[str, str]]], tmp_path: Path) -> Path:
    """A station of its own for a test."""
    return shutil.copytree(screened[0], tmp_path / "station")


def status(station: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(umbra("loop", "status", "--json", "--station", station).stdout)
    return found


def as_labels(rows: list[dict[str, str]], path: Path) -> Path:
    """The truth of frames as a file of labels."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "class", "level", "x0", "y0", "x1", "y1", "box_class", "label"])
        for number, row in enumerate(rows):
            for box in json.loads(row["boxes"]) or [("", "", "", "")]:
                writer.writerow(
                    [row["file"], row["class"], row["level"], *box, row["kind"] if box[0] != "" else "", number]
                )
    return path


def test_the_loop_goes_round(screened: tuple[Path, list[dict[str, str]]], station: Path, tmp_path: Path) -> None:
    truth = screened[1]
    begun = status(station)
    assert (begun["next"], begun["measured"] > 20, begun["labeled"], begun["imbalance"]) == ("label", True, 0, 1.0)
    nothing = umbra(
        "loop", "train", "--name", "none", "--preset", "smoke", "--simulate", "256", "--station", station, expect=1
    )
    assert "no label that could teach it" in nothing.stderr

    listed = umbra("loop", "next", "--count", "4", "--out", tmp_path / "next", "--station", station).stdout
    assert len(listed.splitlines()) == 4
    tasks = json.loads((tmp_path / "next" / "tasks.json").read_text())
    assert [task["data"]["path"] for task in tasks] == [line.split()[-1] for line in listed.splitlines()]
    assert len(list((tmp_path / "next" / "overlays").glob("*.png"))) == 4
    own = tmp_path / "next" / "20240501-093000.png"
    own.write_bytes(b"of the user")
    umbra("loop", "next", "--count", "2", "--out", tmp_path / "next", "--station", station)
    assert len(list((tmp_path / "next" / "overlays").glob("*.png"))) == 2
    assert own.exists()

    umbra(
        "labels",
        "import",
        as_labels(truth[:20], tmp_path / "labels.csv"),
        "--format",
        "csv",
        "--who",
        "jo",
        "--station",
        station,
    )
    labeled = status(station)
    assert (labeled["next"], labeled["labeled"], labeled["new"]) == ("train", 20, 20)
    assert 0 < labeled["imbalance"] < 1

    trained = umbra("loop", "train", "--name", "second", "--preset", "smoke", "--simulate", "256", "--station", station)
    identity = trained.stdout.strip()
    assert identity.startswith("second@")
    waiting = status(station)
    assert (waiting["next"], waiting["new"], waiting["trained"]["identity"]) == ("activate", 0, identity)
    starter = Station.open(station).load_bundle("starter")
    second = Station.open(station).load_bundle("second")
    assert second.spec == starter.spec  # the classifier is the same: so are the verdicts
    for file in ("classifier.onnx", "regressor.onnx"):
        assert (second.folder / file).read_bytes() == (starter.folder / file).read_bytes()
    assert (second.folder / "unseen.onnx").read_bytes() != (starter.folder / "unseen.onnx").read_bytes()

    assert list((station / "loop" / "second").glob("labels-*")) == []
    golden = second.folder / "golden.json"
    kept = golden.read_bytes()
    golden.write_bytes(kept + b" ")
    umbra("bundle", "activate", "second", "--station", station, expect=1)
    assert status(station)["next"] == "activate"  # what cannot be read is no bundle; nothing refused it
    golden.write_bytes(kept)
    umbra("bundle", "activate", "second", "--station", station)
    assert (status(station)["bundle"], status(station)["next"]) == (identity, "label")
    umbra("bundle", "rollback", "--station", station)
    assert status(station)["next"] == "label"  # gone back on purpose

    umbra("labels", "add", truth[0]["file"], "--class", "Error", "--who", "ann", "--station", station)
    disputed = status(station)
    assert (disputed["next"], disputed["disputed"]) == ("settle", 1)
    assert "--settles" in umbra("loop", "status", "--station", station).stdout
    named = umbra("loop", "train", "--name", "my bundle", "--station", station, expect=1)
    assert "bundle name 'my bundle'" in named.stderr
    again = umbra("loop", "train", "--name", "second", "--preset", "smoke", "--station", station, expect=1)
    assert "a bundle of this name already" in again.stderr


def test_what_to_do_next_follows_what_is_there(station: Path) -> None:
    place = Station.open(station)
    log = VerdictLog(place.database)
    frames = [row["frame_id"] for row in log.verdicts("v.histogram IS NOT NULL", limit=12)]
    log.add_labels([(frame_id, OK) for frame_id in frames])
    assert (status(station)["new"], status(station)["next"]) == (12, "train")
    (place.bundles / "second").mkdir(parents=True)
    log.add_event(TRAINED, identity="second@1", at="2026-06-01T00:00:00.000Z", last_label=log.state_of_labels()[0])
    assert (status(station)["new"], status(station)["next"]) == (0, "activate")
    log.add_event(BUNDLE_REFUSED, identity="second@1", reason="golden scores differ")
    assert status(station)["next"] == "label"
    log.add_event(TRAINED, identity="third@1", at="2026-06-01T00:00:00.000Z", last_label=log.state_of_labels()[0])
    assert status(station)["next"] == "label"  # it has no folder
    log.add_labels(
        [(frame_id, replace(OK, who="ann", at="2025-01-01")) for frame_id in frames]
    )  # said before, stored now
    assert (status(station)["new"], status(station)["next"]) == (12, "train")
    log.add_event(TRAINED, identity="fourth@1", at="2026-06-01T00:00:00.000Z")  # as earlier versions noted it
    assert status(station)["new"] == 0


def test_labels_that_come_between_begin_a_training_anew(station: Path) -> None:
    place = Station.open(station)
    log = VerdictLog(place.database)
    frames = [row["frame_id"] for row in log.verdicts("v.histogram IS NOT NULL AND v.class = 'OK'", limit=9)]
    log.add_labels([(frame_id, SPOT) for frame_id in frames[:8]])
    some = label_set(place, log, "unseen", StretchParams()).training
    simulated = some, some
    wanted = Retraining(name="third", preset="smoke")
    lines: list[str] = []

    def stop_after_the_first(line: str) -> None:
        lines.append(line)
        if "stage" in line or "step" in line:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        retrain(place, log, place.load_bundle("starter"), wanted, simulated, report=stop_after_the_first)
    [begun] = (station / "loop" / "third").glob("labels-*")
    log.add_labels([(frames[8], SPOT)])
    with pytest.raises(KeyboardInterrupt):
        retrain(place, log, place.load_bundle("starter"), wanted, simulated, report=stop_after_the_first)
    [anew] = (station / "loop" / "third").glob("labels-*")
    assert anew != begun


def test_one_process_trains_a_bundle(station: Path) -> None:
    place = Station.open(station)
    folder = station / "loop" / "third"
    folder.mkdir(parents=True)
    with (
        (folder / ".lock").open("w") as lock,
        pytest.raises(ApplianceError, match="is being trained by another process"),
    ):
        fcntl.flock(lock, fcntl.LOCK_EX)
        log = VerdictLog(place.database)
        none = label_set(place, log, "unseen", StretchParams()).training
        retrain(place, log, place.load_bundle("starter"), Retraining(name="third"), (none, none), report=print)


@pytest.mark.parametrize(
    ("label", "roles"),
    [
        (OK, ("classifier", "regressor", "unseen")),
        (SPOT, ("classifier", "regressor", "unseen")),
        (replace(SPOT, boxes=(), box_classes=()), ("classifier", "regressor")),  # nobody drew where
        (replace(SPOT, class_name=None, level=None), ("unseen",)),
        (replace(SPOT, class_name=None, boxes=(), box_classes=()), ("regressor",)),
        (replace(OK, class_name="Error", level=None), ("classifier",)),
    ],
)
def test_a_label_teaches_what_it_says(label: Label, roles: tuple[str, ...]) -> None:
    assert tuple(role for role in ("classifier", "regressor", "unseen") if teaches(role, label)) == roles


def test_labels_become_images(station: Path) -> None:
    place = Station.open(station)
    log = VerdictLog(place.database)
    rows = log.verdicts("v.histogram IS NOT NULL AND v.class = 'OK'", limit=8)
    frames = [row["frame_id"] for row in rows]
    log.add_labels([(frame_id, SPOT) for frame_id in frames[:6]])
    log.add_labels([(frames[0], replace(SPOT, who="ann", class_name="Diagonal"))])  # disputed
    log.add_labels([(frames[1], replace(SPOT, who="ann", class_name=None, level=None))])
    log.add_labels([(frames[6], replace(SPOT, origin=Origin.PROPOSAL))])
    found = label_set(place, log, "unseen", StretchParams())
    assert (found.disputed, found.lost) == (1, 0)
    both = join([found.training, found.validation])
    assert len(both) == 5
    widths = {row["frame_id"]: (row["width"], row["height"]) for row in rows}
    expected = sorted((30 * 224 / w, 30 * 224 / h, 90 * 224 / w, 90 * 224 / h) for w, h in map(widths.get, frames[1:6]))  # type: ignore[misc]
    np.testing.assert_allclose(sorted(map(tuple, both.boxes[:, 1:])), expected, rtol=1e-5)
    assert both.class_index.tolist() == [CLASSES.index("Spot")] * 5  # the class stands although ann did not repeat it
    assert both.rating.tolist() == [6.0] * 5
    again = label_set(place, log, "unseen", StretchParams())
    np.testing.assert_array_equal(again.validation.images, found.validation.images)


@pytest.mark.parametrize("damage", [None, b"", b"no database at all" * 1000])
def test_without_pictures_the_archived_frames_are_stretched_anew(
    station: Path, screened: tuple[Path, object], damage: bytes | None
) -> None:
    place = Station.open(station)
    log = VerdictLog(place.database)
    first, second = log.verdicts("v.histogram IS NOT NULL AND v.class = 'OK'", limit=2)
    log.add_labels([(row["frame_id"], OK) for row in (first, second)])
    kept = label_set(place, log, "unseen", StretchParams())
    if damage is None:
        place.images.unlink()
    else:
        place.images.write_bytes(damage)
    lost = label_set(place, log, "unseen", StretchParams())
    assert (len(lost.training) + len(lost.validation), lost.lost) == (0, 2)  # `screen` moves nothing into done/
    (place.done / first["path"]).parent.mkdir(parents=True)
    taken, archived = places_of(place.done, first["path"], first["sha256"])
    taken.write_bytes(b"another file of this name")
    shutil.copy(screened[0].parent / "frames" / first["path"], archived)
    anew = label_set(place, log, "unseen", StretchParams())
    assert anew.lost == 1
    images = [tuple(image.reshape(-1)) for image in join([kept.training, kept.validation]).images]
    [image] = join([anew.training, anew.validation]).images
    assert tuple(image.reshape(-1)) in images
