"""Screening on hold: by a person at the station or over HTTP, over restarts, and nothing dropped meanwhile is lost."""

from __future__ import annotations

import hashlib
from contextlib import closing

import httpx
import pytest

from appliance import pause as pauses
from appliance.station import Station
from appliance.verdict_log import VerdictLog
from tests.appliance.running import Daemon, drop, outbox, wait_until
from tests.appliance.test_cli import umbra
from tests.appliance.test_decide import frame
from tests.appliance.test_verdict_log import row_of

TOKEN = "a token"  # noqa: S105
SIGNED = {"Authorization": f"Bearer {TOKEN}"}


@pytest.fixture
def guarded(station: Station) -> Station:
    digest = hashlib.sha256(TOKEN.encode()).hexdigest()
    settings = station.root / "umbra.toml"
    before = settings.read_text() if settings.exists() else ""
    settings.write_text(before.replace("[api]", f'[api]\ntoken_sha256 = "{digest}"'))
    return Station.open(station.root)


def reasons(station: Station) -> list[str]:
    state = station.read_state()
    assert state is not None
    found: list[str] = state["reasons"]
    return found


def test_a_pause_holds_over_a_restart_and_loses_nothing(station: Station) -> None:
    first = Daemon(station, api=False)
    first.wait_ready()
    drop(station, "before")
    wait_until(lambda: "P/L/before.json" in outbox(station), "judged before the pause")
    umbra("pause", "--why", "new light source", "--who", "jo", "--station", station.root)
    wait_until(lambda: reasons(station) == ["paused by jo: new light source"], "the pause is told")
    for number in range(3):
        drop(station, f"meanwhile{number}", seed=number)
    wait_until(lambda: (station.read_state() or {})["backlog"] == 3, "they wait and are counted")
    assert first.stop() == 0
    second = Daemon(station, api=False)
    wait_until(lambda: reasons(station) == ["paused by jo: new light source"], "paused still")
    assert len(outbox(station)) == 1
    umbra("resume", "--who", "kim", "--station", station.root)
    wait_until(lambda: len(outbox(station)) == 4, "all of them are judged")
    wait_until(lambda: reasons(station) == [], "ready again")
    assert second.stop() == 0


def test_a_file_that_changes_during_a_pause_is_judged_as_it_is_afterwards(station: Station) -> None:
    running = Daemon(station, api=False)
    running.wait_ready()
    umbra("pause", "--station", station.root)
    for seed in (1, 2, 3):
        (station.inbox / "P/L/part.tif").unlink(missing_ok=True)
        dropped = drop(station, "part", seed=seed)
        wait_until(lambda: (station.read_state() or {})["backlog"] == 1, "seen")
    wanted = hashlib.sha256(dropped.read_bytes()).hexdigest()
    umbra("resume", "--station", station.root)
    wait_until(lambda: "P/L/part.json" in outbox(station), "judged")
    wait_until(lambda: not dropped.exists(), "put away")
    assert outbox(station)["P/L/part.json"]["sha256"] == wanted
    with closing(VerdictLog(station.database, readonly=True)) as log:
        assert log.last_seq() == 1
        assert log.events("frame.vanished") == []
    assert running.stop() == 0


def test_what_was_committed_before_a_kill_is_published_though_paused(station: Station) -> None:
    with closing(VerdictLog(station.database)) as log:
        log.record(frame(), row_of("P/L/a.tif"))
        pauses.pause(log, who="jo\udcff", why="lens")
    running = Daemon(station, api=False)
    wait_until(lambda: "P/L/a.json" in outbox(station), "published")
    assert reasons(station) == ["paused by jo\\xff: lens"]
    assert running.stop() == 0


def test_a_pause_over_http_wants_the_token_and_is_told(guarded: Station) -> None:
    running = Daemon(guarded)
    running.wait_ready()
    with httpx.Client(base_url=running.url) as http:
        assert http.post("/v1/pause", json={"who": "jo"}).status_code == 401
        told = http.post("/v1/pause", json={"who": "jo", "why": "lens"}, headers=SIGNED)
        assert (told.status_code, told.json()["who"], told.json()["why"]) == (201, "jo", "lens")
        wait_until(lambda: http.get("/readyz").json()["reasons"] == ["paused by jo: lens"], "not ready, and why")
        assert http.get("/v1/status").json()["paused"] == told.json()
        assert http.post("/v1/resume", json={"who": "kim"}, headers=SIGNED).json() is None
        wait_until(lambda: http.get("/readyz").status_code == 200, "ready again")
        assert http.get("/v1/status").json()["paused"] is None
    assert running.stop() == 0
