"""What the API answers beside other work: health, damage, errors, other logs, and readers beside the writer."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import sqlite3
import threading
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.types import Message, Receive, Scope, Send

from appliance.api.access import Readers
from appliance.api.app import create_app
from appliance.api.filters import Filter
from appliance.api.following import documents
from appliance.api.recent import FRESH_S, RecentAnswers
from appliance.log_file import BUSY_MS
from appliance.settings import Settings
from appliance.station import Station
from appliance.verdict import now_utc
from appliance.verdict_log import VerdictLog
from tests.appliance.running import api_of, wait_until
from tests.appliance.test_decide import frame
from tests.appliance.test_verdict_log import row_of


def asked(station: Station, path: str) -> httpx.Response:
    """What an API in this process answers."""

    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(create_app(station), raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://here") as http:
            return await http.get(path)

    return asyncio.run(ask())


def test_it_listens_at_home_unless_told_otherwise() -> None:
    assert (Settings().api.host, Settings().api.port) == ("127.0.0.1", 8765)


def test_what_nobody_foresaw_is_told_without_its_inside(station: Station, monkeypatch: pytest.MonkeyPatch) -> None:
    with closing(VerdictLog(station.database)):
        pass

    def break_down(_self: VerdictLog, *_: object, **__: object) -> list[int]:
        raise ValueError("a secret of ours")

    monkeypatch.setattr(VerdictLog, "numbers", break_down)
    answer = asked(station, "/v1/verdicts")
    assert (answer.status_code, answer.text) == (500, "Internal Server Error")


def test_paths_of_the_machine_are_not_told(station: Station) -> None:
    station.database.write_bytes(b"no database" * 1000)
    for path in ("/readyz", "/v1/status", "/v1/verdicts", "/"):
        answer = asked(station, path)
        assert answer.status_code in (200, 503), path
        assert str(station.root) not in answer.text, path


def test_files_that_no_event_announced_are_shown(station: Station) -> None:
    station.write_state({"at": now_utc(), "ready": True, "reasons": [], "events_lost": 7, "watching": "events"})
    with closing(VerdictLog(station.database)):
        pass
    assert asked(station, "/v1/status").json()["events_lost"] == 7
    assert "umbra_events_lost 7.0" in asked(station, "/metrics").text


def test_a_clock_that_was_set_back_makes_nobody_ready(station: Station) -> None:
    with closing(VerdictLog(station.database)):
        pass
    later = dt.datetime.now(dt.UTC) + dt.timedelta(hours=1)
    station.write_state({"at": later.isoformat(), "ready": True, "reasons": []})
    assert asked(station, "/readyz").status_code == 503


def test_readers_never_keep_the_writer_waiting(station: Station) -> None:
    """Eight clients that ask all the time, and one moment of the log that somebody holds on to all along."""
    with closing(VerdictLog(station.database)) as log:
        for number in range(300):
            log.record(frame(), row_of(f"P/L/{number}.tif", f"{number:064d}"))
        held = sqlite3.connect(f"{station.database.as_uri()}?mode=ro", uri=True, isolation_level=None)
        held.execute("BEGIN")
        assert held.execute("SELECT COUNT(*) FROM verdicts").fetchone() == (300,)
        answered, stop = [0] * 8, threading.Event()
        with api_of(station) as http:

            def ask(client: int) -> None:
                with httpx.Client(base_url=http.base_url, timeout=30) as own:
                    while not stop.is_set():
                        for path in (
                            "/v1/verdicts?limit=50",
                            "/v1/verdicts?min_score=0.5",
                            "/v1/summary",
                            "/v1/status",
                        ):
                            own.get(path).raise_for_status()
                            answered[client] += 1

            clients = [threading.Thread(target=ask, args=(n,)) for n in range(8)]
            for client in clients:
                client.start()
            wait_until(lambda: min(answered) > 0, "all ask")
            before, longest = sum(answered), 0.0
            for number in range(300, 700):
                began = time.monotonic()
                log.record(frame(), row_of(f"P/L/{number}.tif", f"{number:064d}"))
                longest = max(longest, time.monotonic() - began)
            after = sum(answered)
            stop.set()
            for client in clients:
                client.join()
        assert held.execute("SELECT COUNT(*) FROM verdicts").fetchone() == (300,)
        held.close()
        assert log.last_seq() == 700
    assert after > before + 20, "hardly anybody asked meanwhile"
    assert longest < BUSY_MS / 2e3, "a commit waited for readers"


def test_health_is_told_again_for_half_a_second_and_no_longer() -> None:
    asked, now = [0], [100.0]

    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        asked[0] += 1
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"%d" % asked[0]})

    async def ask(recent: RecentAnswers, path: str, method: str = "GET") -> bytes:
        told: list[Message] = []

        async def receive() -> Message:
            return {"type": "http.request"}

        async def send(message: Message) -> None:
            told.append(message)

        await recent({"type": "http", "method": method, "path": path, "query_string": b""}, receive, send)
        body: bytes = told[1]["body"]
        return body

    async def all_of_it() -> list[bytes]:
        recent = RecentAnswers(app, clock=lambda: now[0])
        found = [await ask(recent, "/readyz"), await ask(recent, "/readyz"), await ask(recent, "/metrics")]
        found += [
            await ask(recent, "/v1/status"),
            await ask(recent, "/v1/status"),
            await ask(recent, "/readyz", "POST"),
        ]
        now[0] += FRESH_S
        return [*found, await ask(recent, "/readyz")]

    assert asyncio.run(all_of_it()) == [b"1", b"1", b"2", b"3", b"4", b"5", b"6"]


def test_a_verdict_is_found_as_soon_as_it_is_committed_however_often_it_was_asked_for(station: Station) -> None:
    with closing(VerdictLog(station.database)) as log, api_of(station) as http:
        for number in range(30):
            url = f"/v1/verdicts?file={number}.tif"
            assert http.get(url).json() == {"verdicts": [], "cursor": 0}
            log.record(frame(), row_of(f"P/L/{number}.tif", f"{number:064d}"))
            [found] = http.get(url).json()["verdicts"]
            assert found["seq"] == number + 1
            assert http.get("/v1/status").json()["last_seq"] == number + 1
        assert http.get("/v1/verdicts?limit=7&cursor=20").json()["cursor"] == 27
        one = http.get("/v1/verdicts/3").json()
        [listed] = http.get("/v1/verdicts?limit=1&cursor=2").json()["verdicts"]
        assert listed.items() <= one.items()


def test_a_page_of_verdicts_is_whole_whatever_other_requests_do(
    station: Station, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(VerdictLog(station.database)) as log:
        for number in range(6):
            log.record(frame(), row_of(f"P/L/{number}.tif", f"{number:064d}"))
    readers = Readers(station.database)
    everything = Filter()
    assert list(documents(readers, everything, 0, 3)) == [1, 2, 3]
    read = VerdictLog.verdicts

    def meanwhile(self: VerdictLog, *args: Any, **named: Any) -> Any:
        readers.written.clear()  # another request made room
        return read(self, *args, **named)

    monkeypatch.setattr(VerdictLog, "verdicts", meanwhile)
    assert list(documents(readers, everything, 0, 9)) == [1, 2, 3, 4, 5, 6]
    readers.close()


def test_another_log_is_told_of_as_it_is(station: Station) -> None:
    for path in ("P/L/first.tif", "P/L/second.tif"):
        with closing(VerdictLog(station.database)) as log:
            log.record(frame(), row_of(path, "d" * 64))
        if path == "P/L/first.tif":
            readers = Readers(station.database)
        [document] = documents(readers, Filter(), 0, 9).values()
        assert json.loads(document)["frame"] == Path(path).name
        for part in station.root.glob("umbra.db*"):
            part.rename(part.with_name(f"old-{part.name}"))
    readers.close()


def test_a_log_whose_text_is_no_text_is_damaged(station: Station) -> None:
    with closing(VerdictLog(station.database)) as log:
        log.record(frame(), row_of("P/L/a.tif", "d" * 64))
        log.database.conn.execute("UPDATE frames SET name = CAST(x'ff61' AS TEXT)")
    answer = asked(station, "/v1/verdicts")
    assert answer.status_code == 503
    assert "umbra restore" in answer.text
