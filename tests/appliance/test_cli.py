"""The command line in a process of its own: output, exit codes, help."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from appliance.cli import app
from appliance.station import Station
from tests.appliance.running import Daemon, outbox, wait_until
from tests.line.test_files import FIELDS


def umbra(*arguments: str | Path, expect: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "appliance.cli", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == expect, done.stderr
    return done


@pytest.fixture(scope="module")
def frames(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("frames")
    umbra("simulate", folder, "--sensor", "A,B", "--count", "6", "--seed", "3", "--format", "tiff,png,raw10")
    return folder


def commands(group: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Words of every command below a group, in the order of its help."""
    for name, command in group.commands.items():
        yield from commands(command, (*path, name)) if hasattr(command, "commands") else [(*path, name)]


def test_every_command_has_help_with_an_example() -> None:
    found = list(commands(get_command(app)))
    assert {("run",), ("bundle", "activate"), ("labels", "import"), ("lot", "stdf")} <= set(found)
    for words in found:
        told = CliRunner().invoke(app, [*words, "--help"])
        assert told.exit_code == 0
        assert "Example: umbra" in told.stdout, " ".join(words)
    assert "Example: umbra" in umbra("run", "--help").stdout, "as a tester types it"


def test_simulated_files_have_their_truth_and_repeat(frames: Path, tmp_path: Path) -> None:
    with (frames / "truth.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 6
    assert {row["sensor"] for row in rows} == {"A", "B"}
    assert all((frames / row["file"]).is_file() for row in rows)
    assert {Path(row["file"]).suffix for row in rows} == {".tif", ".png", ".raw"}
    umbra("simulate", tmp_path, "--sensor", "A,B", "--count", "6", "--seed", "3", "--format", "tiff,png,raw10")
    for row in rows:
        assert (tmp_path / row["file"]).read_bytes() == (frames / row["file"]).read_bytes()


def test_jsonl_is_one_schema_1_verdict_a_frame_and_nothing_else(frames: Path) -> None:
    done = umbra("screen", frames, "--format", "jsonl")
    verdicts = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(verdicts) == 6
    assert all(list(v) == FIELDS for v in verdicts)
    assert {v["product"] for v in verdicts} == {"A", "B"}


def test_csv_and_table_show_every_frame(frames: Path) -> None:
    rows = list(csv.DictReader(umbra("screen", frames, "--format", "csv").stdout.splitlines()))
    assert len(rows) == 6
    table = umbra("screen", frames).stdout
    assert all(row["name"] in table for row in rows)


def test_screening_by_hand_logs_but_moves_and_publishes_nothing(frames: Path, station: Station) -> None:
    first = umbra("screen", frames, "--station", station.root, "--format", "jsonl").stdout.splitlines()
    again = umbra("screen", frames, "--station", station.root, "--format", "jsonl").stdout.splitlines()
    assert (
        [json.loads(line)["seq"] for line in first] == [json.loads(line)["seq"] for line in again] == [1, 2, 3, 4, 5, 6]
    )
    assert len(list(frames.rglob("*.tif"))) == 2
    daemon = Daemon(station, api=False)
    daemon.wait_ready()
    daemon.stop()
    assert outbox(station) == {}


def compare_with_station(frames: Path, station: Station) -> int:
    """Drop the frames of a folder in a station's inbox; each must measure as `umbra screen` says; how many."""
    by_hand = {
        v["sha256"]: v for v in map(json.loads, umbra("screen", frames, "--format", "jsonl").stdout.splitlines())
    }
    daemon = Daemon(station, api=False)
    daemon.wait_ready()
    names = [
        p for p in sorted(frames.rglob("*"), reverse=True) if p.is_file() and p.parent != frames and p.suffix != ".csv"
    ]
    for path in names:  # in reverse: sidecars sort after their file
        target = station.inbox / path.relative_to(frames)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    wait_until(lambda: len(outbox(station)) == len(by_hand), "all verdicts")
    daemon.stop()
    for made in outbox(station).values():
        same = by_hand[made["sha256"]]
        for field in FIELDS:
            if field not in ("seq", "decided_at", "ms"):
                assert made[field] == same[field], field
    return len(by_hand)


def test_a_running_station_gives_the_same_numbers(frames: Path, station: Station) -> None:
    assert compare_with_station(frames, station) == 6


def test_a_running_station_gives_the_same_numbers_on_real_frames(real_data: Path, station: Station) -> None:
    assert compare_with_station(real_data / "dark_frames", station) == 58


def test_whatif_moves_verdicts_but_not_retests(frames: Path, station: Station) -> None:
    umbra("screen", frames, "--station", station.root, "--format", "jsonl")
    strict = json.loads(umbra("spec", "whatif", "0.0001", "--station", station.root, "--json").stdout)
    loose = json.loads(umbra("spec", "whatif", "1.0", "--station", station.root, "--json").stdout)
    assert strict["would"]["FAIL"] >= loose["would"]["FAIL"] == 0
    assert strict["would"]["RETEST"] == loose["would"]["RETEST"] == strict["given"]["RETEST"]
    unseen = json.loads(umbra("spec", "whatif", "--t", "0.25", "--station", station.root, "--json").stdout)["unseen"]
    assert (unseen["frames"], unseen["m_thresh"]["exact"]) == (sum(strict["given"].values()), True)
    assert "wanted a limit, --t or --alpha" in umbra("spec", "whatif", "--station", station.root, expect=2).stderr


def test_limits_are_shown_with_who_set_them(station: Station) -> None:
    umbra("spec", "set", "0.2", "--product", "P", "--station", station.root, "--who", "jo", "--note", "why not")
    [row] = json.loads(umbra("spec", "show", "--station", station.root, "--json").stdout)
    assert (row["product"], row["spec"], row["who"], row["note"]) == ("P", 0.2, "jo", "why not")


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["screen", "/nowhere/at/all.tif"], 1, "no such file or folder"),
        (["screen", "{tmp}"], 1, "no image file"),
        (["screen", "{tmp}", "--bundle", "nobody"], 1, "no image file"),
        (["screen"], 2, "Missing argument"),
        (["simulate", "{tmp}/x", "--sensor", "Z"], 2, "sensor Z"),
        (["simulate", "{tmp}/x", "--sensor", "F", "--format", "raw10"], 2, "14 bits"),
        (["simulate", "{tmp}/x", "--format", "jpeg"], 2, "jpeg"),
        (["evaluate", "--data", "{tmp}"], 1, "truth.csv"),
        (["bundle", "verify", "nobody"], 1, "nobody"),
        (["spec", "set", "7"], 2, "spec set --help"),
        (["spec", "show", "--station", "{tmp}/none"], 1, "no such folder"),
        (["train", "classifier", "--out", "{tmp}/o"], 2, "--simulate"),
        (["train", "judge", "--out", "{tmp}/o"], 2, "judge"),
        (["train", "unseen", "--out", "{tmp}/o", "--simulate", "64", "--from", "nobody"], 1, "nobody"),
        (["bundle", "pack", "{tmp}", "--name", "b", "--out", "{tmp}/b", "--simulate", "64"], 1, "classifier/weights.pt"),
        (["evaluate", "--data", "{tmp}", "--precision", "fp4"], 2, "fp4"),
    ],
)  # fmt: skip
def test_errors_are_one_line_with_the_right_exit_code(
    tmp_path: Path, arguments: list[str], code: int, message: str
) -> None:
    done = umbra(*(a.format(tmp=tmp_path) for a in arguments), expect=code)
    assert message in done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr


def test_doctor_finds_a_healthy_machine(station: Station) -> None:
    found = umbra("doctor", "--station", station.root).stdout
    assert "golden frames within" in found
    (station.root / "umbra.toml").write_text("nonsense = true\n")
    assert "nonsense" in umbra("doctor", "--station", station.root, expect=1).stdout


def test_bundles_are_listed_and_activated(station: Station) -> None:
    assert "starter" in umbra("bundle", "list", "--station", station.root).stdout
    umbra("bundle", "activate", "starter", "--station", station.root, "--who", "jo")
    assert umbra("bundle", "list", "--station", station.root).stdout.startswith("*")


def test_real_dark_frames_each_get_a_verdict(real_data: Path) -> None:
    folder = real_data / "dark_frames"
    expected = sorted(p.name for p in folder.rglob("*") if p.name.endswith((".png", ".tif", ".fit.gz")))
    verdicts = [json.loads(line) for line in umbra("screen", folder, "--format", "jsonl").stdout.splitlines()]
    assert sorted(v["frame"] for v in verdicts) == expected
    assert all(list(v) == FIELDS for v in verdicts)
    clipped = [v for v in verdicts if v["product"] == "ualberta_tif8_packbits"]
    assert clipped
    assert all(v["verdict"] == "RETEST" and v["reason"].startswith("clipped") for v in clipped)


def test_a_station_that_only_screens_needs_no_torch(frames: Path) -> None:
    code = (
        "import sys; sys.modules['torch'] = None; sys.modules['onnx'] = None; sys.modules['openvino_telemetry'] = None; "
        "from appliance.cli import main; sys.argv = ['umbra', 'screen', sys.argv[1], '--format', 'jsonl']; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(frames)], capture_output=True, text=True, timeout=120, check=False
    )
    assert len(done.stdout.splitlines()) == 6, done.stderr


@pytest.mark.skipif(Path("/dev/nvidiactl").exists(), reason="a GPU is here")
def test_without_a_gpu_that_is_said_and_the_cpu_serves(station: Station) -> None:
    told = umbra("doctor", "--station", station.root).stdout
    assert "gpu: no NVIDIA driver" in told
    assert "tensorrt: its package is there, but does not load" in told
    assert "pip install 'umbra[gpu]'" in told
    assert "openvino-int8@" in told
    daemon = Daemon(station, api=False)
    daemon.wait_ready()
    daemon.stop()
    [off] = daemon.log_lines("gpu.off")
    assert off["reason"].startswith("gpu: no NVIDIA driver")


@pytest.mark.skipif(Path("/dev/nvidiactl").exists(), reason="a GPU is here")
def test_a_station_that_wants_a_gpu_does_not_make_do_without(station: Station) -> None:
    toml = station.root / "umbra.toml"
    toml.write_text(toml.read_text() + '[engine]\ntarget = "tensorrt"\n')
    assert "umbra: tensorrt: no NVIDIA driver" in umbra("run", "--station", station.root, "--no-api", expect=1).stderr
    state = station.read_state()
    assert state is not None
    assert state["ready"] is False
    assert state["reasons"][0].startswith("engines: tensorrt: no NVIDIA driver")
    assert "broken gpu" in umbra("doctor", "--station", station.root, expect=1).stdout
    built = umbra("engines", "build", "--station", station.root, "--target", "tensorrt_rtx", expect=1)
    assert "umbra: tensorrt_rtx: no NVIDIA driver" in built.stderr
    wrong = umbra("engines", "build", "--station", station.root, "--precision", "bf16", expect=2)
    assert "tensorrt does not compute in bf16" in wrong.stderr
