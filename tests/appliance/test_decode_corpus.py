"""Files made by others, plain, odd and broken: obeyed file by file (needs UMBRA_REAL_DATA)."""

from __future__ import annotations

import hashlib
import json
import time
from pathlib import Path
from typing import Any

import pytest

from appliance.frame import Frame
from appliance.reading import read_frame
from appliance.settings import Settings
from kernels import unpack
from tests.conftest import REAL_DATA, memory_taken

pytestmark = pytest.mark.real_data
LONGEST_S = 20.0
LARGEST_BYTES = 1 << 30
SETTINGS = Settings()


def cases(folder: str) -> list[dict[str, Any]]:
    path = REAL_DATA / folder / "expected.json"
    return json.loads(path.read_text()) if path.exists() else []


def digest(frame: Frame) -> str:
    assert frame.raw is not None, frame.unreadable
    return hashlib.sha256(unpack(frame.raw).astype("<u2").tobytes()).hexdigest()


@pytest.mark.parametrize("case", cases("decoder_corpus"), ids=lambda c: c["file"])
def test_corpus_file_is_treated_as_expected(case: dict[str, Any], real_data: Path) -> None:
    began = time.monotonic()
    with memory_taken() as taken:
        frame = read_frame(real_data / "decoder_corpus" / case["file"], case["file"], SETTINGS)
    if case["expect"] == "decode":
        assert digest(frame) == case["grey_samples"]["sha256_u16le"]
    elif case["expect"] == "refuse_cleanly":
        assert frame.raw is None
        assert frame.unreadable
        assert Path(case["file"]).name == frame.identity.name
    else:
        assert (frame.raw is None) == (frame.unreadable is not None)
    assert time.monotonic() - began < LONGEST_S
    assert taken.bytes_ < LARGEST_BYTES


LAYOUTS = {"bayer14_msb": "packed14", "u16le": "u16le", "raw10": "raw10", "raw12": "raw12"}


@pytest.mark.parametrize("case", cases("raw_packed"), ids=lambda c: c["file"])
def test_packed_file_is_treated_as_expected(case: dict[str, Any], real_data: Path, tmp_path: Path) -> None:
    layout = next(ours for theirs, ours in LAYOUTS.items() if theirs in case["file"])
    sidecar = {"width": case["width"], "height": case["height"], "layout": layout}
    if "stride" in case["file"]:
        sidecar["stride"] = 832
    copy = tmp_path / case["file"]
    copy.write_bytes((real_data / "raw_packed" / case["file"]).read_bytes())
    copy.with_name(copy.name + ".json").write_text(json.dumps(sidecar))
    frame = read_frame(copy, copy.name, SETTINGS)
    if "sha256_of_samples_u16le" in case:
        assert digest(frame) == case["sha256_of_samples_u16le"]
    else:
        assert frame.raw is None
        assert "12793 bytes" in (frame.unreadable or "")


def test_the_corpus_is_there(real_data: Path) -> None:
    """Without the folder this one skips loudly; with it, no case may go missing."""
    assert len(cases("decoder_corpus")) > 400
    assert len(cases("raw_packed")) == 7
