"""The API over a real socket beside a real screener: contracts, waiting, streams, writes, death."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import signal
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

from appliance.api.access import Readers
from appliance.station import Station
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
                assert (
                    readers.counts(reader, reader.last_seq())
                    == log.counts()
                    == {"PASS": number + 1, "FAIL": 0, "RETEST": 0}
                )
        log.forget("9999-01-01T00:00:00.000Z", chunk=2)
        with readers.one() as reader:
            assert readers.counts(reader, reader.last_seq()) == {"PASS": 0, "FAIL": 0, "RETEST": 0}
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


@pytest.mark.parametrize(
    ("path", "body", "status", "said"),
    [
        ("/v1/bundles/activation", {"name": "../starter", "who": "jo"}, 404, "none of this name at hand"),
        ("/v1/bundles/activation", {"name": "nothing", "who": "jo"}, 404, "nothing"),
        ("/v1/bundles/activation", {"name": "starter", "who": "jo"}, 409, "no screener is running"),
        ("/v1/bundles/rollback", {"who": "jo"}, 409, "no bundle was ever activated here"),
        ("/v1/labels/99/retraction", {"who": "jo"}, 404, "label 99: there is none"),
        ("/v1/ratings", {"session_id": 9, "frame_id": 1, "rater": "jo", "score": 3}, 404, "session 9: there is none"),
    ],
)
def test_what_cannot_be_done_is_refused_with_why(
    station: Station, path: str, body: dict[str, object], status: int, said: str
) -> None:
    token = "a token"  # noqa: S105
    digest = hashlib.sha256(token.encode()).hexdigest()
    (station.root / "umbra.toml").write_text(f'[api]\nport = 0\ntoken_sha256 = "{digest}"\n')
    VerdictLog(station.database).close()
    with api_of(station) as http:
        assert http.post(path, json=body).status_code == 401
        answer = http.post(path, json=body, headers={"Authorization": f"Bearer {token}"})
    assert (answer.status_code, said in answer.text) == (status, True), answer.text
    assert str(station.root) not in answer.text


def test_dies_that_lie_too_far_apart_make_no_map(station: Station) -> None:
    with closing(VerdictLog(station.database)) as log:
        for x in (0, 2_000_000_000):
            log.record(frame(), row_of(f"P/L/{x}.tif", f"{x:064d}") | {"wafer": "7", "die_x": x, "die_y": 0})
    with api_of(station) as http:
        answer = http.get("/wafers")
    assert answer.status_code == 200
    assert "2 dies lie too far apart" in answer.text
    assert len(answer.text) < 10_000


def test_a_style_is_asked_for_each_time(station: Station) -> None:
    with api_of(station) as http:
        assert http.get("/static/umbra.css").headers["cache-control"] == "no-cache"
