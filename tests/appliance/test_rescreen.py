"""Another bundle over the archived frames: each once, none published, what is gone or another file is left alone."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from appliance.formats import write_frame
from appliance.put_away import places_of
from appliance.screening import Archive
from appliance.station import Station
from appliance.verdict_log import VerdictLog
from engines import Bundle
from engines.bundle import load
from tests.appliance.test_cli import umbra
from tests.conftest import dark


@pytest.fixture
def log(station: Station, tmp_path: Path) -> Iterator[VerdictLog]:
    """A station that judged five frames: two archived, the second under its hash; of the others no file, another, and one torn."""
    for seed in range(5):
        blemished = dark(seed=seed)
        blemished[100:180, 120:220] += 25
        write_frame(tmp_path / "frames" / "P" / "L", f"d{seed}", blemished, bits=8, format_name="png")
    umbra("screen", tmp_path / "frames", "--station", station.root)
    opened = VerdictLog(station.database)
    for number, row in enumerate(sorted(opened.verdicts(), key=lambda row: row["name"])):
        own, hashed = places_of(station.done, row["path"], row["sha256"])
        own.parent.mkdir(parents=True, exist_ok=True)
        if number == 0:
            shutil.copy(tmp_path / "frames" / row["path"], own)
        elif number == 1:
            own.write_bytes(b"a later file of this name")
            shutil.copy(tmp_path / "frames" / row["path"], hashed)
        elif number == 3:
            size = (tmp_path / "frames" / row["path"]).stat().st_size
            own.write_bytes(b"x" * size)
        elif number == 4:
            own.write_bytes((tmp_path / "frames" / row["path"]).read_bytes()[:-9])
    yield opened
    opened.close()


@pytest.fixture
def mild(station: Station, starter: Bundle) -> str:
    """A bundle of the same networks that passes everything; its identity."""
    folder = shutil.copytree(starter.folder, station.bundles / "mild")
    toml = folder / "bundle.toml"
    text = toml.read_text().replace('name = "starter"', 'name = "mild"')
    toml.write_text(re.sub(r"(?m)^spec = .*$", "spec = 0.999", text))
    return load(folder).identity


def test_each_archived_frame_is_judged_once_and_not_published(station: Station, log: VerdictLog, mild: str) -> None:
    before = {row["name"]: row for row in log.verdicts()}
    printed = umbra("rescreen", "--bundle", "mild", "--format", "jsonl", "--station", station.root)
    rows = [json.loads(line) for line in printed.stdout.splitlines()]
    assert [(row["frame"], row["bundle"], row["verdict"]) for row in rows] == [
        ("d0.png", mild, "PASS"), ("d1.png", mild, "PASS")
    ]  # fmt: skip
    told = " ".join(printed.stderr.split())
    assert f"{mild}: 2 frames judged, 2 FAIL became PASS; 2 have no file any more" in told
    stored = [row for row in log.verdicts() if row["bundle"] == mild]
    assert [(row["frame_id"], row["path"], row["origin"]) for row in stored] == [
        (before[name]["frame_id"], before[name]["path"], "screen") for name in ("d0.png", "d1.png")
    ]
    assert not list(station.outbox.rglob("*"))
    again = umbra("rescreen", "--bundle", "mild", "--station", station.root)
    assert "0 frames judged, all as before" in " ".join(again.stderr.split())


def test_rescreening_goes_on_where_it_was_stopped(station: Station, log: VerdictLog, mild: str) -> None:
    archive = Archive(station, log, mild)
    assert (len(archive), len(list(archive.targets()))) == (5, 3)  # of one the bytes tell only when they are read
    assert len(Archive(station, log, mild, product="Q")) == 0
    assert len(Archive(station, log, mild, product="P", lot="L")) == 5
    umbra("rescreen", "--bundle", "mild", "--station", station.root)
    assert len(Archive(station, log, mild)) == 3


def test_the_order_is_of_all_frames_again(station: Station, log: VerdictLog, mild: str) -> None:
    umbra("bundle", "activate", "mild", "--station", station.root)
    umbra("rescreen", "--station", station.root)
    ranked = json.loads(umbra("rank", "--json", "--station", station.root).stdout)
    assert sorted(one["frame"] for one in ranked) == ["d0.png", "d1.png"]
