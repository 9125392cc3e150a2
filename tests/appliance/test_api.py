"""The API over a real socket beside a real screener: contracts, waiting, streams, writes, death."""

from __future__ import annotations

import asyncio
import csv
import datetime as dt
import hashlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import cv2
import httpx
import numpy as np
import pytest
from starlette.types import Message, Receive, Scope, Send

from appliance.api.access import Readers
from appliance.api.app import create_app
from appliance.api.recent import FRESH_S, RecentAnswers
from appliance.api.verdicts import Filter, _documents
from appliance.log_file import BUSY_MS
from appliance.settings import Settings
from appliance.station import Station
from appliance.verdict import now_utc
from appliance.verdict_log import VerdictLog
from tests.appliance.running import Daemon, api_of, drop, outbox, wait_until
from tests.appliance.test_decide import frame
from tests.appliance.test_verdict_log import row_of

TOKEN = "letmein"  # noqa: S105  (of this test's station)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Station:
    root = tmp_path_factory.mktemp("api") / "station"
    root.mkdir()
    (root / "umbra.toml").write_text(
        "[watch]\nrescan_s = 0.1\nsettle_s = 0.1\nincomplete_s = 0.3\n[disk]\nlow_bytes = 0\n"
        f'[api]\nport = 0\ntoken_sha256 = "{hashlib.sha256(TOKEN.encode()).hexdigest()}"\n'
    )
    return Station.open(root, create=True)


@pytest.fixture(scope="module")
def daemon(place: Station) -> Iterator[Daemon]:
    running = Daemon(place)
    running.wait_ready()
    yield running
    running.stop()


@pytest.fixture(scope="module")
def http(daemon: Daemon, place: Station) -> Iterator[httpx.Client]:
    for i, lot in enumerate(("L1", "L1", "L2")):
        drop(place, f"f{i}", seed=i, folder=f"P/{lot}")
    bad = place.inbox / "Q" / "L1" / "bad.tif"
    bad.parent.mkdir(parents=True)
    bad.write_bytes(b"no image")
    wait_until(lambda: len(outbox(place)) == 4, "four verdicts")
    with httpx.Client(base_url=daemon.url, timeout=30) as client:
        yield client


def test_health_answers(http: httpx.Client) -> None:
    assert http.get("/livez").json() == {"status": "alive"}
    ready = http.get("/readyz")
    assert (ready.status_code, ready.json()) == (200, {"ready": True, "reasons": []})
    status = http.get("/v1/status").json()
    assert status["counts"]["RETEST"] >= 1
    assert status["last_seq"] >= 4
    assert "umbra_ready 1.0" in http.get("/metrics").text


def test_verdicts_equal_the_outbox(http: httpx.Client, place: Station) -> None:
    listed = {
        f"{v['product']}/{v['lot']}/{Path(v['frame']).stem}.json": v
        for v in http.get("/v1/verdicts").json()["verdicts"]
    }
    for path, made in outbox(place).items():
        assert {k: listed[path][k] for k in made} == made


@pytest.mark.parametrize(
    ("query", "count"),
    [
        ("product=P", 3), ("product=P&lot=L1", 2), ("lot=L1", 3), ("product=Q&verdict=RETEST", 1), ("product=Q&verdict=PASS", 0),
        ("product=nobody", 0), ("file=f2.tif", 1), ("since=2100-01-01T00:00:00Z", 0), ("until=2100-01-01", 4),
        ("min_score=1", 0), ("limit=2", 2),
    ],
)  # fmt: skip
def test_filters_choose(http: httpx.Client, query: str, count: int) -> None:
    assert len(http.get(f"/v1/verdicts?{query}").json()["verdicts"]) == count


def test_pages_hold_every_verdict_once(http: httpx.Client) -> None:
    seen, cursor = [], 0
    while True:
        page = http.get(f"/v1/verdicts?limit=2&cursor={cursor}").json()
        if not page["verdicts"]:
            break
        seen += [v["seq"] for v in page["verdicts"]]
        cursor = page["cursor"]
    assert seen == sorted(set(seen))
    assert len(seen) >= 4


@pytest.mark.parametrize(
    "query", ["min_score=2", "verdict=MAYBE", "limit=0", "cursor=-1", "since=yesterday", "wait=1e9"]
)
def test_a_wrong_query_is_422_and_named(http: httpx.Client, query: str) -> None:
    answer = http.get(f"/v1/verdicts?{query}")
    assert answer.status_code == 422
    assert answer.json()["detail"][0]["loc"][-1] == query.split("=", maxsplit=1)[0]


def test_waiting_ends_with_the_commit(http: httpx.Client, place: Station) -> None:
    answers: list[dict[str, Any]] = []
    cursor = http.get("/v1/status").json()["last_seq"]

    def ask() -> None:
        body = http.get(f"/v1/verdicts?file=waited.tif&cursor={cursor}&wait=30").json()
        answers.append(body)

    thread = threading.Thread(target=ask)
    thread.start()
    drop(place, "waited", seed=77, folder="W/L")
    thread.join()
    [body] = answers
    [verdict] = body["verdicts"]
    assert verdict["frame"] == "waited.tif"


def test_waiting_in_vain_ends_empty(http: httpx.Client) -> None:
    began = time.monotonic()
    assert http.get("/v1/verdicts?file=never.tif&wait=0.3").json()["verdicts"] == []
    assert 0.3 <= time.monotonic() - began < 10


def test_one_verdict_has_its_regions_and_histogram(http: httpx.Client) -> None:
    [verdict] = http.get("/v1/verdicts?file=f0.tif").json()["verdicts"]
    whole = http.get(f"/v1/verdicts/{verdict['seq']}").json()
    assert sum(whole["histogram"]) == 224 * 224
    for name, value in whole["unseen_per_pixel"].items():
        assert value == pytest.approx(whole["unseen"][name] / 224**2, abs=1e-9)
    assert len(whole["rois"]) == verdict["unseen"]["rois"]
    for number in (0, 99999, -1):
        assert http.get(f"/v1/verdicts/{number}").status_code == 404


def test_csv_has_a_line_a_verdict(http: httpx.Client) -> None:
    rows = list(csv.DictReader(http.get("/v1/verdicts.csv?product=P").text.splitlines()))
    assert [r["name"] for r in rows] == ["f0.tif", "f1.tif", "f2.tif"]


def test_pictures_are_png(http: httpx.Client) -> None:
    [verdict] = http.get("/v1/verdicts?file=f0.tif").json()["verdicts"]
    for name, side in (("image", 224), ("unseen", 448)):
        answer = http.get(f"/v1/frames/{verdict['frame_id']}/{name}.png")
        assert answer.headers["content-type"] == "image/png"
        picture = cv2.imdecode(np.frombuffer(answer.content, np.uint8), cv2.IMREAD_UNCHANGED)
        assert picture is not None
        assert picture.shape[:2] == (side, side)
    [bad] = http.get("/v1/verdicts?file=bad.tif").json()["verdicts"]
    assert http.get(f"/v1/frames/{bad['frame_id']}/image.png").status_code == 404


@pytest.mark.parametrize(("by", "keys"), [("product", {"P", "Q"}), ("lot", {"P/L1", "P/L2", "Q/L1"})])
def test_summary_counts(http: httpx.Client, by: str, keys: set[str]) -> None:
    rows = {row[by]: row for row in http.get(f"/v1/summary?by={by}").json()}
    assert keys <= rows.keys()
    assert all(row["frames"] == row["PASS"] + row["FAIL"] + row["RETEST"] for row in rows.values())


def test_the_stream_resumes_after_the_last_event(http: httpx.Client) -> None:
    def read(count: int, **headers: str) -> list[int]:
        found: list[int] = []
        with http.stream("GET", "/v1/stream?cursor=0", headers=headers) as lines:
            for line in lines.iter_lines():
                if line.startswith("id:"):
                    found.append(int(line[3:]))
                if len(found) == count:
                    break
        return found

    first = read(2)
    assert read(2, **{"Last-Event-ID": str(first[-1])})[0] == first[-1] + 1


def test_writes_need_the_token(http: httpx.Client) -> None:
    body = {"spec": 0.2, "product": "P", "who": "jo", "note": "trial"}
    assert http.post("/v1/specs", json=body).status_code == 401
    assert http.post("/v1/specs", json=body, headers={"Authorization": "Bearer wrong"}).status_code == 401
    right = {"Authorization": f"Bearer {TOKEN}"}
    assert http.post("/v1/specs", json=body, headers=right).status_code == 201
    assert http.get("/v1/specs").json()[0]["spec"] == 0.2
    for bad in ('{"spec": 2, "who": "jo"}', '{"spec": NaN, "who": "jo"}', '{"spec": 0.1, "who": "\\ud800"}', "{"):
        answer = http.post("/v1/specs", content=bad, headers=right | {"Content-Type": "application/json"})
        assert answer.status_code == 422, bad
    frame_id = http.get("/v1/verdicts").json()["verdicts"][0]["frame_id"]
    label = {"frame_id": frame_id, "class": "Spot", "level": 5, "boxes": [[1, 2, 3, 4]], "who": "jo"}
    assert http.post("/v1/labels", json=label, headers=right).status_code == 201
    assert http.get("/v1/labels").json()[0]["boxes"] == [[1, 2, 3, 4]]
    assert http.post("/v1/labels", json=label | {"frame_id": 9999}, headers=right).status_code == 404


def test_what_if_answers_for_limit_t_and_alpha(http: httpx.Client) -> None:
    found = http.get("/v1/whatif?spec=0.5&t=0.5&alpha=1.5&product=P").json()
    assert (found["spec"], found["product"], found["unseen"]["frames"]) == (0.5, "P", 3)
    assert found["unseen"]["m_thresh"]["exact"]
    for query in ("", "t=1", "alpha=0", "alpha=nan", "spec=2", "t=x"):
        assert http.get(f"/v1/whatif?{query}").status_code == 422, query


def test_labels_are_shown_with_what_holds(http: httpx.Client) -> None:
    right = {"Authorization": f"Bearer {TOKEN}"}
    [verdict] = http.get("/v1/verdicts?file=f1.tif").json()["verdicts"]
    label = {
        "frame_id": verdict["frame_id"],
        "class": "Spot",
        "boxes": [[1, 2, 30, 40]],
        "box_classes": ["ring"],
        "who": "jo",
    }
    assert http.post("/v1/labels", json=label, headers=right).status_code == 201
    other = {"frame_id": verdict["frame_id"], "class": "OK", "who": "ann"}
    assert http.post("/v1/labels", json=other, headers=right).status_code == 201
    found = http.get(f"/v1/verdicts/{verdict['seq']}").json()
    assert (len(found["labels"]), found["label"]["who"], found["disputed"]) == (2, "ann", True)
    first, second = http.get(f"/v1/labels?frame_id={verdict['frame_id']}").json()
    assert (first["class"], second["box_classes"], second["frame_id"]) == ("OK", ["ring"], verdict["frame_id"])
    outside = http.post("/v1/labels", json=label | {"boxes": [[1, 2, 3000, 40]]}, headers=right)
    assert outside.status_code == 422
    [problem] = outside.json()["detail"]
    assert problem["msg"] == "box [1, 2, 3000, 40] lies outside the frame of 360x300 pixels"
    [bad] = http.get("/v1/verdicts?file=bad.tif").json()["verdicts"]
    assert http.post("/v1/labels", json=label | {"frame_id": bad["frame_id"]}, headers=right).status_code == 422


def test_a_limit_holds_from_the_next_frame_on(http: httpx.Client, place: Station) -> None:
    right = {"Authorization": f"Bearer {TOKEN}"}
    http.post("/v1/specs", json={"spec": 0.123, "product": "S", "who": "jo"}, headers=right)
    drop(place, "limited", folder="S/L")
    wait_until(lambda: "S/L/limited.json" in outbox(place), "a verdict")
    assert outbox(place)["S/L/limited.json"]["spec"] == 0.123


def test_the_page_shows_verdicts_and_escapes_names(http: httpx.Client, place: Station) -> None:
    drop(place, "<b>x", seed=5, folder="P/L9")
    wait_until(lambda: "P/L9/<b>x.json" in outbox(place), "a verdict")
    page = http.get("/").text
    assert "&lt;b&gt;x.tif" in page
    assert "<b>x" not in page


def test_openapi_names_every_path(http: httpx.Client) -> None:
    assert http.get("/openapi.json").json()["paths"].keys() >= {
        "/livez", "/readyz", "/metrics", "/v1/status", "/v1/verdicts", "/v1/verdicts/{seq}", "/v1/verdicts.csv",
        "/v1/frames/{frame_id}/image.png", "/v1/frames/{frame_id}/unseen.png", "/v1/summary", "/v1/stream",
        "/v1/labels", "/v1/specs", "/v1/bundles", "/v1/whatif",
    }  # fmt: skip


def test_the_api_dying_never_stops_screening_and_it_comes_back(
    http: httpx.Client, daemon: Daemon, place: Station
) -> None:
    pid = json.loads((place.root / "api.json").read_text())["pid"]
    os.kill(pid, signal.SIGKILL)
    drop(place, "meanwhile", seed=8)
    wait_until(lambda: "P/L/meanwhile.json" in outbox(place), "a verdict")
    wait_until(lambda: json.loads((place.root / "api.json").read_text())["pid"] != pid, "a new API")
    assert httpx.get(f"{daemon.url}/livez").status_code == 200
    assert daemon.process.poll() is None


def test_without_a_screener_it_is_not_ready(daemon: Daemon, place: Station) -> None:
    daemon.stop()
    (place.root / "api.json").unlink(missing_ok=True)
    server = subprocess.Popen([sys.executable, "-m", "appliance.api.server", str(place.root)])
    try:
        answer = httpx.get(f"{daemon.url}/readyz")
    finally:
        server.terminate()
        server.wait()
    assert answer.status_code == 503
    assert answer.json()["reasons"] == ["the screener is stopped"]


def test_a_stop_answers_those_who_wait_and_leaves_no_address(station: Station) -> None:
    running = Daemon(station)
    running.wait_ready()
    answers: list[httpx.Response] = []
    url = running.url
    thread = threading.Thread(
        target=lambda: answers.append(httpx.get(f"{url}/v1/verdicts?file=never.tif&wait=30", timeout=60))
    )
    thread.start()
    wait_until(lambda: httpx.get(f"{url}/livez").status_code == 200, "the API answers beside a waiting request")
    assert running.stop() == 0
    thread.join()
    assert [a.status_code for a in answers] == [200]
    assert not (station.root / "api.json").exists()
    assert "Traceback" not in (station.root / "test.log").read_text()


def test_counts_follow_the_log_and_what_it_forgets(tmp_path: Path) -> None:
    readers = Readers(tmp_path / "umbra.db")
    with closing(VerdictLog(tmp_path / "umbra.db")) as log:
        for number in range(5):
            log.record(frame(), row_of(f"P/L/{number}.tif", f"{number:064d}"))
            with readers.one() as reader:
                assert readers.counts(reader) == log.counts() == {"PASS": number + 1, "FAIL": 0, "RETEST": 0}
        log.forget("9999-01-01T00:00:00.000Z", chunk=2)
        with readers.one() as reader:
            assert readers.counts(reader) == {"PASS": 0, "FAIL": 0, "RETEST": 0}
    readers.close()


def test_a_log_that_was_replaced_is_opened_anew(tmp_path: Path) -> None:
    readers = Readers(tmp_path / "umbra.db")
    for count in (1, 2):
        with closing(VerdictLog(tmp_path / "other.db")) as log:
            for number in range(count):
                log.record(frame(), row_of(f"P/L/{number}.tif", f"{number:064d}"))
        (tmp_path / "other.db").rename(tmp_path / "umbra.db")
        with readers.one() as reader:
            assert reader.last_seq() == count
    readers.close()


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

    def break_down(_self: VerdictLog) -> int:
        raise ValueError("a secret of ours")

    monkeypatch.setattr(VerdictLog, "last_seq", break_down)
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
    everything = Filter.model_construct()
    assert list(_documents(readers, everything, 0, 3)) == [1, 2, 3]
    read = VerdictLog.verdicts

    def meanwhile(self: VerdictLog, *args: Any, **named: Any) -> Any:
        readers.written.clear()  # another request made room
        return read(self, *args, **named)

    monkeypatch.setattr(VerdictLog, "verdicts", meanwhile)
    assert list(_documents(readers, everything, 0, 9)) == [1, 2, 3, 4, 5, 6]
    readers.close()


def test_another_log_is_told_of_as_it_is(station: Station) -> None:
    for path in ("P/L/first.tif", "P/L/second.tif"):
        with closing(VerdictLog(station.database)) as log:
            log.record(frame(), row_of(path, "d" * 64))
        if path == "P/L/first.tif":
            readers = Readers(station.database)
        [document] = _documents(readers, Filter.model_construct(), 0, 9).values()
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
