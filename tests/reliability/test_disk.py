"""Disks that fill, on a small real one."""

from __future__ import annotations

from pathlib import Path

from tests.reliability.spaces import full_disk, in_spaces, low_disk


def test_a_full_disk_loses_nothing_at_any_step(tmp_path: Path) -> None:
    in_spaces(full_disk, tmp_path)


def test_below_the_mark_nothing_is_screened(tmp_path: Path) -> None:
    in_spaces(low_disk, tmp_path)
