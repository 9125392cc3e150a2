"""A bundle: three networks, stretch parameters, golden frames and a default spec in one hashed folder."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import tomllib
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from engines.errors import BundleError
from engines.reference import Reference
from kernels import RawFrame, StretchParams, Tone

FORMAT = 1
MODEL_FILES = {"classifier": "classifier.onnx", "regressor": "regressor.onnx", "unseen": "unseen.onnx"}
GOLDEN_FRAMES, GOLDEN_EXPECTED = "golden.npz", "golden.json"
FILES = (*MODEL_FILES.values(), GOLDEN_FRAMES, GOLDEN_EXPECTED)
HASH_DIGITS = 12
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_NAME_RULE = "wanted letters, digits, dots, dashes and underscores, a letter or digit first"
SHIPPED = Path(__file__).parent / "bundles"


@dataclass(frozen=True, slots=True)
class GoldenFrame:
    """A frame and what its bundle measured on it when it was packed.

    Attributes:
        frame: the raw frame.
        p: probabilities of OK, Spot, Diagonal, Error.
        level, score, m_alpha: as in a Measurement.
    """

    frame: RawFrame
    p: tuple[float, float, float, float]
    level: float
    score: float
    m_alpha: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """A bundle whose hashes have been checked.

    Attributes:
        folder: where it lies.
        name: letters, digits, dots and dashes.
        digest: 64 hex digits: SHA-256 of bundle.toml, which holds the hashes of all other files.
        stretch: eq. 8's k, Z and tone.
        threshold, alpha: eq. 5-6's t and alpha.
        spec: default limit on the score.
        score_tolerance: largest difference of a golden score.
        reference: what it measured on its test set; None where nobody had it measured.
    """

    folder: Path
    name: str
    digest: str
    stretch: StretchParams
    threshold: float
    alpha: float
    spec: float
    score_tolerance: float
    reference: Reference | None = None

    @property
    def identity(self) -> str:
        """name@hash12, as verdicts carry it."""
        return f"{self.name}@{self.digest[:HASH_DIGITS]}"

    def model(self, role: str) -> Path:
        """The ONNX file of a role."""
        return self.folder / MODEL_FILES[role]

    def golden(self) -> list[GoldenFrame]:
        """The golden frames with what is expected of them.

        Raises:
            BundleError: the two golden files do not fit together.
        """
        try:
            return self._read_golden()
        except (KeyError, TypeError, ValueError, zipfile.BadZipFile) as error:
            raise BundleError(f"bundle {self.name}: golden frames cannot be read: {error!r}") from error

    def _read_golden(self) -> list[GoldenFrame]:
        expected = json.loads((self.folder / GOLDEN_EXPECTED).read_text())
        with np.load(self.folder / GOLDEN_FRAMES, allow_pickle=False) as frames:
            if sorted(frames.files) != sorted(expected):
                raise BundleError(f"bundle {self.name}: {GOLDEN_FRAMES} holds {len(frames.files)} frames, "
                                  f"{GOLDEN_EXPECTED} {len(expected)}; wanted the same names")  # fmt: skip
            return [
                GoldenFrame(RawFrame.from_samples(frames[name], bits=row["bits"]), tuple(row["p"]), row["level"],
                            row["score"], row["m_alpha"])
                for name, row in sorted(expected.items())
            ]  # fmt: skip


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, 64 hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def load(folder: Path) -> Bundle:
    """Read a bundle and check every hash.

    Raises:
        BundleError: no bundle there, another format, a missing or changed file, or parameters out of range.
    """
    manifest = folder / "bundle.toml"
    if not manifest.is_file():
        raise BundleError(f"bundle {folder}: no bundle.toml there")
    text = manifest.read_bytes()
    try:
        table = tomllib.loads(text.decode())
    except ValueError as error:
        raise BundleError(f"bundle {folder}: bundle.toml cannot be read: {error}") from error
    if table.get("format") != FORMAT:
        raise BundleError(f"bundle {folder}: format {table.get('format')}, wanted {FORMAT}")
    try:
        _check_files(folder, table["files"])
        return _from_table(folder, table, hashlib.sha256(text).hexdigest())
    except (KeyError, TypeError, ValueError) as error:
        raise BundleError(f"bundle {folder}: bundle.toml: {error!r}") from error


def _check_files(folder: Path, hashes: Mapping[str, str]) -> None:
    if strangers := {p.name for p in folder.iterdir()} - {*FILES, "bundle.toml"}:
        raise BundleError(f"bundle {folder}: {', '.join(sorted(strangers))} does not belong there; no hash covers it")
    for name in FILES:
        path = folder / name
        if not path.is_file() or name not in hashes:
            raise BundleError(f"bundle {folder}: {name} is missing")
        if (found := file_sha256(path)) != hashes[name]:
            raise BundleError(
                f"bundle {folder}: {name} has SHA-256 {found[:12]}.., bundle.toml says {hashes[name][:12]}.."
            )


def _from_table(folder: Path, table: dict[str, dict[str, float]], digest: str) -> Bundle:
    stretch = dict(table["stretch"])
    tone = Tone[str(stretch.pop("tone")).upper()]
    bundle = Bundle(
        folder=folder, name=str(table["name"]), digest=digest, stretch=StretchParams(tone=tone, **stretch),
        threshold=float(table["unseen"]["threshold"]), alpha=float(table["unseen"]["alpha"]),
        spec=float(table["decision"]["spec"]), score_tolerance=float(table["golden"]["score_tolerance"]),
        reference=Reference.from_table(table["reference"]) if "reference" in table else None,
    )  # fmt: skip
    if not _NAME.fullmatch(bundle.name):
        raise ValueError(f"name {bundle.name!r}: {_NAME_RULE}")
    if not 0 < bundle.score_tolerance < 1:
        raise ValueError(f"score_tolerance {bundle.score_tolerance}: wanted a number in (0, 1)")
    if not (0 < bundle.spec < 1 and 0 < bundle.threshold < 1 and bundle.alpha > 0):
        raise ValueError(f"spec {bundle.spec}, threshold {bundle.threshold}: wanted (0, 1); alpha {bundle.alpha}: > 0")
    return bundle


def check_name(name: str) -> None:
    """Refuse what cannot be a bundle's name.

    Raises:
        BundleError: it has other characters than letters, digits, dots, dashes and underscores.
    """
    if not _NAME.fullmatch(name):
        raise BundleError(f"bundle name {name!r}: {_NAME_RULE}")


def write_manifest(
    folder: Path, *, name: str, stretch: StretchParams, threshold: float, alpha: float, spec: float,
    score_tolerance: float, training: Mapping[str, str] | None = None,
) -> Bundle:  # fmt: skip
    """Write bundle.toml over the files already in a folder, and load the result.

    Args:
        folder: holds FILES.
        name: letters, digits, dots, dashes and underscores.
        stretch, threshold, alpha, spec, score_tolerance: as in Bundle.
        training: free text about where the networks come from.

    Raises:
        BundleError: a file is missing or the name has other characters.
    """
    check_name(name)
    if missing := [f for f in FILES if not (folder / f).is_file()]:
        raise BundleError(f"bundle {folder}: {', '.join(missing)} missing")
    lines = [
        f"format = {FORMAT}",
        f'name = "{name}"',
        "",
        "[stretch]",
        f"k = {stretch.k}",
        f"z_range = {stretch.z_range}",
        f'tone = "{stretch.tone.name.lower()}"',
        f"tone_parameter = {stretch.tone_parameter}",
        "",
        "[unseen]",
        f"threshold = {threshold}",
        f"alpha = {alpha}",
        "",
        "[decision]",
        f"spec = {spec}",
        "",
        "[golden]",
        f"score_tolerance = {score_tolerance}",
        "",
        "[files]",
        *(f'"{f}" = "{file_sha256(folder / f)}"' for f in FILES),
    ]
    if training:
        lines += ["", "[training]", *(f"{key} = {json.dumps(value)}" for key, value in training.items())]
    (folder / "bundle.toml").write_text("\n".join(lines) + "\n")
    return load(folder)


def add_reference(source: Bundle, out: Path, reference: Reference) -> Bundle:
    """Write the same bundle with what it measured on its test set; it has another digest, and measures the same.

    Args:
        source: the bundle.
        out: folder to write; made.
        reference: in the place of one that it had.
    """
    out.mkdir(parents=True)
    for name in FILES:
        shutil.copyfile(source.folder / name, out / name)
    text = (source.folder / "bundle.toml").read_text(encoding="utf-8")
    kept = re.sub(r"\n*^\[reference\]\n(?:(?!\[).*\n?)*", "\n", text, flags=re.MULTILINE).rstrip("\n")
    lines = reference.to_toml(json.dumps(reference.source, ensure_ascii=False))
    (out / "bundle.toml").write_text("\n".join([kept, "", *lines]) + "\n", encoding="utf-8")
    return load(out)


def find(name: str, *folders: Path) -> Path:
    """The folder of a bundle by path or by name, looked for in `folders`, then among the shipped ones.

    Raises:
        BundleError: none of that name.
    """
    direct = Path(name)
    if (direct / "bundle.toml").is_file():
        return direct
    for folder in (*folders, SHIPPED):
        if (folder / name / "bundle.toml").is_file():
            return folder / name
    raise BundleError(f"bundle {name!r}: neither a bundle folder nor known by that name")


def listed(*folders: Path) -> list[Path]:
    """Every bundle folder in `folders` and among the shipped ones."""
    return [p.parent for folder in (*folders, SHIPPED) for p in sorted(folder.glob("*/bundle.toml"))]
