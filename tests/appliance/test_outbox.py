"""A verdict file is whole or not there, and holds schema 1 to the letter."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from appliance.errors import OutOfServiceError
from appliance.outbox import outbox_path, publish
from appliance.verdict import Row
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
    ("frame_path", "whole", "expected"),
    [
        ("P/L/a.tif", False, "P/L/a.json"),
        ("P/L/a.fits.gz", False, "P/L/a.json"),
        ("P/L/a.tif", True, "P/L/a.tif.json"),
        ("P/L/wafer1/a.tif", False, "P/L/wafer1/a.json"),
        ("a.tif", False, "default/default/a.json"),
    ],
)
def test_the_path_follows_the_frame(frame_path: str, whole: bool, expected: str) -> None:
    from appliance.frame import identify

    identity = identify(frame_path)
    row = {"path": frame_path, "product": identity.product, "lot": identity.lot, "name": identity.name}
    assert outbox_path(Path("o"), row, whole_name=whole) == Path("o", expected)


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
