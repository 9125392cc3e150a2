"""`make golden`: write the golden cases anew. Look at why they changed before committing."""

from __future__ import annotations

import gzip
import hashlib
import json
import zlib
from pathlib import Path

import numpy as np
import tifffile

from appliance.formats import FORMATS, write_frame
from kernels import Layout, StretchParams, Tone
from kernels.packing import reference as packing
from kernels.reduce import reference as reduce
from kernels.stretch import reference as stretch

HERE = Path(__file__).parent
CORPUS = HERE / "decode"
TONES = {
    "linear": StretchParams(k=3, z_range=16, tone=Tone.LINEAR),
    "asinh": StretchParams(),
    "midtones": StretchParams(k=6, z_range=16, tone=Tone.MIDTONES, tone_parameter=0.3),
}
WIDTH, HEIGHT = 40, 30


def main() -> None:
    """Write all cases."""
    rng = np.random.default_rng(20261120)
    _kernels(rng)
    _corpus(rng)


def _kernels(rng: np.random.Generator) -> None:
    samples = np.clip(np.rint(rng.normal(300, 4, (251, 229))), 0, 1023).astype(np.uint16)
    samples[::2, ::2] += 7  # a CFA plane of its own
    samples[rng.random(samples.shape) < 1e-3] = 1023
    samples[80:120, 60:110] += 6
    images = {name: stretch.stretch(samples, params)[0][::8, ::8] for name, params in TONES.items()}
    noise = stretch.stretch(samples, TONES["asinh"])[1]
    logits = rng.normal(-1, 2, (2, 48, 40)).astype(np.float32)
    s = reduce.unseen_map(logits)
    m_thresh, m_alpha, histogram = reduce.metrics(s, threshold=0.5, alpha=2.0)
    np.savez_compressed(HERE / "kernels.npz", samples=samples, logits=logits, histogram=histogram, s=s.astype(np.float32),
                        numbers=np.array([noise.median_dn, noise.sigma_dn, m_thresh, m_alpha]), **images)  # type: ignore[arg-type]  # fmt: skip


def _corpus(rng: np.random.Generator) -> None:
    CORPUS.mkdir(exist_ok=True)
    for old in CORPUS.iterdir():
        old.unlink()
    expected: dict[str, dict[str, str]] = {}
    for bits in (8, 10, 14):
        samples = rng.integers(0, 1 << bits, (HEIGHT, WIDTH)).astype(np.uint16)
        for name in FORMATS:
            if (name == "raw10" and bits > 10) or (name == "raw12" and bits > 12):
                continue
            path = write_frame(CORPUS, f"{name}-{bits}", samples, bits=bits, format_name=name)
            expected[path.name] = {"expect": "decode", "sha256_u16le": _digest(samples)}
    for compression in ("zlib", "lzw", "packbits", "zstd"):
        path = CORPUS / f"tiff-{compression}.tif"
        tifffile.imwrite(path, samples, compression=compression, rowsperstrip=7)
        expected[path.name] = {"expect": "decode", "sha256_u16le": _digest(samples)}
    _inverted(expected, samples)
    _broken(expected)
    (CORPUS / "expected.json").write_text(json.dumps(expected, indent=1, sort_keys=True) + "\n")


def _inverted(expected: dict[str, dict[str, str]], samples: np.ndarray[tuple[int, ...], np.dtype[np.uint16]]) -> None:
    """WhiteIsZero and big-endian samples are taken as stored; a gzipped FITS is inflated."""
    tifffile.imwrite(CORPUS / "white-is-zero.tif", samples, photometric="miniswhite")
    tifffile.imwrite(CORPUS / "big-endian.tif", samples, byteorder=">", photometric="minisblack")
    tifffile.imwrite(CORPUS / "bigtiff.tif", samples, bigtiff=True, photometric="minisblack")
    (CORPUS / "fits.fits.gz").write_bytes(gzip.compress((CORPUS / "fits-14.fits").read_bytes(), mtime=0))
    for name in ("white-is-zero.tif", "big-endian.tif", "bigtiff.tif", "fits.fits.gz"):
        expected[name] = {"expect": "decode", "sha256_u16le": _digest(samples)}


def _broken(expected: dict[str, dict[str, str]]) -> None:
    """Files that must be refused, each with a word of its reason."""
    whole = {name: (CORPUS / name).read_bytes() for name in ("tiff-14.tif", "png-14.png", "npy-14.npy", "pgm-14.pgm")}
    png = whole["png-14.png"]
    wide = png[8:16] + (1 << 20).to_bytes(4, "big") * 2 + png[24:29]
    broken = {
        "empty.tif": (b"", "empty"),
        "text.png": (b"not an image", "no known image format"),
        "half.tif": (whole["tiff-14.tif"][:-800], "truncated"),
        "half.png": (png[: len(png) // 2], "PNG"),
        "half.npy": (whole["npy-14.npy"][:-3], "NPY"),
        "half.pgm": (whole["pgm-14.pgm"][:-3], "PGM"),
        "huge.png": (png[:8] + wide + zlib.crc32(wide[4:]).to_bytes(4, "big") + png[33:], "limit"),
        "orphan.raw": (bytes(2400), "no geometry"),
    }
    for name, (content, reason) in broken.items():
        (CORPUS / name).write_bytes(content)
        expected[name] = {"expect": "refuse", "reason": reason}
    rgb = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    tifffile.imwrite(CORPUS / "colour.tif", rgb, photometric="rgb")
    expected["colour.tif"] = {"expect": "refuse", "reason": "grey"}
    short = packing.pack(np.zeros((HEIGHT, WIDTH), np.uint16), Layout.RAW10).packed[:-7]
    short.tofile(CORPUS / "short.raw")
    (CORPUS / "short.raw.json").write_text(json.dumps({"width": WIDTH, "height": HEIGHT, "layout": "raw10"}) + "\n")
    expected["short.raw"] = {"expect": "refuse", "reason": "1493 bytes"}


def _digest(samples: np.ndarray[tuple[int, ...], np.dtype[np.uint16]]) -> str:
    return hashlib.sha256(samples.astype("<u2").tobytes()).hexdigest()


if __name__ == "__main__":
    main()
