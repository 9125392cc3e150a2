"""Samples -> files of each format that stations read; for `umbra simulate`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from appliance.sidecar import SIDECAR_SUFFIX
from kernels import Layout
from kernels.packing import reference

Samples = NDArray[np.uint16]
RAW_LAYOUTS = {"raw": Layout.U16LE, "raw10": Layout.RAW10, "raw12": Layout.RAW12, "raw14": Layout.RAW14}
FORMATS = ("tiff", "png", "pgm", "npy", "fits", *RAW_LAYOUTS)


def fits_format(name: str, bits: int) -> bool:
    """Whether a format holds samples of this depth."""
    return name not in RAW_LAYOUTS or bits <= RAW_LAYOUTS[name].storage_bits


def _container(samples: Samples, bits: int) -> NDArray[np.generic]:
    return samples.astype(np.uint8) if bits <= 8 else samples


def _write_tiff(path: Path, samples: Samples, bits: int) -> None:
    import tifffile

    tifffile.imwrite(path, _container(samples, bits), photometric="minisblack")


def _write_image(path: Path, samples: Samples, bits: int) -> None:
    options = [cv2.IMWRITE_PNG_COMPRESSION, 1] if path.suffix == ".png" else []
    _, encoded = cv2.imencode(path.suffix, _container(samples, bits), options)
    path.write_bytes(bytes(encoded))


def _write_npy(path: Path, samples: Samples, bits: int) -> None:
    np.save(path, _container(samples, bits))


def _write_fits(path: Path, samples: Samples, bits: int) -> None:
    from astropy.io import fits

    fits.PrimaryHDU(_container(samples, bits)).writeto(path, overwrite=True)


_WRITERS: dict[str, tuple[str, Callable[[Path, Samples, int], None]]] = {
    "tiff": (".tif", _write_tiff),
    "png": (".png", _write_image),
    "pgm": (".pgm", _write_image),
    "npy": (".npy", _write_npy),
    "fits": (".fits", _write_fits),
}


def write_frame(folder: Path, stem: str, samples: Samples, *, bits: int, format_name: str) -> Path:
    """Write samples as one file; headerless ones with their sidecar, which comes first.

    Args:
        folder: where; made.
        stem: file name without suffix.
        samples: (h, w) uint16, DN.
        bits: depth, 8..16.
        format_name: one of FORMATS that holds this depth.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if format_name not in RAW_LAYOUTS:
        suffix, writer = _WRITERS[format_name]
        path = folder / f"{stem}{suffix}"
        writer(path, samples, bits)
        return path
    packed = reference.pack(samples, RAW_LAYOUTS[format_name])
    path = folder / f"{stem}.raw"
    geometry = {"width": packed.width, "height": packed.height, "layout": packed.layout.name.lower(),
                "stride": packed.stride, "bits": bits}  # fmt: skip
    path.with_name(path.name + SIDECAR_SUFFIX).write_text(json.dumps(geometry) + "\n")
    packed.packed.tofile(path)
    return path
