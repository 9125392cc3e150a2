"""Another bundle over the archived frames: each once, none published, what is gone or another file is left alone."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from appliance.again import AgainLog, alone
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


def told_where(replaced: str, *arguments: str | Path, expect: int = 0) -> str:
    """What a command says where something is replaced in it before it starts, by lines of Python."""
    done = subprocess.run(
        [sys.executable, "-c", f"from appliance.cli import main\n{replaced}\nmain()", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == expect, done.stderr
    return " ".join(done.stderr.split())


def test_each_archived_frame_is_judged_once_and_not_published(station: Station, log: VerdictLog, mild: str) -> None:
    before = {row["name"]: row for row in log.verdicts()}
    printed = umbra("rescreen", "--bundle", "mild", "--format", "jsonl", "--station", station.root)
    rows = [json.loads(line) for line in printed.stdout.splitlines()]
    assert [(row["frame"], row["bundle"], row["verdict"]) for row in rows] == [
        (name, mild, "PASS") for name in ("d0.png", "d1.png", "d5.png")
    ]
    told = " ".join(printed.stderr.split())
    assert (
        f"{mild}: 3 frames judged; of all 3 that it has judged, 3 FAIL became PASS; 2 have no file any more, 1 a file of "
        "other bytes, 0 one that" in told
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
    assert "0 frames judged" in told_of("rescreen", "--bundle", "mild", "--station", station.root)


def test_rescreening_goes_on_where_it_was_stopped(station: Station, log: VerdictLog, mild: str) -> None:
    station.again.root.mkdir()
    with closing(AgainLog(station, log)) as again:
        archive = Archive(station, log, again, mild)
        assert (len(archive), len(list(archive.targets()))) == (6, 4)  # of one the bytes tell only when they are read
        assert len(Archive(station, log, again, mild, product="Q")) == 0
        assert len(Archive(station, log, again, mild, product="P", lot="L")) == 6
        umbra("rescreen", "--bundle", "mild", "--station", station.root)
        assert len(Archive(station, log, again, mild)) == 3
        assert len(list(Archive(station, log, again, mild).targets())) == 1


def test_what_differs_is_told_again_and_of_a_stopped_run_too(station: Station, log: VerdictLog, mild: str) -> None:
    umbra("rescreen", "--bundle", "mild", "--station", station.root)
    told = umbra("rescreen", "--bundle", "mild", "--station", station.root)
    assert "0 frames judged; of all 3 that it has judged, 3 FAIL became PASS" in " ".join(told.stderr.split())
    assert [name for name in ("d0.png", "d1.png", "d5.png", "d4.png") if name in told.stdout] == [
        "d0.png", "d1.png", "d5.png"
    ]  # fmt: skip
    shutil.rmtree(station.again.root)
    full_at_the_second = """
from appliance.again import AgainLog
from appliance.errors import OutOfServiceError
real = AgainLog.record
def record(self, frame, row, *, origin="inbox"):
    if frame.identity.name != "d0.png":
        raise OutOfServiceError("disk full")
    return real(self, frame, row, origin=origin)
AgainLog.record = record
"""
    stopped = told_where(full_at_the_second, "rescreen", "--bundle", "mild", "--station", station.root, expect=1)
    assert "1 frames judged; of all 1 that it has judged, 1 FAIL became PASS" in stopped
    assert "umbra: disk full" in stopped


def test_one_rescreen_runs_at_a_time(station: Station, log: VerdictLog, mild: str) -> None:
    with alone(station):
        assert "another `umbra rescreen`" in told_of(
            "rescreen", "--bundle", "mild", "--station", station.root, expect=1
        )
    assert "3 frames judged" in told_of("rescreen", "--bundle", "mild", "--station", station.root)


def test_a_frame_that_the_log_forgets_meanwhile_is_passed_over(station: Station, log: VerdictLog, mild: str) -> None:
    numbers = {row["name"]: row["frame_id"] for row in log.verdicts()}
    forgotten_at_the_second = f"""
from pathlib import Path
from appliance.again import AgainLog
from appliance.verdict_log import VerdictLog
real, line = AgainLog.record, VerdictLog(Path({str(station.database)!r}))
def record(self, frame, row, *, origin="inbox"):
    if frame.identity.name == "d1.png":
        line.forget("9999", chunk=10)
    return real(self, frame, row, origin=origin)
AgainLog.record = record
"""
    told = told_where(forgotten_at_the_second, "rescreen", "--bundle", "mild", "--station", station.root)
    assert "1 frames judged; of all 1 that it has judged, 1 nothing became PASS; 4 have no file any more" in told
    with closing(AgainLog(station)) as again:
        assert [row["frame_id"] for row in again.verdicts()] == [numbers["d0.png"]]


def test_a_frame_that_came_back_after_it_was_forgotten_is_judged_anew(
    station: Station, log: VerdictLog, mild: str, tmp_path: Path
) -> None:
    umbra("rescreen", "--bundle", "mild", "--station", station.root)
    log.forget("9999", chunk=10)
    umbra("screen", tmp_path / "frames", "--station", station.root)
    now = {row["name"]: row["frame_id"] for row in log.verdicts()}
    told = told_of("rescreen", "--bundle", "mild", "--station", station.root)
    assert "3 frames judged; of all 3 that it has judged, 3 FAIL became PASS" in told
    with closing(AgainLog(station)) as again:
        assert {row["name"]: row["frame_id"] for row in again.verdicts()} == {
            name: now[name] for name in ("d0.png", "d1.png", "d5.png")
        }


@pytest.mark.skipif(os.geteuid() != 0, reason="NOT ROOT: nobody else's station can be made")
def test_what_root_judges_again_belongs_to_the_station(station: Station, log: VerdictLog, mild: str) -> None:
    os.chown(station.root, 1234, 1234)
    umbra("rescreen", "--bundle", "mild", "--station", station.root)
    umbra("bundle", "activate", "mild", "--station", station.root)
    umbra("rank", "--station", station.root)
    made = [
        station.again.root,
        *station.again.root.rglob("*"),
        *station.columns.rglob("*"),
        station.root / ".again.lock",
    ]
    assert {"umbra.db", "images.db", ".umbra.db.lock", "m_alpha"} <= {path.name for path in made}
    assert {(path.stat().st_uid, path.stat().st_gid) for path in made} == {(1234, 1234)}


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
    assert all(one and one.has_map for one in seen.values())
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
    assert "1 frames judged; of all 1 that it has judged, all as before" in told_of(
        "rescreen", "--bundle", "mild", "--station", station.root
    )


def test_what_cannot_be_decoded_for_now_is_judged_when_it_can(station: Station, headerless: str, mild: str) -> None:
    (station.root / "umbra.toml").write_text("")
    told = told_of("rescreen", "--bundle", "mild", "--station", station.root)
    assert "0 frames judged; of all 0 that it has judged, all as before" in told
    assert "1 one that cannot be decoded now" in told
    assert "not judged: P/L/d_a.raw: raw: no geometry" in told
    (station.root / "umbra.toml").write_text(headerless)
    assert "1 frames judged; of all 1 that it has judged, all as before" in told_of(
        "rescreen", "--bundle", "mild", "--station", station.root
    )


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
