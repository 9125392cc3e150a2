"""A file's bytes -> native samples, 8 to 16 bits (fewer where a file has fewer), with limits before allocating.

Each format has a library of its own; what a library raises on hostile bytes becomes a FrameError here.
"""

from __future__ import annotations

import gzip
import io
import logging
import os
import struct
import warnings
import zlib
from collections.abc import Callable, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from appliance.errors import FrameError
from appliance.settings import LimitSettings, RawFormat, Settings
from appliance.sidecar import Sidecar
from kernels import KernelError, RawFrame

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

HEADERLESS = (".raw", ".bin")
SUFFIXES = (".tif", ".tiff", ".png", ".pgm", ".npy", ".fits", ".fit", ".fts", ".dng", *HEADERLESS)
DNG_VERSION_TAG = 50706
_PNG_IHDR = struct.Struct(">8sI4sIIBBBBBI")

logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # it logs what it also raises


def is_frame_name(name: str) -> bool:
    """Whether a name has the suffix of a frame, .gz or not."""
    return name.lower().removesuffix(".gz").endswith(SUFFIXES)


class _Reader(io.RawIOBase):
    """Bytes in memory as a file, without a copy of them."""

    def __init__(self, content: memoryview) -> None:
        self._content, self._at = content, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: len(self._content)}[whence]
        if base + offset < 0:
            raise ValueError(f"seek to {base + offset}")
        self._at = base + offset
        return self._at

    def readinto(self, to: WriteableBuffer) -> int:
        wanted = memoryview(to).cast("B")
        found = self._content[self._at : self._at + len(wanted)]
        wanted[: len(found)] = found
        self._at += len(found)
        return len(found)


def _file(content: memoryview) -> io.BufferedReader:
    return io.BufferedReader(_Reader(content))


def decode(content: bytes | memoryview, name: str, relative: str, sidecar: Sidecar, settings: Settings) -> RawFrame:
    """Samples of a file's content.

    Args:
        content: all bytes of the file; samples are views of them where the format allows.
        name: file name; .raw and .bin are headerless, all others are told by their first bytes.
        relative: path that [[format]] globs are matched with.
        sidecar: geometry and bits where they are known.
        settings: formats and limits.

    Raises:
        FrameError: empty, unknown, damaged, not one plane of integers, or beyond the limits.
    """
    if not content:
        raise FrameError("empty file")
    content = memoryview(content)
    try:
        if bytes(content[:2]) == b"\x1f\x8b" and (
            name.lower().endswith(".gz") or not name.lower().endswith(HEADERLESS)
        ):
            content = _gunzip(content, settings.limits)
        if name.lower().removesuffix(".gz").endswith(HEADERLESS):
            return _headerless(content, relative, sidecar, settings)
        samples, bits = _decoder_of(content, name)(content, settings.limits)
        bits = sidecar.bits or bits
        container = np.uint8 if samples.dtype.itemsize == 1 else np.uint16
        return RawFrame.from_samples(samples.astype(container, copy=False), bits=bits)
    except KernelError as error:
        raise FrameError(str(error)) from error


def _decoder_of(
    content: memoryview, name: str
) -> Callable[[memoryview, LimitSettings], tuple[NDArray[np.generic], int]]:
    head = bytes(content[:16])
    for magic, decoder in (
        (b"II*\0", _tiff), (b"MM\0*", _tiff), (b"II+\0", _tiff), (b"MM\0+", _tiff), (b"\x89PNG\r\n\x1a\n", _png),
        (b"P5", _pgm), (b"P2", _pgm), (b"\x93NUMPY", _npy), (b"SIMPLE", _fits),
    ):  # fmt: skip
        if head.startswith(magic):
            return decoder
    raise FrameError(f"{Path(name).suffix or 'no suffix'}: first bytes {head[:8].hex(' ')} are no known image format")


def _guarded(kind: str, work: Callable[[], NDArray[np.generic]]) -> NDArray[np.generic]:
    """Run a library's decoder; whatever it raises on hostile bytes becomes a FrameError that names the format."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return work()
    except FrameError:
        raise
    except Exception as error:
        detail = " ".join(str(error).split())[:200]
        raise FrameError(f"{kind}: cannot be decoded: {type(error).__name__}: {detail}") from error


def _check_size(kind: str, width: int, height: int, limits: LimitSettings) -> None:
    if width < 1 or height < 1 or width * height > limits.pixels:
        raise FrameError(f"{kind}: {width}x{height} pixels, limit {limits.pixels}")


def _one_plane(kind: str, samples: NDArray[np.generic], width: int, height: int) -> NDArray[np.generic]:
    """Check that samples are one plane of integers in 0..65535."""
    if samples.shape != (height, width):
        raise FrameError(f"{kind}: samples of shape {samples.shape}, wanted one plane of {height}x{width}")
    if samples.dtype.kind not in "ui":
        raise FrameError(f"{kind}: {samples.dtype} samples, wanted integers")
    if samples.dtype.kind == "i" or samples.dtype.itemsize > 2:
        low, high = int(samples.min()), int(samples.max())
        if low < 0 or high > 65535:
            raise FrameError(f"{kind}: samples from {low} to {high}, wanted 0..65535")
        samples = samples.astype(np.uint16)
    return samples


def _gunzip(content: memoryview, limits: LimitSettings) -> memoryview:
    """Inflate at most `limits.file_bytes`."""
    out = bytearray()
    try:
        with gzip.GzipFile(fileobj=_file(content)) as file:
            while chunk := file.read(1 << 20):
                out += chunk
                if len(out) > limits.file_bytes:
                    raise FrameError(f"gzip: content beyond the limit of {limits.file_bytes} bytes")
    except (OSError, EOFError, zlib.error) as error:
        raise FrameError(f"gzip: {error}") from error
    return memoryview(out)


def _headerless(content: memoryview, relative: str, sidecar: Sidecar, settings: Settings) -> RawFrame:
    geometry = _geometry_of(sidecar, relative, len(content), settings.format)
    _check_size("raw", geometry.width, geometry.height, settings.limits)
    if len(content) not in geometry.file_sizes:
        here = f"{geometry.width}x{geometry.height} {geometry.layout}, stride {geometry.row_stride}"
        raise FrameError(f"raw: {len(content)} bytes, {here} wants {geometry.file_sizes[0]}")
    layout = geometry.kernel_layout
    return RawFrame(
        np.frombuffer(content, np.uint8, offset=geometry.offset), geometry.width, geometry.height, geometry.row_stride, layout,
        geometry.bits or layout.storage_bits,
    )  # fmt: skip


def _geometry_of(sidecar: Sidecar, relative: str, size: int, formats: Sequence[RawFormat]) -> RawFormat:
    if sidecar.width is not None or sidecar.height is not None or sidecar.layout is not None:
        try:
            return RawFormat.model_validate({k: v for k, v in sidecar.model_dump(
                include={"width", "height", "layout", "stride", "offset", "bits"}).items() if v is not None})  # fmt: skip
        except ValidationError as error:
            detail = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
            raise FrameError(f"sidecar: {detail}") from error
    matching = [f for f in formats if fnmatch(relative, f.match)]
    for geometry in matching:
        if size in geometry.file_sizes:
            return geometry
    if matching:
        return matching[0]
    raise FrameError("raw: no geometry: neither a sidecar with width, height and layout, nor a [[format]] that matches")


def _png(content: memoryview, limits: LimitSettings) -> tuple[NDArray[np.generic], int]:
    import imagecodecs

    if len(content) < _PNG_IHDR.size:
        raise FrameError(f"PNG: {len(content)} bytes, too few for a header")
    _, _, kind, width, height, bits, colour, _, _, _, _ = fields = _PNG_IHDR.unpack_from(content)
    if kind != b"IHDR" or colour != 0:
        raise FrameError(f"PNG: colour type {colour}, wanted grey (0)")
    _check_size("PNG", width, height, limits)
    checksum = zlib.crc32(content[12:29])
    if fields[-1] != checksum:
        # The header says what it says; the pixels have checks of their own and must fill just this size.
        content = memoryview(bytes(content[:29]) + struct.pack(">I", checksum) + bytes(content[33:]))
    samples = _guarded("PNG", lambda: imagecodecs.png_decode(content))  # type: ignore[arg-type]
    if samples.ndim == 3:  # a transparent grey level comes as a second channel
        samples = np.ascontiguousarray(samples[:, :, 0])
    if bits < 8:
        samples = np.asarray(samples, np.uint8) // np.uint8(
            255 // ((1 << bits) - 1)
        )  # the library spreads 0..2^bits - 1 over 0..255
    return _one_plane("PNG", samples, width, height), bits


def _pgm(content: memoryview, limits: LimitSettings) -> tuple[NDArray[np.generic], int]:
    import netpbmfile

    def work() -> NDArray[np.generic]:
        with netpbmfile.NetpbmFile(_file(content)) as file:
            _check_size("PGM", file.width, file.height, limits)
            if file.depth != 1 or not 0 < file.maxval <= 65535:
                raise FrameError(f"PGM: {file.depth} channels up to {file.maxval}, wanted one up to 65535")
            samples: NDArray[np.generic] = file.asarray()
            found.append(int(file.maxval).bit_length())
            return _one_plane("PGM", samples.reshape(file.height, file.width), file.width, file.height)

    found: list[int] = []
    return _guarded("PGM", work), found[0]


def _npy(content: memoryview, limits: LimitSettings) -> tuple[NDArray[np.generic], int]:
    def work() -> NDArray[np.generic]:
        file = _file(content)
        version = np.lib.format.read_magic(file)
        read_header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}[
            version
        ]
        shape, fortran, dtype = read_header(file)
        if len(shape) != 2 or dtype.kind not in "ui":
            raise FrameError(f"NPY: {dtype} of shape {shape}, wanted one plane of integers")
        _check_size("NPY", shape[1], shape[0], limits)
        wanted, left = shape[0] * shape[1] * dtype.itemsize, len(content) - file.tell()
        if wanted != left:
            raise FrameError(f"NPY: {left} bytes of samples, wanted {wanted}")
        samples = np.frombuffer(content, dtype, offset=file.tell())
        return samples.reshape(shape, order="F" if fortran else "C")

    samples = _guarded("NPY", work)
    height, width = samples.shape
    return _one_plane("NPY", samples, width, height), 8 * min(2, samples.dtype.itemsize)


def _fits(content: memoryview, limits: LimitSettings) -> tuple[NDArray[np.generic], int]:
    from astropy.io import fits

    def work() -> NDArray[np.generic]:
        with fits.open(_file(content), memmap=False, lazy_load_hdus=True) as units:
            for unit in units:
                if not unit.is_image or unit.header.get("NAXIS", 0) == 0:
                    continue
                shape = unit.shape
                if len(shape) != 2:
                    raise FrameError(f"FITS: {len(shape)} axes {shape}, wanted 2")
                _check_size("FITS", shape[1], shape[0], limits)
                data: NDArray[np.generic] = unit.data
                return data
        raise FrameError("FITS: no image in it")

    samples = _guarded("FITS", work)
    height, width = samples.shape
    return _one_plane("FITS", samples, width, height), 8 * min(2, samples.dtype.itemsize)


def _tiff(content: memoryview, limits: LimitSettings) -> tuple[NDArray[np.generic], int]:
    import tifffile

    bits = 0

    def work() -> NDArray[np.generic]:
        nonlocal bits
        with tifffile.TiffFile(_file(content)) as file:
            page = file.pages.first
            if DNG_VERSION_TAG in page.tags:
                samples, bits = _dng(content, limits)
                return samples
            bits = min(16, page.bitspersample)
            _check_tiff_page(page, len(content), limits)
            if any(not other.is_reduced and not other.is_mask for other in list(file.pages)[1:]):
                raise FrameError(f"TIFF: {len(file.pages)} pages, wanted one frame a file")
            return _one_plane("TIFF", _tiff_plane(page, content), page.imagewidth, page.imagelength)

    return _guarded("TIFF", work), bits


def _tiff_plane(page: object, content: memoryview) -> NDArray[np.generic]:
    """Samples of a checked page: a view of the file where they lie in it in one piece, as they do without compression."""
    if page.is_final and page.dtype.itemsize * 8 == page.bitspersample:  # type: ignore[attr-defined]
        dtype = page.dtype.newbyteorder(page.parent.byteorder)  # type: ignore[attr-defined]
        count = page.imagewidth * page.imagelength  # type: ignore[attr-defined]
        plain = np.frombuffer(content, dtype, count, page.dataoffsets[0])  # type: ignore[attr-defined]
        return plain.reshape(page.imagelength, page.imagewidth)  # type: ignore[attr-defined]
    decoded: NDArray[np.generic] = page.asarray()  # type: ignore[attr-defined]
    return decoded


def _check_tiff_page(page: object, size: int, limits: LimitSettings) -> None:
    """Refuse what is no grey plane, and a page whose strips do not lie in the file."""
    width, height = page.imagewidth, page.imagelength  # type: ignore[attr-defined]
    _check_size("TIFF", width, height, limits)
    if page.samplesperpixel != 1 or page.imagedepth != 1 or page.photometric not in (0, 1, 32803):  # type: ignore[attr-defined]
        raise FrameError(f"TIFF: {page.samplesperpixel} samples a pixel, photometric {page.photometric}, wanted grey")  # type: ignore[attr-defined]
    if page.dtype is None or page.dtype.kind not in "ui" or page.bitspersample > 32:  # type: ignore[attr-defined]
        raise FrameError(f"TIFF: {page.bitspersample} bits of {page.dtype}, wanted integers")  # type: ignore[attr-defined]
    segments = list(zip(page.dataoffsets, page.databytecounts, strict=True))  # type: ignore[attr-defined]
    if not segments or any(count <= 0 or offset <= 0 or offset + count > size for offset, count in segments):
        raise FrameError(f"TIFF: a strip lies outside of the file of {size} bytes: truncated")
    if page.compression == 1 and sum(c for _, c in segments) < (width * page.bitspersample + 7) // 8 * height:  # type: ignore[attr-defined]
        raise FrameError("TIFF: fewer bytes in its strips than its size wants: truncated")


def _dng(content: memoryview, limits: LimitSettings) -> tuple[NDArray[np.generic], int]:
    import rawpy

    with rawpy.RawPy() as raw:
        raw.open_buffer(_file(content))
        sizes = raw.sizes
        _check_size("DNG", sizes.raw_width, sizes.raw_height, limits)
        raw.unpack()
        samples: NDArray[np.generic] = raw.raw_image.copy()
        bits = int(raw.white_level).bit_length() if raw.white_level else 16
    return _one_plane("DNG", samples, sizes.raw_width, sizes.raw_height), min(16, bits)
