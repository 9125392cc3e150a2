"""Another bundle over the archived frames: each once, none published, what is gone or another file is left alone."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from appliance.formats import write_frame
from appliance.measured import looks
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
    """A station that judged six frames: three archived, two of them under their hash; of the others no file, another, and one torn.

    The file that has the name of the last one is as large as it.
    """
    for seed in range(6):
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
        elif number == 5:
            content = (tmp_path / "frames" / row["path"]).read_bytes()
            own.write_bytes(b"x" * len(content))
            hashed.write_bytes(content)
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


def told_of(*arguments: str | Path, expect: int = 0) -> str:
    """What a command says on standard error, in one line."""
    return " ".join(umbra(*arguments, expect=expect).stderr.split())


def test_each_archived_frame_is_judged_once_and_not_published(station: Station, log: VerdictLog, mild: str) -> None:
    before = {row["name"]: row for row in log.verdicts()}
    printed = umbra("rescreen", "--bundle", "mild", "--format", "jsonl", "--station", station.root)
    rows = [json.loads(line) for line in printed.stdout.splitlines()]
    assert [(row["frame"], row["bundle"], row["verdict"]) for row in rows] == [
        (name, mild, "PASS") for name in ("d0.png", "d1.png", "d5.png")
    ]
    told = " ".join(printed.stderr.split())
    assert (
        f"{mild}: 3 frames judged, 3 FAIL became PASS; 2 have no file any more, 1 a file of other bytes, 0 one that"
        in told
    )
    with closing(VerdictLog(station.again.database, readonly=True)) as again:
        stored = again.verdicts()
    assert [(row["frame_id"], row["path"], row["origin"]) for row in stored] == [
        (before[name]["frame_id"], before[name]["path"], "screen") for name in ("d0.png", "d1.png", "d5.png")
    ]
    assert {row["seq"] for row in log.verdicts()} == {
        row["seq"] for row in before.values()
    }  # the line's log is as it was
    assert not list(station.outbox.rglob("*"))
    assert "0 frames judged, all as before" in told_of("rescreen", "--bundle", "mild", "--station", station.root)


def test_rescreening_goes_on_where_it_was_stopped(station: Station, log: VerdictLog, mild: str) -> None:
    station.again.root.mkdir()
    with closing(VerdictLog(station.again.database)) as again:
        archive = Archive(station, log, again, mild)
        assert (len(archive), len(list(archive.targets()))) == (6, 4)  # of one the bytes tell only when they are read
        assert len(Archive(station, log, again, mild, product="Q")) == 0
        assert len(Archive(station, log, again, mild, product="P", lot="L")) == 6
        umbra("rescreen", "--bundle", "mild", "--station", station.root)
        assert len(Archive(station, log, again, mild)) == 3
        assert len(list(Archive(station, log, again, mild).targets())) == 1


def test_what_was_judged_again_is_of_this_log(station: Station, log: VerdictLog, mild: str) -> None:
    station.again.root.mkdir()
    with closing(VerdictLog(station.again.database)) as again:
        row = log.frames("1", [])[0]
        again.adopt_frame(row | {"path": "P/L/another.png"})
    told = told_of("rescreen", "--bundle", "mild", "--station", station.root, expect=1)
    assert f"its frame {row['id']} is not that of the station's log; delete its folder" in told


def test_the_order_is_of_all_frames_again(station: Station, log: VerdictLog, mild: str) -> None:
    umbra("bundle", "activate", "mild", "--station", station.root)
    umbra("rescreen", "--station", station.root)
    ranked = json.loads(umbra("rank", "--json", "--station", station.root).stdout)
    assert sorted(one["frame"] for one in ranked) == ["d0.png", "d1.png", "d5.png"]
    umbra("loop", "next", "--out", station.root / "next", "--station", station.root)
    tasks = json.loads((station.root / "next" / "tasks.json").read_text())
    assert {task["predictions"][0]["model_version"] for task in tasks} == {mild}
    given = json.loads(umbra("spec", "whatif", "--t", "0.5", "--json", "--station", station.root).stdout)["unseen"]
    assert (given["bundle"], given["frames"]) == (mild, 3)
    with looks(station, log) as look:
        seen = {row["name"]: look(row["frame_id"]) for row in log.verdicts()}
    assert {name for name, one in seen.items() if one and one.row["bundle"] == mild} == {"d0.png", "d1.png", "d5.png"}
    assert all(one and one.images.exists() for one in seen.values())
    shutil.rmtree(station.again.root)  # it may be deleted: the order is that of the line again
    ranked = json.loads(umbra("rank", "--json", "--station", station.root).stdout)
    assert len(ranked) == 6


@pytest.fixture
def headerless(station: Station, tmp_path: Path) -> str:
    """A station with one archived frame, under its hash, whose geometry its settings tell by its name; these settings."""
    samples = dark(seed=1)
    folder = tmp_path / "frames" / "P" / "L"
    folder.mkdir(parents=True)
    (folder / "d_a.raw").write_bytes(samples.astype("<u2").tobytes())
    height, width = samples.shape
    told = f'[[format]]\nmatch = "*_a.raw"\nwidth = {width}\nheight = {height}\nlayout = "u16le"\nbits = 8\n'
    (station.root / "umbra.toml").write_text(told)
    umbra("screen", tmp_path / "frames", "--station", station.root)
    with closing(VerdictLog(station.database)) as log:
        own, hashed = places_of(station.done, "P/L/d_a.raw", log.verdicts()[0]["sha256"])
    own.parent.mkdir(parents=True)
    shutil.copy(folder / "d_a.raw", hashed)
    return told


def test_a_frame_is_decoded_by_the_name_it_came_with(station: Station, headerless: str, mild: str) -> None:
    assert "1 frames judged, all as before" in told_of("rescreen", "--bundle", "mild", "--station", station.root)


def test_what_cannot_be_decoded_for_now_is_judged_when_it_can(station: Station, headerless: str, mild: str) -> None:
    (station.root / "umbra.toml").write_text("")
    told = told_of("rescreen", "--bundle", "mild", "--station", station.root)
    assert "0 frames judged, all as before" in told
    assert "1 one that cannot be decoded now" in told
    assert "not judged: P/L/d_a.raw: raw: no geometry" in told
    (station.root / "umbra.toml").write_text(headerless)
    assert "1 frames judged, all as before" in told_of("rescreen", "--bundle", "mild", "--station", station.root)


def test_nothing_is_judged_again_on_a_disk_that_is_nearly_full(station: Station, log: VerdictLog, mild: str) -> None:
    (station.root / "umbra.toml").write_text(f"[disk]\nstop_bytes = {10**18}\n")
    told = told_of("rescreen", "--bundle", "mild", "--station", station.root, expect=1)
    assert "below 2000000000000000000 nothing is judged again" in told
    with closing(VerdictLog(station.again.database, readonly=True)) as again:
        assert not again.verdicts()


def test_a_picture_that_cannot_be_kept_costs_no_verdict(station: Station, log: VerdictLog, mild: str) -> None:
    station.again.root.mkdir()
    station.again.images.write_bytes(b"no database" * 100)
    told = told_of("rescreen", "--bundle", "mild", "--station", station.root)
    assert "no pictures are kept" in told
    assert "3 frames judged" in told


def test_a_lot_that_nobody_knows_is_named(station: Station, log: VerdictLog, mild: str) -> None:
    assert "lot NO: the log has no frame of it" in told_of(
        "rescreen", "--lot", "NO", "--station", station.root, expect=1
    )
