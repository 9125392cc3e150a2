"""Columns follow the log, whatever happened to their files; what-if answers from them are the log's own numbers."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from appliance.columns import DTYPES, columns
from appliance.decide import decide
from appliance.labels import Label
from appliance.station import Station
from appliance.verdict import Row, verdict_row
from appliance.verdict_log import VerdictLog
from appliance.whatif import what_if
from engines.regions import find_regions
from kernels import Reducer
from tests.appliance.test_decide import frame, measured

LOTS = (("P", "L1"), ("P", "L2"), ("Q", "L1"))


def record(log: VerdictLog, number: int, *, bundle: str = "b@1") -> Row:
    """A frame with an unseen map of its own."""
    rng = np.random.default_rng(number)
    logits = rng.normal(2, 2, (2, 224, 224)).astype(np.float32)
    logits[:, 20 : 40 + number, 30:60] = -rng.uniform(0, 6)
    metrics = Reducer(threshold=0.6, alpha=2.0).reduce(logits)
    measurement = replace(measured(), unseen=metrics, regions=tuple(find_regions(metrics.map, threshold=0.6)))
    decision = decide(frame(), measurement, spec=0.3, capture_failed="retest")
    product, lot = LOTS[number % 3]
    name = f"d{number}.tif"
    row = verdict_row(frame(), measurement, decision, bundle=(bundle, "e@1"), unseen=(0.6, 2.0),
                      ms={"decode": 1, "inspect": 2, "total": 3})  # fmt: skip
    path = f"{product}/{lot}/{name}"
    return log.record(
        frame(), row | {"path": path, "product": product, "lot": lot, "name": name, "sha256": f"{number:064}"}
    )


@pytest.fixture
def log(station: Station) -> VerdictLog:
    return VerdictLog(station.database)


def same(log: VerdictLog, folder: Path, bundle: str = "b@1") -> bool:
    """Whether the columns hold what the log holds."""
    held = columns(folder, log, bundle)
    rows = log.verdicts("v.bundle = ? AND v.histogram IS NOT NULL", [bundle])
    assert [(row["seq"], row["frame_id"], row["m_thresh"], row["m_alpha"]) for row in rows] == list(
        zip(*(getattr(held, name).tolist() for name in ("seq", "frame_id", "m_thresh", "m_alpha")), strict=True)
    )
    assert [(row["product"], row["lot"]) for row in rows] == [held.lots[k] for k in held.lot]
    for row, histogram, rois in zip(rows, held.histogram, held.rois, strict=True):
        np.testing.assert_array_equal(np.frombuffer(row["histogram"], "<u4"), histogram)
        assert rois == pytest.approx(sum(roi["peak"] for roi in json.loads(row["rois"])))
    return True


def test_columns_follow_the_log(log: VerdictLog, tmp_path: Path) -> None:
    assert same(log, tmp_path / "c")
    for number in range(3):
        record(log, number)
    assert same(log, tmp_path / "c")
    record(log, 3)
    record(log, 3, bundle="b@2")
    assert same(log, tmp_path / "c")
    assert same(log, tmp_path / "c", "b@2")


def test_columns_of_products_and_lots(log: VerdictLog, tmp_path: Path) -> None:
    for number in range(7):
        record(log, number)
    held = columns(tmp_path / "c", log, "b@1")
    assert held.frame_id[held.of("P", None)].tolist() == [1, 2, 4, 5, 7]
    assert held.frame_id[held.of(None, "L1")].tolist() == [1, 3, 4, 6, 7]
    assert held.frame_id[held.of("Q", "L2")].tolist() == []


@pytest.mark.parametrize("name", DTYPES)
def test_a_column_cut_short_by_a_kill_is_mended(log: VerdictLog, tmp_path: Path, name: str) -> None:
    for number in range(4):
        record(log, number)
    columns(tmp_path / "c", log, "b@1")
    path = tmp_path / "c" / "v1-1" / name
    path.write_bytes(path.read_bytes()[:-3])
    assert same(log, tmp_path / "c")


@pytest.mark.parametrize("damage", ["zeros", "other log", "lots", "empty lots"])
def test_columns_that_are_not_the_logs_are_made_anew(log: VerdictLog, tmp_path: Path, damage: str) -> None:
    for number in range(4):
        record(log, number)
    columns(tmp_path / "c", log, "b@1")
    place = tmp_path / "c" / "v1-1"
    if damage == "zeros":
        path = place / "histogram"
        path.write_bytes(path.read_bytes()[:-512] + bytes(512))
    elif damage == "empty lots":
        (place / "lots.json").write_text("")
    elif damage == "lots":
        (place / "lots.json").unlink()
    else:
        (place / "seq").write_bytes(np.arange(101, 105, dtype="<i8").tobytes())
    assert same(log, tmp_path / "c")


def test_what_the_log_has_forgotten_is_left_out(
    log: VerdictLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("appliance.columns.ROWS", 3)
    for number in range(8):
        record(log, number)
    before = columns(tmp_path / "c", log, "b@1")
    seen = before.m_alpha.tolist()
    log.add_labels([(3, Label(class_name="OK", who="jo", at="2026-01-01"))])
    assert log.forget(cut := "9999", chunk=2, up_to=5) == 4
    assert same(log, tmp_path / "c")
    assert before.m_alpha.tolist() == seen  # whoever has them mapped still reads what was there
    record(log, 9)
    assert same(log, tmp_path / "c")
    assert log.forget(cut, chunk=9) == 4
    assert same(log, tmp_path / "c")
    assert len(columns(tmp_path / "c", log, "b@1")) == 1


def test_columns_whose_rows_were_being_left_out_at_a_power_cut_are_made_anew(log: VerdictLog, tmp_path: Path) -> None:
    for number in range(8):
        record(log, number)
    columns(tmp_path / "c", log, "b@1")
    place = tmp_path / "c" / "v1-1"
    (place / "swapping").touch()
    m_alpha = place / "m_alpha"
    m_alpha.write_bytes(m_alpha.read_bytes()[8:])  # one of them was swapped
    assert same(log, tmp_path / "c")
    assert not (place / "swapping").exists()


def test_a_readonly_log_is_enough(log: VerdictLog, station: Station, tmp_path: Path) -> None:
    record(log, 0)
    assert same(VerdictLog(station.database, readonly=True), tmp_path / "c")


def test_what_if_gives_what_would_have_been_measured(log: VerdictLog, station: Station) -> None:
    stored = [record(log, number) for number in range(6)]
    counts = np.stack([np.frombuffer(row["histogram"], "<u4") for row in stored])
    found = what_if(station, log, t=0.5, alpha=3.0)["unseen"]
    assert (found["bundle"], found["frames"]) == ("b@1", 6)
    expected = counts[:, 128:].sum(1)
    thresh = found["m_thresh"]
    assert (thresh["t"], thresh["exact"]) == (0.5, True)
    assert thresh["mean"] == [expected.mean()] * 2
    assert thresh["mean_per_pixel"] == pytest.approx([expected.mean() / 224**2] * 2)
    assert thresh["frames_above_0"] == [(expected > 0).sum()] * 2
    assert thresh["quantiles"]["1"] == [expected.max()] * 2
    low, high = found["m_alpha"]["mean"]
    assert low < high
    assert found["m_alpha"]["exact"] is False


def test_what_if_at_the_bundles_own_numbers_is_exact(log: VerdictLog, station: Station) -> None:
    stored = [record(log, number) for number in range(6)]
    found = what_if(station, log, t=0.6, alpha=2.0, product="P")["unseen"]
    here = [row for row in stored if row["product"] == "P"]
    assert found["frames"] == 4
    assert found["m_thresh"]["mean"] == pytest.approx([np.mean([row["m_thresh"] for row in here])] * 2)
    assert found["m_alpha"]["mean"] == pytest.approx([np.mean([row["m_alpha"] for row in here])] * 2)
    assert found["m_alpha"]["exact"] is True


def test_what_if_on_an_empty_log_and_an_unknown_product(log: VerdictLog, station: Station) -> None:
    assert what_if(station, log, t=0.5)["unseen"] == {"bundle": None, "frames": 0}
    record(log, 0)
    assert what_if(station, log, t=0.5, product="nosuch")["unseen"]["frames"] == 0
    for product, lot in (("nosuch", None), (None, "nosuch"), ("P", "nosuch")):
        found = what_if(station, log, spec=0.5, t=0.5, product=product, lot=lot)
        assert found["would"] == {"PASS": 0, "FAIL": 0, "RETEST": 0}
        assert found["unseen"]["frames"] == 0
