"""The CUDA kernels as nvcc compiled them: for which GPUs, and how well."""

import re
from pathlib import Path

import pytest

from benchmarks.gpu import compiled
from benchmarks.harness import RESULTS
from kernels import fatbin
from kernels.errors import FatbinError
from kernels.fatbin import Code

MACHINE = (75, 80, 86, 87, 89, 90, 100, 120)


@pytest.mark.parametrize("kernel", fatbin.KERNELS)
def test_there_is_code_for_every_gpu_since_turing(kernel: str) -> None:
    assert fatbin.path_of(kernel).read_bytes()[:4] == bytes.fromhex("50ed55ba")  # an ELF object would not load
    parts = fatbin.contents(kernel)
    assert {p.capability for p in parts if p.machine} == set(MACHINE)
    assert {p.capability for p in parts if not p.machine} == {90, 120}


@pytest.mark.parametrize("kernel", fatbin.KERNELS)
def test_the_compiler_spilt_no_register(kernel: str) -> None:
    report = fatbin.path_of(kernel).with_suffix(".ptxas").read_text()
    functions = re.findall(r"Compiling entry function '(\w+)' for 'sm_(\d+)'", report)
    spilt = re.findall(r"(\d+) bytes spill stores", report)
    assert {int(arch) for _, arch in functions} == set(MACHINE)
    assert len(spilt) >= len(functions)
    assert set(spilt) == {"0"}


def test_the_report_that_is_kept_is_of_these_kernels() -> None:
    """By registers, shared memory and spills; the build takes the nvcc that is pinned before a machine's own."""
    kept = (RESULTS / "cuda-kernels.txt").read_text()
    ours, theirs = ([line for line in text.splitlines() if line.count("/") > 2] for text in (compiled.report(), kept))
    assert len(ours) == 11
    assert ours == theirs


@pytest.mark.parametrize(
    ("capability", "runs"), [(70, False), (75, True), (88, True), (103, True), (110, True), (121, True)]
)
def test_which_gpus_they_fit(capability: int, runs: bool) -> None:
    assert fatbin.fits(capability) is runs


def test_machine_code_stays_within_its_major_version() -> None:
    assert Code(machine=True, capability=86).runs_on(89)
    assert not Code(machine=True, capability=86).runs_on(80)
    assert not Code(machine=True, capability=90).runs_on(100)
    assert Code(machine=False, capability=90).runs_on(100)


@pytest.mark.parametrize("damage", [b"", b"\x7fELF" + bytes(60), bytes.fromhex("50ed55ba") + bytes(60)])
def test_what_is_no_fatbin_is_named(damage: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "stretch.fatbin"
    monkeypatch.setattr(fatbin, "path_of", lambda kernel: path)
    with pytest.raises(FatbinError, match=r"stretch.fatbin: not built; the build found no nvcc"):
        fatbin.contents("stretch")
    path.write_bytes(damage)
    with pytest.raises(FatbinError, match=r"stretch.fatbin: not a fatbin"):
        fatbin.contents("stretch")
