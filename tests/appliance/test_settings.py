"""umbra.toml: defaults, and errors that name the key."""

from pathlib import Path

import pytest

from appliance.errors import RefusedError
from appliance.settings import Settings, read_settings


def test_a_station_without_settings_has_the_defaults(tmp_path: Path) -> None:
    assert read_settings(tmp_path) == Settings()


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("colour = 1", "colour"),
        ("[watch]\nrescan_s = 0", "watch.rescan_s"),
        ("[watch]\nrescans = 1", "watch.rescans"),
        ("[engine]\nprecision = 'fp8'", "engine.precision"),
        ("[[format]]\nwidth = 4\nheight = 4", "format.0.layout"),
        ("name_pattern = '('", "name_pattern"),
        ("name_pattern = 'abc'", "name_pattern"),
        ("[api]\ntoken_sha256 = 'secret'", "api.token_sha256"),
        ("= 3", "not TOML"),
    ],
)
def test_a_wrong_key_is_named(tmp_path: Path, text: str, named: str) -> None:
    (tmp_path / "umbra.toml").write_text(text)
    with pytest.raises(RefusedError, match=named):
        read_settings(tmp_path)
