"""A real daemon on real files: every kind of file, kills, restarts."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

from appliance.formats import write_frame
from appliance.station import Station
from appliance.verdict_log import VerdictLog
from tests.appliance.running import Daemon, drop, outbox, wait_until
from tests.conftest import dark


def log_of(station: Station) -> VerdictLog:
    return VerdictLog(station.database, readonly=True)


def test_a_dropped_frame_gets_verdict_file_and_goes_to_done(daemon: Daemon, station: Station) -> None:
    drop(station, "a_W2_X3_Y4")
    wait_until(lambda: "P/L/a_W2_X3_Y4.json" in outbox(station), "a verdict file")
    wait_until((station.done / "P/L/a_W2_X3_Y4.tif").exists, "the frame in done/")
    made = outbox(station)["P/L/a_W2_X3_Y4.json"]
    row = log_of(station).verdict(made["seq"])
    assert row is not None
    assert (made["wafer"], made["die"]) == ("2", [3, 4])
    assert (row["verdict"], row["score"], row["bundle"]) == (made["verdict"], made["score"], made["bundle"])
    assert not list(station.inbox.rglob("*.tif"))


def test_bad_files_end_as_they_should_and_stop_nobody(daemon: Daemon, station: Station) -> None:
    lot = station.inbox / "P" / "L"
    drop(station, "first")
    (lot / "garbage.tif").write_bytes(b"this is no image")
    (lot / "empty.png").touch()
    (lot / "x.tif").mkdir()
    drop(station, "inside", folder="P/L/x.tif")
    gone = drop(station, "gone")
    gone.unlink(missing_ok=True)
    whole = write_frame(station.root / "scratch", "late", dark(seed=9), bits=8, format_name="png").read_bytes()
    late = lot / "late.png"
    with late.open("wb") as file:
        file.write(whole[: len(whole) // 2])
        file.flush()
        os.fsync(file.fileno())
        wait_until(lambda: daemon_looked_at(station, 2), "two others were judged meanwhile")
        file.write(whole[len(whole) // 2 :])
    drop(station, "last", seed=3)
    wait_until(
        lambda: {"P/L/late.json", "P/L/last.json", "P/L/garbage.json", "P/L/empty.json"} <= outbox(station).keys(),
        "all",
    )
    files = outbox(station)
    assert files["P/L/garbage.json"]["verdict"] == files["P/L/empty.json"]["verdict"] == "RETEST"
    assert files["P/L/garbage.json"]["reason"].startswith("unreadable: .tif: first bytes")
    assert files["P/L/empty.json"]["reason"] == "unreadable: empty file"
    assert files["P/L/garbage.json"]["score"] is None
    assert (station.quarantine / "P/L/garbage.tif").read_bytes() == b"this is no image"
    for name in ("first", "late", "last"):
        assert files[f"P/L/{name}.json"]["noise"] is not None
    assert files["P/L/x.tif/inside.json"]["noise"] is not None
    assert (lot / "x.tif").is_dir()
    assert (station.done / "P/L/late.png").read_bytes() == whole
    assert daemon.process.poll() is None


def daemon_looked_at(station: Station, count: int) -> bool:
    return log_of(station).last_seq() >= count


def test_killed_in_the_middle_every_frame_has_one_verdict(station: Station) -> None:
    names = [f"f{i:03d}" for i in range(200)]
    for i, name in enumerate(names):
        drop(station, name, seed=i)
    for enough in (20, 60, 110, 150):
        running = Daemon(station, api=False)
        running.wait_ready()
        wait_until(lambda e=enough: daemon_looked_at(station, e), f"{enough} verdicts")  # type: ignore[misc]
        running.kill()
    before = {row["path"]: row["seq"] for row in log_of(station).verdicts()}
    assert 150 <= len(before) < 200, "killed too late to prove anything"
    last = Daemon(station, api=False)
    wait_until(lambda: len(list(station.done.rglob("*.tif"))) == 200, "all frames in done/")
    wait_until(lambda: len(outbox(station)) == 200, "all verdict files")
    assert last.stop() == 0
    rows = log_of(station).verdicts()
    assert sorted(row["name"] for row in rows) == [f"{name}.tif" for name in names]
    assert {row["path"]: row["seq"] for row in rows if row["path"] in before} == before
    files = outbox(station)
    for row in rows:
        made = files[f"P/L/{Path(row['name']).stem}.json"]
        assert (made["seq"], made["sha256"], made["verdict"], made["score"]) == (
            row["seq"], row["sha256"], row["verdict"], row["score"],
        )  # fmt: skip
    assert not list(station.outbox.rglob("*.tmp"))


def test_a_verdict_file_lost_between_commit_and_rename_is_written_at_start(station: Station) -> None:
    drop(station, "a")
    first = Daemon(station, api=False)
    wait_until(lambda: "P/L/a.json" in outbox(station), "a verdict file")
    first.stop()
    content = (station.outbox / "P/L/a.json").read_bytes()
    (station.outbox / "P/L/a.json").unlink()
    log = VerdictLog(station.database)
    log.set_cursor("outbox", 0)
    log.close()
    again = Daemon(station, api=False)
    wait_until((station.outbox / "P/L/a.json").exists, "the verdict file is back")
    again.stop()
    assert (station.outbox / "P/L/a.json").read_bytes() == content


def test_the_same_bytes_keep_their_verdict_and_other_bytes_get_their_own(daemon: Daemon, station: Station) -> None:
    drop(station, "a", seed=1)
    wait_until((station.done / "P/L/a.tif").exists, "judged")
    drop(station, "a", seed=1)
    wait_until(lambda: len(list((station.done / "P/L").iterdir())) == 2, "put away again")
    assert log_of(station).last_seq() == 1
    assert [e["kind"] for e in log_of(station).table("events")].count("frame.seen_again") == 1
    drop(station, "a", seed=2)
    wait_until(lambda: outbox(station)["P/L/a.json"]["seq"] == 2, "the new bytes were judged")
    assert len(outbox(station)) == 1


def test_two_frames_with_one_stem_have_two_verdict_files(daemon: Daemon, station: Station) -> None:
    drop(station, "a", seed=1)
    wait_until(lambda: "P/L/a.json" in outbox(station), "the first")
    drop(station, "a", seed=2, format_name="png")
    wait_until(lambda: "P/L/a.png.json" in outbox(station), "the second")
    assert outbox(station)["P/L/a.json"]["frame"] == "a.tif"


def test_bytes_dropped_again_after_others_show_their_own_verdict(daemon: Daemon, station: Station) -> None:
    for seed, seq in ((1, 1), (2, 2), (1, 1)):
        target = drop(station, "a", seed=seed)
        wait_until(lambda p=target: not p.exists(), "put away")  # type: ignore[misc]
        assert outbox(station)["P/L/a.json"]["seq"] == seq


def test_odd_names_and_sidecars_stop_nobody(daemon: Daemon, station: Station) -> None:
    names = ["a\udcff", "new\nline", "W1_X99999999999999999999_Y1", "b" * 245, "dé.tif", "a.json"]
    for seed, name in enumerate(names):
        drop(station, name, seed=seed)
    sidecars = ['{"die": [100000000000000000000, 1]}', '{"wafer": "\\ud800"}', "[" * 100_000]
    for seed, content in enumerate(sidecars):
        (station.inbox / "P" / "L" / f"side{seed}.tif.json").write_text(content)
        drop(station, f"side{seed}", seed=10 + seed)
    wait_until(lambda: log_of(station).last_seq() == len(names) + len(sidecars), "a verdict each")
    wait_until(lambda: len(outbox(station)) == len(names) + len(sidecars), "a verdict file each")
    drop(station, "last", seed=50)
    wait_until(lambda: "P/L/last.json" in outbox(station), "the next frame")
    assert daemon.process.poll() is None


def test_folders_whose_names_grow_too_long_for_the_outbox_stop_nobody(daemon: Daemon, station: Station) -> None:
    """Each byte that is no UTF-8 becomes four characters: a lot of 80 of them is no name for a folder any more."""
    lot = os.fsdecode(b"\x93" * 80)
    for seed in range(3):
        drop(station, f"a{seed}", seed=seed, folder=f"P/{lot}")
    wait_until(lambda: log_of(station).last_seq() == 3, "a verdict each")
    assert log_of(station).newest_event("outbox.blocked") is not None
    daemon.kill()  # what was not published is looked at again by the next one
    again = Daemon(station, api=False)
    again.wait_ready()
    drop(station, "last", seed=50)
    wait_until(lambda: "P/L/last.json" in outbox(station), "the next frame")
    assert again.stop() == 0


def test_a_raw_frame_waits_for_its_sidecar(daemon: Daemon, station: Station) -> None:
    made = write_frame(station.root / "scratch", "a", dark(), bits=10, format_name="raw10")
    lot = station.inbox / "P" / "L"
    lot.mkdir(parents=True)
    shutil.copyfile(made, lot / "a.raw")
    drop(station, "other")
    wait_until(lambda: "P/L/other.json" in outbox(station), "another frame meanwhile")
    shutil.copyfile(f"{made}.json", lot / "a.raw.json")
    wait_until(lambda: "P/L/a.json" in outbox(station), "a verdict")
    assert outbox(station)["P/L/a.json"]["noise"] is not None
    wait_until((station.done / "P/L/a.raw.json").exists, "the sidecar goes along")


def test_a_second_daemon_is_refused(daemon: Daemon, station: Station) -> None:
    second = Daemon(station, api=False)
    assert second.wait_ended() == 1
    assert "another `umbra run`" in (station.root / "test.log").read_text()


def test_an_inbox_that_vanishes_is_reported_and_watched_again(daemon: Daemon, station: Station) -> None:
    shutil.rmtree(station.inbox)
    wait_until(lambda: not (station.read_state() or {})["ready"], "not ready")
    station.inbox.mkdir()
    drop(station, "a")
    wait_until(lambda: "P/L/a.json" in outbox(station), "a verdict")
    wait_until(lambda: (station.read_state() or {})["ready"], "ready again")
    assert [e["kind"] for e in reversed(log_of(station).table("events"))][-2:] == ["inbox.gone", "inbox.back"]


def test_one_log_line_a_frame_explains_the_verdict(daemon: Daemon, station: Station) -> None:
    drop(station, "a")
    wait_until(lambda: daemon.log_lines("frame.screened"), "a line")
    [line] = daemon.log_lines("frame.screened")
    assert line.keys() >= {
        "seq",
        "path",
        "sha256",
        "verdict",
        "class",
        "level",
        "score",
        "spec",
        "bundle",
        "engine",
        "ms_total",
    }


def test_a_damaged_bundle_is_refused(station: Station, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    source = Path(__file__).parents[2] / "engines" / "bundles" / "starter"
    shutil.copytree(source, broken)
    with (broken / "regressor.onnx").open("r+b") as file:
        file.seek(1000)
        file.write(b"\xff")
    (station.root / "umbra.toml").write_text(f"[engine]\nbundle = {json.dumps(str(broken))}\n")
    running = Daemon(station, api=False)
    assert running.wait_ended() == 1
    assert "regressor.onnx has SHA-256" in (station.root / "test.log").read_text().replace("\n", "")
