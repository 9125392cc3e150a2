"""A bundle is whole or refused; the shipped one keeps its promises."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from engines import Bundle, BundleError, CpuInspector, GoldenGateError, Target, bundle
from engines.build import _alike, build_inspector, check_golden
from engines.bundle import FILES, write_manifest
from engines.inspector import Inspection
from kernels import IMAGE_SIDE, StretchParams

LARGEST_BYTES = 58_000_000


@pytest.fixture
def copy(starter: Bundle, tmp_path: Path) -> Path:
    target = tmp_path / "copy"
    shutil.copytree(starter.folder, target)
    return target


def repack(folder: Path, starter: Bundle, *, score_tolerance: float = 0.05, spec: float | None = None) -> Bundle:
    return write_manifest(
        folder, name="changed", stretch=starter.stretch, threshold=starter.threshold, alpha=starter.alpha,
        spec=spec or starter.spec, score_tolerance=score_tolerance,
    )  # fmt: skip


def test_the_shipped_bundle_is_small_enough(starter: Bundle) -> None:
    assert sum(p.stat().st_size for p in starter.folder.iterdir()) <= LARGEST_BYTES


def test_the_shipped_bundle_passes_its_gate_at_every_precision(starter: Bundle, engine_cache: Path) -> None:
    for precision in Target.OPENVINO.precisions:
        report = check_golden(CpuInspector(starter, precision=precision, cache=engine_cache))
        assert report.flips == 0
        assert report.score_difference <= starter.score_tolerance


@pytest.mark.parametrize("alpha", [1.0, 2.0, 4.0])
def test_a_map_that_doubts_everything_is_not_the_clean_one_of_the_golden_frame(starter: Bundle, alpha: float) -> None:
    clean = replace(starter.golden()[0], m_alpha=0.0)
    same = Inspection(p=clean.p, level=clean.level)
    for s, passes in ((0.3, False), (0.02, True)):
        assert _alike(same, IMAGE_SIDE**2 * s**alpha, clean, alpha) is passes


@pytest.mark.parametrize("name", FILES)
def test_a_changed_file_is_named(copy: Path, name: str) -> None:
    with (copy / name).open("ab") as file:
        file.write(b"x")
    with pytest.raises(BundleError, match=f"{name} has SHA-256"):
        bundle.load(copy)


@pytest.mark.parametrize("name", [*FILES, "bundle.toml"])
def test_a_missing_file_is_named(copy: Path, name: str) -> None:
    (copy / name).unlink()
    with pytest.raises(BundleError, match=name):
        bundle.load(copy)


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [("format = 1", "format = 2", "format 2"), ("[stretch]", "[stretch", "cannot be read"), ("k = 6.0", "k = -1", "above 0"),
     ("alpha = 4.0", "beta = 4.0", "alpha")],
)  # fmt: skip
def test_a_wrong_manifest_says_what_is_wrong(copy: Path, before: str, after: str, message: str) -> None:
    manifest = copy / "bundle.toml"
    text = manifest.read_text()
    assert before in text
    manifest.write_text(text.replace(before, after))
    with pytest.raises(BundleError, match=message):
        bundle.load(copy)


def test_an_unknown_bundle_is_named() -> None:
    with pytest.raises(BundleError, match="nobody"):
        bundle.find("nobody")


def test_the_identity_changes_with_any_byte(copy: Path, starter: Bundle) -> None:
    assert bundle.load(copy).identity == starter.identity
    assert repack(copy, starter).digest != starter.digest


def test_the_gate_stops_an_engine_that_measures_otherwise(copy: Path, starter: Bundle) -> None:
    expected = json.loads((copy / "golden.json").read_text())
    first = min(expected)
    expected[first]["score"] += 0.2
    (copy / "golden.json").write_text(json.dumps(expected))
    with pytest.raises(GoldenGateError, match=r"differ by up to 0\.2"):
        build_inspector(repack(copy, starter))


def test_the_gate_stops_a_flip_however_small(copy: Path, starter: Bundle) -> None:
    expected = json.loads((copy / "golden.json").read_text())
    name = max(expected, key=lambda k: expected[k]["score"])
    score = expected[name]["score"]
    spec = min(0.999, score - 0.001)
    expected[name]["score"] = spec - 0.001
    (copy / "golden.json").write_text(json.dumps(expected))
    with pytest.raises(GoldenGateError, match="1 verdict flips"):
        build_inspector(repack(copy, starter, spec=spec))


def test_the_gate_needs_golden_frames(copy: Path, starter: Bundle) -> None:
    (copy / "golden.json").write_text("{}")
    with pytest.raises(BundleError, match=r"golden.npz holds \d+ frames, golden.json 0"):
        build_inspector(repack(copy, starter))


def test_a_name_with_a_path_in_it_is_refused(copy: Path) -> None:
    with pytest.raises(BundleError, match="wanted letters"):
        write_manifest(
            copy, name="../x", stretch=StretchParams(), threshold=0.5, alpha=2, spec=0.3, score_tolerance=0.1
        )
