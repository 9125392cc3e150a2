"""Verdict files: whole or not there, schema 1 to the letter, and the file beside that says so."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from appliance.errors import OutboxBlockedError, OutOfServiceError
from appliance.frame import identify
from appliance.line.files import outbox_paths, publish
from appliance.station import Station
from appliance.verdict import Row
from tests.appliance.running import Daemon, drop, outbox, wait_until
from tests.appliance.test_verdict_log import row_of

FIELDS = [
    "schema", "seq", "frame", "sha256", "product", "lot", "wafer", "die", "verdict", "bin", "reason", "class", "p", "p_ng",
    "level", "score", "spec", "unseen", "noise", "bundle", "engine", "decided_at", "ms",
]  # fmt: skip


def stored(path: str = "P/L/a.tif") -> Row:
    return row_of(path) | {"seq": 5, "frame_id": 3}


def test_the_document_has_the_contracts_fields_in_order(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    publish(path, stored() | {"die_x": 1, "die_y": 2, "wafer": "7"})
    made = json.loads(path.read_text())
    assert list(made) == FIELDS
    assert (made["schema"], made["seq"], made["frame"], made["die"], made["wafer"]) == (1, 5, "a.tif", [1, 2], "7")
    assert list(made["p"]) == ["OK", "Spot", "Diagonal", "Error"]
    assert made["bin"] == {"hard": 1, "soft": "OK"}
    assert list(made["unseen"]) == ["m_thresh", "m_alpha", "t", "alpha", "rois"]
    assert list(made["noise"]) == ["median", "sigma"]
    assert list(made["ms"]) == ["decode", "inspect", "total"]
    assert made["decided_at"].endswith("Z")


@pytest.mark.parametrize(
    ("frame_path", "expected"),
    [
        ("P/L/a.tif", ["P/L/a.json", "P/L/a.tif.json", "P/L/a.tif.00000000.json"]),
        ("P/L/a.fits.gz", ["P/L/a.json", "P/L/a.fits.gz.json", "P/L/a.fits.gz.00000000.json"]),
        ("P/L/wafer1/a.tif", ["P/L/wafer1/a.json", "P/L/wafer1/a.tif.json", "P/L/wafer1/a.tif.00000000.json"]),
        ("a.tif", ["default/default/a.json", "default/default/a.tif.json", "default/default/a.tif.00000000.json"]),
    ],
)
def test_the_path_follows_the_frame(frame_path: str, expected: list[str]) -> None:
    identity = identify(frame_path)
    row = {
        "path": frame_path,
        "product": identity.product,
        "lot": identity.lot,
        "name": identity.name,
        "sha256": "0" * 64,
    }
    assert outbox_paths(Path("o"), row) == [Path("o", e) for e in expected]


def test_a_name_of_any_length_is_published(tmp_path: Path) -> None:
    row = stored() | {"name": "ä" * 120 + ".tif"}
    path = outbox_paths(tmp_path, row)[0]
    publish(path, row)
    assert json.loads(path.read_text())["frame"] == row["name"]


def test_a_folder_in_the_way_is_told_from_a_broken_disk(tmp_path: Path) -> None:
    (tmp_path / "a.json").mkdir()
    with pytest.raises(OutboxBlockedError):
        publish(tmp_path / "a.json", stored())


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.json"
    publish(path, stored())
    before = path.read_bytes()

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutOfServiceError, match="No space left"):
        publish(path, stored() | {"seq": 6})
    assert path.read_bytes() == before


def test_a_file_beside_it_says_that_it_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    replace = Path.replace

    def noted(self: Path, target: Path) -> Path:
        order.append(Path(target).name)
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", noted)
    path = tmp_path / "a.tif.json"
    publish(path, stored())
    assert [p.name for p in tmp_path.iterdir()] == ["a.tif.json"]
    publish(path, stored(), done=True)
    assert order == ["a.tif.json", "a.tif.json", "a.tif.done"], "the verdict first"
    assert (tmp_path / "a.tif.done").read_text() == "5\n"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.tif.done", "a.tif.json"]


def test_each_verdict_file_has_one_beside_it(with_hosts: Callable[[str], Station]) -> None:
    station = with_hosts("[line.files]\ndone = true")
    running = Daemon(station, api=False)
    running.wait_ready()
    drop(station, "a", seed=1)
    drop(station, "b", seed=2)
    wait_until(lambda: len(list(station.outbox.rglob("*.done"))) == 2, "both are done")
    for name, told in outbox(station).items():
        assert (station.outbox / name).with_suffix(".done").read_text() == f"{told['seq']}\n"
    done = station.outbox / "P" / "L" / "a.done"
    running.kill()
    done.unlink()
    (station.outbox / "P" / "L" / "a.json").unlink()
    again = Daemon(station, api=False)
    drop(station, "a", seed=1)  # what was judged before is published anew where its file is gone
    wait_until(done.exists, "told again")
    assert json.loads(done.with_suffix(".json").read_text())["seq"] == int(done.read_text())
    assert again.stop() == 0
