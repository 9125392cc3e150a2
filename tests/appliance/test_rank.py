"""What to label next: each order, pages, pools, near-duplicates; the same from the command line and over HTTP."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace

import numpy as np
import pytest

from appliance.decide import decide
from appliance.images import ImageStore
from appliance.labels import Label, Origin
from appliance.order import Metric, Wanted
from appliance.rank import class_counts, rank
from appliance.station import Station
from appliance.verdict import Row, verdict_row
from appliance.verdict_log import VerdictLog
from engines.ranking import SAME, Candidate, Description, balanced_alpha, describe, diverse, imbalance
from engines.regions import find_regions
from kernels import UnseenMetrics
from kernels.reduce import reference
from tests.appliance.running import api_of
from tests.appliance.test_cli import umbra
from tests.appliance.test_decide import frame, measured

# Frames 1 to 8: where S is high (rows, columns) and how high.
PATCHES: tuple[list[tuple[tuple[int, int, int, int], float]], ...] = (
    [((10, 20, 10, 20), 0.9)],  # one small strong one
    [((100, 180, 100, 180), 0.3)],  # one large weak one
    [((10, 20, 10, 20), 0.9)],  # the first again
    [((40, 50, 40, 50), 0.8), ((40, 50, 90, 100), 0.8), ((40, 50, 140, 150), 0.8)],  # three
    [],
    [((11, 21, 10, 20), 0.88)],  # nearly the first
    [((0, 200, 0, 200), 0.15)],  # below t
    [((60, 62, 60, 62), 0.9)],  # above t, and too small for a region
)
LABEL = Label(class_name="Spot", boxes=((0, 0, 9, 9),), box_classes=("ring",), who="jo", at="2026-01-01")


def record(log: VerdictLog, store: ImageStore, number: int, bundle: str = "b@1") -> Row:
    s = np.zeros((224, 224))
    for (r0, r1, c0, c1), value in PATCHES[number - 1]:
        s[r0:r1, c0:c1] = value
    m_thresh, m_alpha, histogram = reference.metrics(s, threshold=0.2, alpha=2.0)
    unseen_map = np.rint(s * 255).astype(np.uint8)
    measurement = replace(
        measured(), image=np.full((224, 224), 127, np.uint8), regions=tuple(find_regions(unseen_map, threshold=0.2)),
        unseen=UnseenMetrics(m_thresh, m_alpha, float(s.max()), histogram.astype(np.uint32), unseen_map),
    )  # fmt: skip
    decision = decide(frame(), measurement, spec=0.3, capture_failed="retest")
    row = verdict_row(frame(), measurement, decision, bundle=(bundle, "e@1"), unseen=(0.2, 2.0),
                      ms={"decode": 1, "inspect": 2, "total": 3})  # fmt: skip
    product, lot = ("P", "L1") if number <= 4 else ("Q", "L2")
    name = f"d{number}.tif"
    place = {"path": f"{product}/{lot}/{name}", "product": product, "lot": lot, "name": name, "sha256": f"{number:064}"}
    stored = log.record(frame(), row | place)
    store.add(stored["frame_id"], measurement, seq=stored["seq"])
    return stored


@pytest.fixture
def log(station: Station) -> VerdictLog:
    opened, store = VerdictLog(station.database), ImageStore(station.images)
    for number in range(1, 7):
        record(opened, store, number)
    return opened


def order(station: Station, log: VerdictLog, **wanted: object) -> list[int]:
    return [one["frame_id"] for one in rank(station, log, Wanted(**wanted))]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("metric", "expected"),
    [
        (Metric.M_ALPHA, [2, 4, 1, 3, 6, 5]),
        (Metric.M_THRESH, [2, 4, 1, 3, 6, 5]),
        (Metric.ROIS, [4, 1, 3, 6, 2, 5]),
        (Metric.BALANCED, [4, 1, 3, 6, 2, 5]),  # nothing is labeled yet: strong ones first
    ],
)
def test_each_metric_has_its_order(station: Station, log: VerdictLog, metric: Metric, expected: list[int]) -> None:
    assert order(station, log, metric=metric) == expected


def test_frames_without_regions_stand_in_the_order_of_m_alpha(station: Station, log: VerdictLog) -> None:
    record(log, ImageStore(station.images), 7)
    assert order(station, log, metric=Metric.ROIS)[-2:] == [7, 5]
    assert order(station, log, metric=Metric.M_THRESH)[-2:] == [7, 5]


def test_balanced_labels_turn_the_order_to_many_weak_pixels(station: Station, log: VerdictLog) -> None:
    halo = replace(LABEL, box_classes=("halo",))
    log.add_labels(
        [(5, LABEL), (5, replace(LABEL, who="ann", boxes=(*LABEL.boxes,) * 2, box_classes=("ring", "halo")))]
    )
    assert class_counts(log.labels()) == {"ring": 1, "halo": 1}  # the newest label of the frame holds
    assert order(station, log, metric=Metric.BALANCED)[0] == 2
    log.add_labels([(5, replace(halo, boxes=LABEL.boxes * 50, box_classes=("ring",) + ("halo",) * 49))])
    assert order(station, log, metric=Metric.BALANCED)[0] == 4


def test_imbalance_of_labels() -> None:
    assert imbalance({}) == imbalance({"ring": 7}) == 1
    assert imbalance({"ring": 5, "halo": 5, "spot": 0}) == pytest.approx(0)
    assert 0 < imbalance({"ring": 50, "halo": 5}) < imbalance({"ring": 500, "halo": 5}) < 1
    assert balanced_alpha({}) == pytest.approx(4)
    assert balanced_alpha({"ring": 3, "halo": 3}) == pytest.approx(1)


def test_pages_continue_each_other(station: Station, log: VerdictLog) -> None:
    whole = order(station, log)
    assert [order(station, log, count=2, offset=k)[:2] for k in (0, 2, 4)] == [whole[0:2], whole[2:4], whole[4:6]]
    assert order(station, log, offset=6) == []


def test_pools_of_a_product_a_lot_and_what_nobody_labeled(station: Station, log: VerdictLog) -> None:
    assert order(station, log, product="Q") == order(station, log, lot="L2") == [6, 5]
    assert order(station, log, product="nosuch") == []
    log.add_labels([(2, LABEL), (4, replace(LABEL, origin=Origin.PROPOSAL))])
    assert order(station, log) == [4, 1, 3, 6, 5]  # a proposal is no label
    assert order(station, log, labeled=True) == [2, 4, 1, 3, 6, 5]


def test_diverse_leaves_out_what_was_shown(station: Station, log: VerdictLog, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = order(station, log, diverse=True)
    assert len(chosen) == 4
    assert set(chosen[:3]) - {1, 3, 6} == {2, 4}
    assert chosen[3] == 5
    assert order(station, log, diverse=True, count=2, offset=2) == chosen[2:]
    with monkeypatch.context() as shorter:
        shorter.setattr("appliance.rank.MOST_DIVERSE", 3)  # the order ends there, on whichever page
        assert order(station, log, diverse=True) == chosen[:3]
        assert order(station, log, diverse=True, count=2, offset=2) == chosen[2:3]
        assert order(station, log, diverse=True, offset=3) == order(station, log, diverse=True, offset=9) == []
    station.images.unlink()  # without pictures nobody knows
    assert order(station, log, diverse=True) == [2, 4, 1, 3, 6, 5]


def test_diverse_puts_nothing_without_a_value_before_what_has_one(station: Station, log: VerdictLog) -> None:
    record(log, ImageStore(station.images), 8)
    chosen = order(station, log, metric=Metric.ROIS, diverse=True)
    assert set(chosen[:3]) - {1, 3, 6} == {2, 4}
    assert chosen[3:] == [7, 5]  # frame 7 is the eighth of these


def candidate(number: int, kind: float | None, value: float = 1.0) -> Candidate:
    """A frame that shows something where no other does, which looks like this; None: nothing is known of it."""
    shape = np.eye(300, dtype=np.float32)[number]
    known = None if kind is None else Description(shape, np.array([kind, 0.0], np.float32))
    return Candidate(number, value, known)


def test_diverse_takes_what_stands_for_most_of_the_others() -> None:
    kinds = [19.0, 0.0, 0.1, 0.2, 9.0, 9.1]
    entries = [candidate(10 + i, kind) for i, kind in enumerate(kinds)]
    three, two, one = diverse(entries, 3)
    assert three in {11, 12, 13}
    assert two in {14, 15}
    assert one == 10
    assert sorted(diverse(entries, 9)) == list(range(10, 16))


def test_diverse_weighs_by_the_metric() -> None:
    kinds = [0.0, 0.1, 0.2, 5.0]
    assert diverse([candidate(i, kind) for i, kind in enumerate(kinds)], 2) == [1, 3]
    strong = [candidate(i, kind, 100.0 if kind == 5.0 else 1.0) for i, kind in enumerate(kinds)]
    assert diverse(strong, 2) == [3, 1]
    assert diverse([candidate(i, kind, 0.0) for i, kind in enumerate(kinds)], 2) == [0, 1]


def test_diverse_weighs_the_next_fifty_and_reads_no_further() -> None:
    read = []

    def entries() -> Iterator[Candidate]:
        for i in range(200):
            read.append(i)
            yield candidate(i, 100.0 if i == 55 else i % 3, 50.0 if i == 55 else 1.0)

    chosen = diverse(entries(), 10)
    assert chosen.index(55) == 6  # the first time it is among the next fifty
    assert {i % 3 for i in chosen[:3]} == {0, 1, 2}
    assert len(set(chosen)) == 10
    assert len(read) == 50 + 9
    assert diverse(entries(), 4) == chosen[:4]


def test_diverse_keeps_the_place_of_what_nothing_is_known_of() -> None:
    entries = [candidate(i, kind) for i, kind in enumerate([None, 1.0, None, 8.0])]
    assert diverse(entries, 4) == [0, 1, 2, 3]
    assert diverse([candidate(i, None) for i in range(5)], 3) == [0, 1, 2]
    assert diverse([], 3) == []
    same = [Candidate(i, 1.0, Description(np.eye(9, dtype=np.float32)[i], np.ones(2, np.float32))) for i in range(3)]
    assert diverse(same, 3) == [0, 1, 2]


def test_what_is_unseen_is_described_where_it_is() -> None:
    rng = np.random.default_rng(2)
    image = np.clip(rng.normal(127, 16, (224, 224)), 0, 255).astype(np.uint8)
    image[40:60] = 240 * (np.arange(224) // 2 % 2)  # upright stripes
    unseen_map = np.zeros((224, 224), np.uint8)
    assert describe(image, unseen_map, 0.2) is None
    unseen_map[40:60, 20:60] = 200
    there = describe(image, unseen_map, 0.2)
    elsewhere = describe(image, np.roll(unseen_map, 100, 0), 0.2)
    again = describe(image, np.roll(unseen_map, 100, 1), 0.2)
    assert there is not None
    assert elsewhere is not None
    assert again is not None
    assert float(there.shape @ again.shape) < SAME
    assert np.abs(there.looks - again.looks).max() < 0.2
    assert np.abs(there.looks - elsewhere.looks).max() > 1


def test_frames_of_one_bundle_compete(station: Station, log: VerdictLog) -> None:
    record(log, ImageStore(station.images), 1, "b@2")
    assert order(station, log) == [1]


def test_the_frames_of_the_active_bundle_compete_and_the_others_are_told_of(station: Station, log: VerdictLog) -> None:
    log.add_bundle("b@1", "b", who="jo")
    record(log, ImageStore(station.images), 1, "b@2")  # somebody tried another one
    assert order(station, log) == [2, 4, 1, 3, 6, 5]
    assert "only other bundles" not in umbra("rank", "--station", station.root).stderr
    log.add_bundle("b@2", "b", who="jo")
    assert order(station, log) == [1]
    told = " ".join(umbra("rank", "--station", station.root).stderr.split())
    assert "5 frames are not in this order, since only other bundles measured them: umbra rescreen" in told
    log.add_labels([(1, LABEL)])
    told = " ".join(umbra("loop", "next", "--station", station.root, expect=1).stderr.split())
    assert "no frame is left to label; 5 frames are not in this order" in told
    log.add_bundle("b@3", "b", who="jo")  # it measured nothing yet
    assert order(station, log, labeled=True) == [1]


@pytest.mark.parametrize("damage", [b"", b"garbage", b"\x89PNG\r\n\x1a\n torn"])
def test_a_damaged_picture_is_none(station: Station, log: VerdictLog, damage: bytes) -> None:
    with closing(sqlite3.connect(station.images)) as store, store:
        store.execute("UPDATE images SET image = ?, unseen = ?", (damage, damage))
    assert sorted(order(station, log, diverse=True)) == [1, 2, 3, 4, 5, 6]
    assert (
        "no picture is kept"
        in umbra("overlay", "4", "--out", station.root / "x.png", "--station", station.root, expect=1).stderr
    )
    umbra("loop", "next", "--out", station.root / "next", "--no-diverse", "--station", station.root)
    assert [task["data"]["image"] for task in json.loads((station.root / "next" / "tasks.json").read_text())] == [
        None
    ] * 6
    with api_of(station) as http:
        for name in ("image.png", "unseen.png"):
            assert http.get(f"/v1/frames/4/{name}").status_code == 404


def test_columns_that_cannot_be_kept_are_told_of(station: Station, log: VerdictLog) -> None:
    station.columns.write_text("a file in their place")
    assert "columns of the log" in umbra("rank", "--station", station.root, expect=1).stderr
    with api_of(station) as http:
        for question in ("rank", "whatif?t=0.5"):
            assert http.get(f"/v1/{question}").status_code == 503


def test_an_empty_station_has_nothing_to_label(station: Station) -> None:
    assert rank(station, VerdictLog(station.database), Wanted()) == []


def test_the_command_line_and_http_give_the_same(station: Station, log: VerdictLog) -> None:
    with api_of(station) as http:
        for options, query in (
            ((), ""),
            (("--metric", "rois", "--count", "2", "--offset", "1"), "metric=rois&count=2&offset=1"),
            (("--diverse", "--product", "P", "--lot", "L1", "--labeled"), "diverse=true&product=P&lot=L1&labeled=true"),
        ):
            printed = json.loads(umbra("rank", "--json", "--station", station.root, *options).stdout)
            assert http.get(f"/v1/rank?{query}").json() == printed
            assert list(printed[0])[:7] == ["frame_id", "frame", "product", "lot", "m_alpha", "m_thresh", "rois"]
        for query in ("metric=nosuch", "count=0", "offset=-1"):
            assert http.get(f"/v1/rank?{query}").status_code == 422
        out = station.root / "overlay.png"
        umbra("overlay", "4", "--out", out, "--station", station.root)
        assert http.get("/v1/frames/4/unseen.png").content == out.read_bytes()
    [first] = json.loads(umbra("rank", "--json", "--count", "1", "--station", station.root).stdout)
    sx, sy = 360 / 224, 300 / 224
    assert first["rois"] == [{"box": [round(100 * sx), round(100 * sy), round(180 * sx), round(180 * sy)],
                              "score": pytest.approx(80 * 80 * 0.3, rel=0.02)}]  # fmt: skip
    assert "d2.tif" in umbra("rank", "--station", station.root).stdout
    umbra("overlay", str(2**63), "--out", out, "--station", station.root, expect=2)
    assert "frame 99: there is none" in umbra("overlay", "99", "--out", out, "--station", station.root, expect=1).stderr


def test_frames_that_retention_forgot_are_left_out(station: Station, log: VerdictLog) -> None:
    before = [entry["frame_id"] for entry in rank(station, log, Wanted(count=10))]
    log.add_labels([(frame_id, LABEL) for frame_id in before[2:]])  # labeled frames stay
    log.forget("2999-01-01T00:00:00.000Z", chunk=10)
    left = [entry["frame_id"] for entry in rank(station, log, Wanted(count=10, labeled=True))]
    assert left == before[2:]
