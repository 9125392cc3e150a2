"""`umbra report`: what it counts, when it alarms, and that the page needs nothing beside it."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from appliance.report import OWN_FIRST, WINDOW, Span, collect, drifts, steps
from appliance.station import Station
from appliance.verdict_log import VerdictLog
from engines import Bundle
from engines.reference import METRICS, Distribution, Reference
from tests.appliance.test_cli import umbra
from tests.appliance.test_decide import frame
from tests.appliance.test_verdict_log import row_of

FAIL: dict[str, Any] = {
    "verdict": "FAIL",
    "hard": 2,
    "score": 0.9,
    "class": "Spot",
    "reason": "score 0.900 above the limit 0.3",
}
BEGIN = dt.datetime(2026, 3, 1, 8, tzinfo=dt.UTC)


def at(hours: float) -> str:
    return (BEGIN + dt.timedelta(hours=hours)).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def measured_rows(count: int, *, product: str = "P", seed: int = 0, **changed: float) -> list[dict[str, Any]]:
    """Verdicts of one population; `changed` by metric is what is added to it."""
    draw = np.random.default_rng(seed)
    return [
        {"product": product, "class": "OK", "decided_at": at(n / 60)}
        | {metric: float(draw.normal(5, 1)) + changed.get(metric, 0.0) for metric in METRICS}
        for n in range(count)
    ]


REFERENCE = Reference.of("its test set", measured_rows(1200, seed=99))


@pytest.fixture
def station(tmp_path: Path, starter: Bundle) -> Station:
    """Two products on three days; a frame that failed first and passed later, and one that was never measured."""
    made = Station.open(tmp_path / "bay 9", create=True)
    with closing(VerdictLog(made.database)) as log:

        def judge(name: str, hours: float, *, unreadable: str | None = None, lot: str = "P/L", bundle: str = starter.identity,
                  origin: str = "inbox", **other: Any) -> None:  # fmt: skip
            row = row_of(
                f"{lot}/{name}.tif", sha256=f"{abs(hash(name)) % 10**12:064}", bundle=bundle, unreadable=unreadable
            )
            log.record(frame(unreadable), row | {"decided_at": at(hours)} | other, origin=origin)

        judge("again", 0, bundle="old@1", **FAIL)
        judge("again", 1)
        judge("bad", 1, **FAIL)
        judge("broken", 2, unreadable="cut off")
        judge("q", 50, lot="Q/M", m_alpha=700.0)
        judge("screened", 51, origin="screen", **FAIL)
        judge("lines", 51, lot="Q/M", verdict="RETEST", hard=3, score=1.0, m_alpha=9000.0, **{"class": "Error"})
    return made


def test_it_counts_the_newest_verdict_on_each_frame_of_the_inbox(station: Station) -> None:
    found = collect(station, Span())
    assert (found["frames"], found["counts"]) == (5, {"PASS": 2, "FAIL": 1, "RETEST": 2})
    assert [(row["product"], row["lot"], row["PASS"], row["FAIL"], row["RETEST"]) for row in found["lots"]] == [
        ("P", "L", 1, 1, 1), ("Q", "M", 1, 0, 1)]  # fmt: skip
    assert found["steps"]["step"] == "hour"
    assert found["failed_captures"] == 1, "in no score, and in no gallery"
    assert len(found["steps"]["rows"]) == 51, "hours without a frame are there, too"
    assert found["steps"]["rows"][0] == {"at": "2026-03-01T09", "PASS": 1, "FAIL": 1, "RETEST": 0}
    assert [(one["product"], one["frames"], sum(one["bins"])) for one in found["products"]] == [
        ("P", 2, 2),
        ("Q", 1, 1),
    ]
    assert found["worst"][0]["name"] == "bad.tif"
    assert found["novel"][0]["name"] == "q.tif"
    part = collect(station, Span(since=at(1.5), product="P"))
    assert (part["frames"], part["counts"]["RETEST"]) == (1, 1)


def test_a_part_that_is_captured_anew_counts_once(station: Station) -> None:
    with closing(VerdictLog(station.database)) as log:
        log.record(frame(), row_of("P/L/broken.tif", sha256="f" * 64) | {"decided_at": at(3)})
    assert collect(station, Span())["counts"] == {"PASS": 3, "FAIL": 1, "RETEST": 1}


def test_times_with_a_zone_are_what_they_say(station: Station, tmp_path: Path) -> None:
    def frames(*options: str) -> str:
        return umbra("report", tmp_path / "r.html", "--station", station.root, *options).stdout.split()[1]

    assert frames("--since", "2026-03-01T12:00:00+02:00") == frames("--since", "2026-03-01 10:00") == "3"
    assert frames("--until", "20260301T1000") == frames("--until", "2026-03-01T10:00:00Z") == "2"


@pytest.mark.parametrize(
    ("days", "step", "every", "count"), [(2, "hour", 1, 49), (30, "day", 1, 31), (400, "day", 6, 67)]
)
def test_time_is_cut_into_as_many_steps_as_can_be_seen(days: int, step: str, every: int, count: int) -> None:
    rows = [{"decided_at": at(24 * days * part), "verdict": "PASS"} for part in (0, 0.5, 1)]
    found = steps(rows)
    assert (found["step"], found["every"], len(found["rows"])) == (step, every, count)
    assert sum(row["PASS"] for row in found["rows"]) == 3


def found_by(rows: list[dict[str, Any]], reference: Reference | None) -> Mapping[Any, Any]:
    rows = [row | {"seq": n, "decided_at": at(n / 60)} for n, row in enumerate(rows)]
    first: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        if row["class"] == "OK":
            first.setdefault(row["product"], []).append(row)
    found = drifts(rows, reference, {product: of[:OWN_FIRST] for product, of in first.items()})
    return {one.metric if len(first) == 1 else (one.product, one.metric): one for one in found}


def test_the_alarm_tells_another_population_from_the_same() -> None:
    same = found_by(measured_rows(300, seed=1), REFERENCE)
    assert same.keys() == set(METRICS)
    assert not any(one.alarms for one in same.values())
    moved = found_by(measured_rows(300, seed=2, m_alpha=1.0), REFERENCE)
    assert [metric for metric, one in moved.items() if one.alarms] == ["m_alpha"]
    assert (moved["m_alpha"].test.rule, len(moved["m_alpha"].history)) == ("index", 1)


def test_noise_is_another_sensors_where_it_leaves_the_range_of_the_test_set() -> None:
    narrow = [row | {"noise_sigma": 4.0 + 1e-3 * n} for n, row in enumerate(measured_rows(300, seed=1))]
    one = found_by(narrow, REFERENCE)["noise_sigma"]
    assert (one.test.rule, one.test.value, one.alarms) == ("outside", 0.0, False), "one of several sensors"
    loud = found_by(measured_rows(300, seed=2, noise_sigma=3.0), REFERENCE)
    assert [metric for metric, one in loud.items() if one.alarms] == ["noise_sigma"]
    assert loud["noise_sigma"].test.value > 0.5


def test_it_looks_at_the_newest_frames_and_at_those_called_ok() -> None:
    back = found_by(measured_rows(300, seed=3, score=2.0) + measured_rows(WINDOW, seed=4), REFERENCE)["score"]
    assert not back.alarms
    assert [share > 1 for _, share in back.history] == [True, False]
    spots = [row | {"class": "Spot", "score": 9.0} for row in measured_rows(400, seed=5)]
    assert not found_by(measured_rows(300, seed=6) + spots, REFERENCE)["score"].alarms
    assert found_by(measured_rows(WINDOW - 1), REFERENCE) == {}, "too few to tell"


def test_a_product_is_compared_with_its_own_first_frames_too() -> None:
    rows = measured_rows(OWN_FIRST + 100, seed=7) + measured_rows(WINDOW, seed=8, noise_median=0.6)
    found = found_by(rows, REFERENCE)["noise_median"]
    assert (found.test.alarms, found.own.alarms, found.alarms) == (False, True, True), "in the range, and yet it moved"
    assert [share > 1 for _, share in found.history] == [False, False, False, True]
    alone = found_by(rows, None)["noise_median"]
    assert (alone.test, alone.alarms) == (None, True)
    steady = found_by(measured_rows(OWN_FIRST + WINDOW, seed=9, score=9), REFERENCE)["score"]
    assert (steady.test.alarms, steady.own.alarms) == (True, False), "far from the test set, and as it always was"


def test_what_cannot_be_compared_is_not_called_steady() -> None:
    assert {one.state for one in found_by(measured_rows(300), None).values()} == {"not compared"}


def test_its_own_first_frames_are_those_of_the_log_whatever_the_span() -> None:
    drifting = [
        row | {"m_alpha": row["m_alpha"] + n / 2000, "seq": n} for n, row in enumerate(measured_rows(6000, seed=11))
    ]
    newest = drifting[-1000:]
    [one] = [one for one in drifts(newest, None, {"P": drifting[:OWN_FIRST]}) if one.metric == "m_alpha"]
    assert one.alarms


def test_products_are_told_apart() -> None:
    rows = measured_rows(300, seed=1) + measured_rows(300, product="Q", seed=2, m_alpha=3)
    assert [place for place, one in found_by(rows, REFERENCE).items() if one.alarms] == [("Q", "m_alpha")]


def test_all_equal_values_are_no_alarm() -> None:
    zero = Reference("x", {metric: Distribution.of([0.0] * 300) for metric in METRICS})
    rows = [row | dict.fromkeys(METRICS, 0.0) for row in measured_rows(OWN_FIRST + WINDOW)]
    assert {one.state for one in found_by(rows, zero).values()} == {"steady"}


def test_the_page_is_one_file_that_asks_for_nothing(station: Station, tmp_path: Path, starter: Bundle) -> None:
    out = tmp_path / "report.html"
    told = umbra("report", out, "--station", station.root).stdout
    assert told == f"{out}: 5 frames, 0 alarms of drift\n"
    text = out.read_text()
    assert not re.search(r"(src|href)=\"(?!data:)", text)
    assert not re.search(r"url\(|@import|<script|https?://", text)
    for wanted in ("again.tif", "bad.tif", "q.tif", starter.identity, "Alarm rule", "no picture is kept", "40.0"):
        assert wanted in text, wanted
    assert [p.name for p in tmp_path.iterdir() if p.is_file()] == ["report.html"]


def test_a_name_in_the_report_is_text(tmp_path: Path) -> None:
    made = Station.open(tmp_path / "s", create=True)
    with closing(VerdictLog(made.database)) as log:
        log.record(frame(), row_of("<b>P/L/<script>x.tif"))
    umbra("report", tmp_path / "r.html", "--station", made.root)
    text = (tmp_path / "r.html").read_text()
    assert "<script" not in text
    assert "&lt;b&gt;P" in text


def test_what_cannot_be_reported_is_said(station: Station, tmp_path: Path) -> None:
    out = tmp_path / "r.html"
    later = umbra("report", out, "--station", station.root, "--since", "2030-01-01", "--product", "X", expect=1).stderr
    assert "no verdict to report on, of product X, since 2030-01-01T00:00:00.000Z" in later
    assert "wanted a time" in umbra("report", out, "--station", station.root, "--since", "yesterday", expect=2).stderr
    assert not out.exists()
