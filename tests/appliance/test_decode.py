"""Every format gives back the samples that were written; whatever is wrong is refused with its reason."""

from __future__ import annotations

import gzip
import json
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray

from appliance.errors import FrameVanishedError
from appliance.formats import FORMATS, write_frame
from appliance.reading import read_frame
from appliance.settings import LimitSettings, Settings
from kernels import Layout, unpack
from kernels.packing import reference
from tests.conftest import dark, memory_taken

SETTINGS = Settings()


def refusal(path: Path, settings: Settings = SETTINGS) -> str:
    frame = read_frame(path, path.name, settings)
    assert frame.raw is None, "it was decoded"
    assert frame.unreadable
    return frame.unreadable


@pytest.mark.parametrize(("format_name", "bits"), [(f, b) for f in FORMATS for b in (8, 10, 12, 14)
                                                   if not ((f == "raw10" and b > 10) or (f == "raw12" and b > 12))])  # fmt: skip
def test_samples_survive_the_file(tmp_path: Path, format_name: str, bits: int) -> None:
    samples = np.random.default_rng(bits).integers(0, 1 << bits, (228, 232)).astype(np.uint16)
    path = write_frame(tmp_path, "f", samples, bits=bits, format_name=format_name)
    frame = read_frame(path, "P/L/" + path.name, SETTINGS)
    assert frame.unreadable is None
    assert frame.raw is not None
    np.testing.assert_array_equal(unpack(frame.raw), samples)


@pytest.mark.parametrize("format_name", FORMATS)
@pytest.mark.parametrize("share", [0.0, 0.02, 0.3, 0.7, 0.97, 0.999])
def test_a_truncated_file_is_never_taken_for_a_frame(tmp_path: Path, format_name: str, share: float) -> None:
    path = write_frame(tmp_path, "f", dark(), bits=8, format_name=format_name)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    if format_name == "fits" and share > 0.97:
        pytest.skip("FITS files end in padding: nothing is lost")
    assert refusal(path)


@pytest.mark.parametrize("compression", ["zlib", "lzw", "packbits", "zstd"])
@pytest.mark.parametrize("share", [0.5, 0.98])
def test_a_truncated_compressed_tiff_is_refused(tmp_path: Path, compression: str, share: float) -> None:
    path = tmp_path / "f.tif"
    tifffile.imwrite(path, dark(), compression=compression, rowsperstrip=16)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    assert refusal(path)


def test_gzipped_fits_is_read(tmp_path: Path) -> None:
    plain = write_frame(tmp_path, "f", dark(), bits=12, format_name="fits")
    path = tmp_path / "f.fits.gz"
    path.write_bytes(gzip.compress(plain.read_bytes()))
    frame = read_frame(path, path.name, SETTINGS)
    assert frame.raw is not None
    np.testing.assert_array_equal(unpack(frame.raw), dark())
    path.write_bytes(path.read_bytes()[:-100])
    assert "gzip" in refusal(path)


def bomb_gzip(path: Path) -> None:
    path.write_bytes(gzip.compress(bytes(256 << 20)))


def bomb_tiff(path: Path) -> None:
    """A few bytes that say that they are two gigabytes."""
    tifffile.imwrite(path, dark(), photometric="minisblack", compression="zlib")
    with tifffile.TiffFile(path, mode="r+b") as file:
        for name in ("ImageWidth", "ImageLength", "RowsPerStrip"):
            file.pages[0].tags[name].overwrite(32000)


def bomb_png(path: Path) -> None:
    header = b"IHDR" + struct.pack(">IIBBBBB", 32000, 32000, 16, 0, 0, 0, 0)
    body = b"IDAT" + zlib.compress(bytes(1 << 20))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(part) - 4) + part + struct.pack(">I", zlib.crc32(part)) for part in (header, body, b"IEND")
    ))  # fmt: skip


@pytest.mark.parametrize(
    ("name", "make", "reason"),
    [
        ("bomb.fits.gz", bomb_gzip, "beyond the limit"),
        ("bomb.tif", bomb_tiff, "32000x32000 pixels, limit"),
        ("bomb.png", bomb_png, "32000x32000 pixels, limit"),
    ],
)
def test_a_bomb_is_refused_before_it_is_allocated(
    name: str, make: Callable[[Path], None], reason: str, tmp_path: Path
) -> None:
    make(tmp_path / name)
    limits = Settings(limits=LimitSettings(file_bytes=16 << 20, pixels=10_000_000))
    refusal(tmp_path / name, limits)  # what is imported for the format is not counted
    with memory_taken() as taken:
        assert reason in refusal(tmp_path / name, limits)
    assert taken.bytes_ < 64 << 20


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("x.tif", b"", "empty file"),
        ("x.tif", b"not an image at all", "no known image format"),
        ("x.png", b"\x89PNG\r\n\x1a\n", "too few for a header"),
        ("x.npy", b"\x93NUMPY\x01\x00", "NPY"),
        ("x.raw", b"12345678", "no geometry"),
        ("x", b"12345678", "no suffix"),
    ],
)
def test_garbage_is_refused_with_its_reason(tmp_path: Path, name: str, content: bytes, reason: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    assert reason in refusal(path)


@pytest.mark.parametrize(
    ("samples", "reason"),
    [
        (np.zeros((300, 300, 3), np.uint8), "wanted grey"),
        (np.zeros((300, 300), np.float32), "float32"),
        (np.full((300, 300), 70000, np.uint32), "wanted 0..65535"),
        (np.full((300, 300), -1, np.int16), "wanted 0..65535"),
        (np.zeros((2, 300, 300), np.uint16), "2 pages"),
    ],
)
def test_a_tiff_that_is_no_grey_frame_is_refused(tmp_path: Path, samples: NDArray[np.generic], reason: str) -> None:
    path = tmp_path / "f.tif"
    tifffile.imwrite(path, samples, photometric="rgb" if samples.shape[-1] == 3 else "minisblack")
    assert reason in refusal(path)


def test_npy_with_objects_runs_nothing(tmp_path: Path) -> None:
    path = tmp_path / "f.npy"
    np.save(path, np.array([[{}]], dtype=object), allow_pickle=True)
    assert "object" in refusal(path)


def test_raw_geometry_comes_from_the_settings(tmp_path: Path) -> None:
    packed = reference.pack(dark(240, 320), Layout.RAW10, stride=432, padding=0xEE)
    path = tmp_path / "f.raw"
    packed.packed.tofile(path)
    settings = Settings.model_validate({"format": [
        {"match": "P/*", "width": 640, "height": 480, "layout": "u16le"},
        {"match": "P/*", "width": 320, "height": 240, "layout": "RAW10", "stride": 432},
    ]})  # fmt: skip
    frame = read_frame(path, "P/L/f.raw", settings)
    assert frame.raw is not None
    np.testing.assert_array_equal(unpack(frame.raw), dark(240, 320))
    path.write_bytes(path.read_bytes() + b"\0")
    assert f"{432 * 240 + 1} bytes" in (read_frame(path, "P/L/f.raw", settings).unreadable or "")


@pytest.mark.parametrize(
    ("sidecar", "reason"),
    [
        ("{", "sidecar f.raw.json"),
        (json.dumps({"width": -1}), "width"),
        (json.dumps({"width": 320, "height": 240, "layout": "raw11"}), "layout"),
        (json.dumps({"width": 320, "layout": "raw10"}), "height"),
        (json.dumps({"width": 322, "height": 1, "layout": "raw10"}), "wants 403"),
        (
            json.dumps({"width": 4, "height": 4, "layout": "raw10", "stride": 4}),
            "20 bytes, 4x4 raw10, stride 4 wants 16",
        ),
    ],
)
def test_a_wrong_sidecar_is_named(tmp_path: Path, sidecar: str, reason: str) -> None:
    path = tmp_path / "f.raw"
    path.write_bytes(bytes(20))
    (tmp_path / "f.raw.json").write_text(sidecar)
    assert reason in refusal(path)


def test_a_sidecar_names_the_die_of_any_format(tmp_path: Path) -> None:
    path = write_frame(tmp_path, "f", dark(), bits=10, format_name="tiff")
    (tmp_path / "f.tif.json").write_text(json.dumps({"wafer": "7", "die": [3, -4], "operator": "jo"}))
    identity = read_frame(path, "P/L/f.tif", SETTINGS).identity
    assert (identity.wafer, identity.die) == ("7", (3, -4))


def test_a_file_that_is_gone_is_no_frame(tmp_path: Path) -> None:
    with pytest.raises(FrameVanishedError):
        read_frame(tmp_path / "gone.tif", "gone.tif", SETTINGS)


def write_dng(path: Path, samples: NDArray[np.uint16]) -> None:
    """A colour filter array as cameras write it."""
    tags = [
        (50706, 1, 4, b"\x01\x04\x00\x00", True), (50708, 2, 0, "Umbra Test", True), (33421, 3, 2, (2, 2), True),
        (33422, 1, 4, b"\x00\x01\x01\x02", True), (50717, 3, 1, 4095, True),
        (50721, 10, 9, (1, 1, 0, 1, 0, 1, 0, 1, 1, 1, 0, 1, 0, 1, 0, 1, 1, 1), True),
        (50728, 5, 3, (1, 1, 1, 1, 1, 1), True),
    ]  # fmt: skip
    tifffile.imwrite(path, samples, photometric=32803, extratags=tags, metadata=None, subfiletype=0)


def test_dng_gives_its_raw_samples(tmp_path: Path) -> None:
    path = tmp_path / "f.dng"
    samples = dark(240, 320, pedestal=256, sigma=9)
    write_dng(path, samples)
    frame = read_frame(path, path.name, SETTINGS)
    assert frame.unreadable is None
    assert frame.raw is not None
    np.testing.assert_array_equal(unpack(frame.raw), samples)
