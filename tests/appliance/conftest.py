"""Shared by the tests of the appliance: a running screener."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from appliance.station import Station
from tests.appliance.running import Daemon


@pytest.fixture
def daemon(station: Station) -> Iterator[Daemon]:
    running = Daemon(station, api=False)
    running.wait_ready()
    yield running
    running.stop()
