"""Files that nobody meant to be read: seeds of every format, changed at random, go through the sandbox as in the inbox.

UMBRA_FUZZ_INPUTS says how many of each kind (`make fuzz`); without the decoder corpus the seeds are frames of our own.
What was found so far were descriptors and memory that pile up; each has a test of its own, here or in test_sandbox.
"""

from __future__ import annotations

import base64
import gzip
import json
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st

from appliance.errors import FrameVanishedError
from appliance.formats import write_frame
from appliance.frame import Frame
from appliance.sandbox import Sandbox
from appliance.settings import LimitSettings, Settings
from tests.appliance.test_decode import write_dng
from tests.conftest import REAL_DATA, dark

INPUTS = int(os.environ.get("UMBRA_FUZZ_INPUTS", "400"))
LONGEST_S = 10.0
LONGEST_SEED = 70_000  # bytes
KINDS = {
    "tiff": (".tif", "tiff"), "png": (".png", "png"), "pnm": (".pgm", "pgm"), "fits": (".fits", "fits"), "npy": (".npy", "npy"),
    "raw": (".raw", "raw12"), "dng": (".dng", None),
}  # fmt: skip
EDGES = (0, 1, 2, 7, 8, 15, 16, 127, 128, 255, 256, 32767, 32768, 65535, 65536, 2**31 - 1, 2**31, 2**32 - 1)


def seeds_of(kind: str, scratch: Path) -> list[bytes]:
    """Contents to begin with: a frame of our own, plain and compressed, and the corpus where it is there."""
    suffix, format_name = KINDS[kind]
    samples = dark(40, 60, pedestal=300)
    if format_name is None:
        path = scratch / f"seed-{kind}{suffix}"
        write_dng(path, samples)
    else:
        path = write_frame(scratch, f"seed-{kind}", samples, bits=12, format_name=format_name)
    own = path.read_bytes()
    found = [own, gzip.compress(own, mtime=0)]
    corpus = REAL_DATA / "decoder_corpus"
    if corpus.is_dir():
        paths = sorted(p for p in corpus.rglob("*") if p.is_file() and p.parent.name.startswith(kind))
        found += [p.read_bytes() for p in paths if p.stat().st_size <= LONGEST_SEED]
    return found


@st.composite
def changed(draw: st.DrawFn, seeds: list[bytes]) -> bytes:
    """A seed with up to a dozen changes, most of them in its header, where formats keep their promises."""
    content = bytearray(draw(st.sampled_from(seeds)))
    for _ in range(draw(st.integers(0, 12))):
        size = len(content)
        if not size:
            break
        at = draw(st.integers(0, min(size, 512) - 1) | st.integers(0, size - 1))
        how = draw(st.sampled_from(("flip", "byte", "number", "cut", "drop", "double", "splice", "swap")))
        if how == "flip":
            content[at] ^= 1 << draw(st.integers(0, 7))
        elif how == "byte":
            content[at] = draw(st.integers(0, 255))
        elif how == "number":
            width, order = draw(st.sampled_from((2, 4, 8))), draw(st.sampled_from(("little", "big")))
            number = draw(st.sampled_from(EDGES) | st.integers(0, 2**64 - 1)) % 2 ** (8 * width)
            content[at : at + width] = number.to_bytes(width, order)
        elif how == "cut":
            del content[at:]
        elif how == "drop":
            del content[at : at + draw(st.integers(1, 64))]
        elif how == "double":
            part = content[at : at + draw(st.integers(1, 256))]
            content[at:at] = part
        elif how == "splice":
            other = draw(st.sampled_from(seeds))
            content[at:] = other[min(at, len(other)) :]
        else:
            to = draw(st.integers(0, size - 1))
            content[at], content[to] = content[to], content[at]
    return bytes(content)


class Fuzzed:
    """A sandbox and a folder; every file is dropped there, decoded and taken away."""

    def __init__(self, folder: Path) -> None:
        limits = LimitSettings(pixels=4_000_000, file_bytes=16_000_000, decode_s=LONGEST_S)
        self.folder = folder
        self.sandbox = Sandbox(Settings(limits=limits), workers=1)

    def decode(self, name: str, content: bytes, sidecar: bytes | None = None) -> Frame | None:
        """The frame; None where the file was taken for none.

        Fails with the file's content where it cost a worker, took too long or did what no decoder foresaw.
        """
        path = self.folder / name
        path.write_bytes(content)
        beside = path.with_name(path.name + ".json")
        if sidecar is not None:
            beside.write_bytes(sidecar)
        began = time.monotonic()
        frame: Frame | None = None
        with suppress(FrameVanishedError):
            frame = self.sandbox.submit(self.folder, name).result()
        beside.unlink(missing_ok=True)
        if frame is None:
            assert not self.sandbox.deaths(), f"{name} {base64.b85encode(content)[:4000]!r}"
            return None
        here = f"{name} {base64.b85encode(content)[:4000]!r} sidecar {sidecar!r}: {frame.unreadable}"
        assert not self.sandbox.deaths(), here
        assert time.monotonic() - began < LONGEST_S, here
        assert (frame.raw is None) == (frame.unreadable is not None), here
        assert "the decoder failed" not in (frame.unreadable or ""), here
        if frame.raw is not None:
            assert frame.raw.packed.nbytes <= 2 * 4_000_000
        return frame


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fuzzed]:
    made = Fuzzed(tmp_path_factory.mktemp("fuzz"))
    yield made
    made.sandbox.close()


def tried(inputs: int) -> settings:
    return settings(
        max_examples=inputs, deadline=None, database=None, derandomize=inputs <= 400,
        phases=(Phase.explicit, Phase.generate, Phase.shrink), suppress_health_check=list(HealthCheck),
    )  # fmt: skip


@pytest.mark.timeout(0)
@pytest.mark.parametrize("kind", KINDS)
def test_no_file_crashes_hangs_or_surprises_a_decoder(kind: str, fuzzed: Fuzzed, tmp_path: Path) -> None:
    seeds = seeds_of(kind, tmp_path)
    suffix = KINDS[kind][0]
    geometry = (
        json.dumps({"width": 60, "height": 40, "layout": "raw12", "bits": 12}).encode() if kind == "raw" else None
    )
    read = 0

    @tried(INPUTS)
    @given(st.data())
    def attempt(data: st.DataObject) -> None:
        nonlocal read
        content = data.draw(changed(seeds))
        zipped = content[:2] == b"\x1f\x8b"
        frame = fuzzed.decode(f"a{suffix}{'.gz' if zipped else ''}", content, geometry)
        read += frame is not None and frame.raw is not None

    attempt()
    assert read, "not one of them was readable: nothing was tried beyond the first bytes"


@pytest.mark.timeout(0)
@tried(INPUTS)
@given(st.data())
@example(None)
def test_no_sidecar_crashes_or_surprises(fuzzed: Fuzzed, data: st.DataObject | None) -> None:
    seeds = [
        json.dumps(sidecar).encode()
        for sidecar in (
            {"width": 60, "height": 40, "layout": "raw12", "stride": 90, "offset": 0, "bits": 12},
            {"wafer": "7", "die": [1, -2]},
            {"width": 60, "height": 40, "layout": "u16le", "die": [0, 0], "note": ["é", None, 1e308]},
        )
    ]
    content = b"\x00" * 3600
    if data is None:
        for sidecar in (b"", b"\xff\xfe", b"[" * 200_000, b'{"width": 1e999}', b'{"die": [1e400, 2]}', b"{}" * 600_000):
            assert fuzzed.decode("s.raw", content, sidecar) is not None
        return
    values = (
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats()
        | st.text(max_size=20)
        | st.lists(st.integers(), max_size=3)
    )
    keys = st.sampled_from(("width", "height", "layout", "stride", "offset", "bits", "wafer", "die", "other"))
    sidecar = data.draw(
        changed(seeds) | st.dictionaries(keys, values, max_size=8).map(lambda d: json.dumps(d).encode(errors="replace"))
    )
    assert fuzzed.decode("s.raw", content, sidecar) is not None


def test_a_picture_cut_short_again_and_again_leaves_no_memory_behind(fuzzed: Fuzzed, tmp_path: Path) -> None:
    """Found by fuzzing: a library keeps what it had allocated for a PNG that ends too soon; the worker is replaced in time."""
    path = write_frame(tmp_path, "png", dark(1400, 1400, pedestal=300), bits=12, format_name="png")
    content = path.read_bytes()
    for _ in range(120):
        assert fuzzed.decode("cut.png", content[: len(content) // 2]) is not None
    [worker] = fuzzed.sandbox._workers
    pages = int(Path(f"/proc/{worker.pid}/statm").read_text().split()[1])
    assert pages * os.sysconf("SC_PAGE_SIZE") < 700 << 20
