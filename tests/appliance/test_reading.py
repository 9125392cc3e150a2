"""What cannot be opened: the file's own fault, the share's, or this process's."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from appliance.errors import FrameVanishedError, OutOfServiceError
from appliance.reading import open_frame


@pytest.mark.parametrize(
    ("number", "fate"),
    [
        (errno.EACCES, "cannot be opened: Permission denied"),
        (errno.EIO, "cannot be opened: Input/output error"),
        (errno.ENOENT, FrameVanishedError),
        (errno.ESTALE, FrameVanishedError),
        (errno.ENOTCONN, FrameVanishedError),
        (errno.EHOSTDOWN, FrameVanishedError),
        (errno.EMFILE, OutOfServiceError),
        (errno.ENOMEM, OutOfServiceError),
    ],
)
def test_only_its_own_faults_are_told_of_a_frame(
    number: int, fate: str | type[Exception], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.tif").write_bytes(b"x")
    plain_open = os.open

    def refuse(path: str | Path, flags: int, *args: int, dir_fd: int | None = None) -> int:
        if str(path).endswith("a.tif"):
            raise OSError(number, os.strerror(number))
        return plain_open(path, flags, *args, dir_fd=dir_fd)

    monkeypatch.setattr(os, "open", refuse)
    if isinstance(fate, str):
        assert open_frame(tmp_path, "a.tif").problem == fate
    else:
        with pytest.raises(fate):
            open_frame(tmp_path, "a.tif")
