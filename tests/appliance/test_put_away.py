"""A judged file is put away whole, or stays; what took its name meanwhile stays where it was dropped."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from pathlib import Path

import pytest

from appliance import put_away as module
from appliance.put_away import places_of, put_away
from appliance.reading import UNREAD
from appliance.station import Station
from appliance.watch import Fingerprint, fingerprint_of

RELATIVE = "P/L/a.raw"
SHA256 = hashlib.sha256(b"judged").hexdigest()


def drop_raw(station: Station, content: bytes = b"judged", relative: str = RELATIVE) -> tuple[Path, Fingerprint]:
    path = station.inbox / relative
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = station.root / "scratch"
    scratch.write_bytes(content)
    scratch.rename(path)
    seen = fingerprint_of(path)
    assert seen is not None
    return path, seen


@pytest.fixture
def two_disks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Renaming out of the inbox fails as it does from one file system to another."""
    rename = Path.rename

    def refuse(self: Path, target: Path) -> Path:
        if "inbox" in self.parts and "inbox" not in Path(target).parts:
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", refuse)


def test_a_file_goes_to_its_place_with_its_sidecar(station: Station) -> None:
    path, seen = drop_raw(station)
    path.with_name("a.raw.json").write_text("{}")
    target = put_away(path, seen, station.done, RELATIVE, SHA256)
    assert target == station.done / RELATIVE
    assert (station.done / "P/L/a.raw.json").read_text() == "{}"
    assert not list((station.inbox / "P" / "L").iterdir())


@pytest.mark.usefixtures("two_disks")
def test_over_to_another_disk_the_copy_is_whole_before_the_source_goes(station: Station) -> None:
    path, seen = drop_raw(station)
    assert put_away(path, seen, station.done, RELATIVE, SHA256) == station.done / RELATIVE
    assert (station.done / RELATIVE).read_bytes() == b"judged"
    assert not path.exists()
    assert [p.name for p in (station.done / "P" / "L").iterdir()] == ["a.raw"]


@pytest.mark.usefixtures("two_disks")
def test_a_file_replaced_while_it_is_copied_is_not_lost(station: Station, monkeypatch: pytest.MonkeyPatch) -> None:
    path, seen = drop_raw(station)
    copy = shutil.copy2

    def slow(source: Path, target: Path, *, follow_symlinks: bool) -> None:
        copy(source, target, follow_symlinks=follow_symlinks)
        drop_raw(station, b"never judged")

    monkeypatch.setattr(shutil, "copy2", slow)
    assert put_away(path, seen, station.done, RELATIVE, SHA256) is None
    assert path.read_bytes() == b"never judged"
    assert not [p for p in station.done.rglob("*") if p.is_file()]


@pytest.mark.parametrize("once_more", [False, True])
def test_a_file_replaced_just_before_the_rename_goes_back(
    once_more: bool, station: Station, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, seen = drop_raw(station)
    rename = Path.rename
    others = [b"never judged", b"a third"] if once_more else [b"never judged"]

    def late(self: Path, target: Path) -> Path:
        if "done" in Path(target).parts and others:
            drop_raw(station, others.pop(0))
            moved = rename(self, target)
            if others:
                drop_raw(station, others.pop(0))
            return moved
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", late)
    assert put_away(path, seen, station.done, RELATIVE, SHA256) is None
    monkeypatch.undo()
    left = sorted(p.read_bytes() for p in station.inbox.rglob("*.raw"))
    assert left == ([b"a third", b"never judged"] if once_more else [b"never judged"])
    assert not [p for p in station.done.rglob("*") if p.is_file()]


def test_files_of_one_name_that_never_were_read_all_stay(station: Station) -> None:
    for n in range(4):
        path, seen = drop_raw(station, b"closed %d" % n)
        assert put_away(path, seen, station.quarantine, RELATIVE, UNREAD) is not None
    kept = {p.name: p.read_bytes() for p in station.quarantine.rglob("*.raw")}
    assert kept == {
        "a.raw": b"closed 0", "a.00000000.raw": b"closed 1", "a.00000000.2.raw": b"closed 2", "a.00000000.3.raw": b"closed 3",
    }  # fmt: skip


def test_the_same_bytes_again_and_again_take_one_more_place(station: Station) -> None:
    for _ in range(4):
        path, seen = drop_raw(station)
        put_away(path, seen, station.done, RELATIVE, SHA256)
    assert sorted(p.name for p in station.done.rglob("*.raw")) == [f"a.{SHA256[:8]}.raw", "a.raw"]


@pytest.mark.parametrize("name", ["漢" * 80 + ".tif", "x" * 250, "a." + "s" * 250, os.fsdecode(b"\xff" * 240) + ".tif"])
def test_names_with_a_hash_fit(name: str, tmp_path: Path) -> None:
    _, hashed = places_of(tmp_path, name, SHA256)
    hashed.write_bytes(b"x")  # the file system takes it
    assert len(os.fsencode(hashed.name)) <= 240, "room for a number and a sidecar's suffix"
    assert f".{SHA256[:8]}" in hashed.name
    assert hashed.name.isascii() or hashed.name[0] == name[0]
    assert name.isprintable() is hashed.name.isprintable(), "cut in the middle of a character"


def test_what_cannot_be_moved_is_an_error_and_stays(station: Station, monkeypatch: pytest.MonkeyPatch) -> None:
    path, seen = drop_raw(station)

    def refuse(*_: object) -> Path:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(OSError, match="Input/output"):
        put_away(path, seen, station.done, RELATIVE, SHA256)
    assert path.exists()


def test_a_file_that_went_is_looked_at_anew(station: Station, monkeypatch: pytest.MonkeyPatch) -> None:
    path, seen = drop_raw(station)
    fingerprint = fingerprint_of

    def and_then_gone(asked: Path) -> Fingerprint | None:
        found = fingerprint(asked)
        path.unlink(missing_ok=True)
        return found

    monkeypatch.setattr(module, "fingerprint_of", and_then_gone)
    assert put_away(path, seen, station.done, RELATIVE, SHA256) is None
