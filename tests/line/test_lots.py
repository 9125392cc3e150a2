"""Files of lots: STDF V4 as an independent parser reads it, SEMI G85 and CSV, written when a lot rests, and again later."""

from __future__ import annotations

import csv
import io
import os
import xml.etree.ElementTree as ET
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from pystdf.IO import Parser

from appliance.line import wafer_map
from appliance.line.lots import file_of, rows_of
from appliance.line.stdf import MISSING_BIN, TESTS
from appliance.line.stdf import write as write_stdf
from appliance.line.wafer_map import write as write_maps
from appliance.station import Station
from appliance.verdict import Row
from appliance.verdict_log import VerdictLog
from tests.appliance.running import Daemon, drop, outbox, wait_until
from tests.appliance.test_cli import umbra
from tests.appliance.test_decide import frame
from tests.appliance.test_verdict_log import row_of
from tests.line.conftest import line_state


class _Sink:
    """Keeps what pystdf sends, by the names of records."""

    def __init__(self) -> None:
        self.records: list[tuple[str, dict[str, Any]]] = []

    def before_begin(self, _source: Any) -> None:
        self.records.clear()

    def after_send(self, _source: Any, data: Any) -> None:
        kind, values = data
        self.records.append((kind.name.rpartition(".")[2].upper(), dict(zip(kind.fieldNames, values, strict=True))))

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *_: None


def read(path: Path) -> list[tuple[str, dict[str, Any]]]:
    sink = _Sink()
    with path.open("rb") as file:
        parser = Parser(inp=file)
        parser.addSink(sink)
        parser.parse()
    return sink.records


def of(records: list[tuple[str, dict[str, Any]]], *names: str) -> list[dict[str, Any]]:
    return [fields for name, fields in records if name in names]


def judged(
    number: int, *, wafer: str | None = None, die: tuple[int, int] | None = None, **other: Any
) -> tuple[Any, Row]:
    row = row_of(f"P/L/f{number}.tif", sha256=f"{number:064}", unreadable=other.pop("unreadable", None))
    place = {"wafer": wafer, "die_x": die[0] if die else None, "die_y": die[1] if die else None}
    return frame(row["reason"] if row["score"] is None else None), row | place | other


FAILS = {
    "verdict": "FAIL",
    "hard": 2,
    "reason": "score 0.900 above the limit 0.3",
    "score": 0.9,
    "class": "Spot",
    "soft": "Spot",
}


@pytest.fixture
def station(tmp_path: Path) -> Station:
    """A log with two wafers: a die that failed and then passed, one that was never measured, and a frame of no wafer."""
    made = Station.open(tmp_path, create=True)
    with closing(VerdictLog(made.database)) as log:
        for seen, row in (
            judged(1, wafer="2", die=(0, 0), **FAILS),
            judged(2, wafer="1", die=(-1, 5)),
            judged(3),
            judged(4, wafer="2", die=(0, 0)),
            judged(5, wafer="2", die=(2, -1), unreadable="broken"),
            judged(6, wafer="2", die=(1, 0), **FAILS),
        ):
            log.record(seen, row)
        other = judged(7)[1] | {"lot": "M", "path": "P/M/f7.tif"}
        log.record(frame(), other)
        log.record(frame(), judged(8)[1], origin="screen")
    return made


def test_stdf_as_another_parser_reads_it(station: Station) -> None:
    write_stdf(station, ("P", "L"))
    records = read(station.root / "lots/P/L/L.stdf")
    names = [name for name, _ in records]
    part = ["PIR", *["PTR"] * len(TESTS), "PRR"]
    assert names == [
        "FAR", "MIR", "SDR", *part, "WIR", *part, "WRR", "WIR", *part * 4, "WRR", "PCR", "HBR", "HBR", "HBR", "SBR", "SBR", "MRR",
    ]  # fmt: skip
    [mir] = of(records, "MIR")
    rows = rows_of(station, ("P", "L"))
    assert (mir["LOT_ID"], mir["PART_TYP"], mir["JOB_NAM"], mir["TSTR_TYP"]) == ("L", "P", "b@1", "Umbra")
    assert [w["WAFER_ID"] for w in of(records, "WIR")] == ["1", "2"]
    parts = of(records, "PRR")
    assert [p["PART_ID"] for p in parts] == [f"f{n}.tif" for n in (3, 2, 1, 4, 5, 6)]
    assert [(p["X_COORD"], p["Y_COORD"]) for p in parts] == [(-32768, -32768), (-1, 5), (0, 0), (0, 0), (2, -1), (1, 0)]
    assert [p["HARD_BIN"] for p in parts] == [row["hard"] for row in rows] == [1, 1, 2, 1, 3, 2]
    assert [p["SOFT_BIN"] for p in parts] == [1, 1, 2, 1, MISSING_BIN, 2]
    assert [p["PART_FLG"] for p in parts] == [0, 0, 0b1000, 0b10, 0b10100, 0b1000], "failed, retested, undecided"
    assert [p["NUM_TEST"] for p in parts] == [8, 8, 8, 8, 0, 8]
    assert parts[4]["PART_TXT"] == rows[4]["reason"] == "unreadable: broken"
    scores = [t for t in of(records, "PTR") if t["TEST_TXT"] == "Score"]
    assert [t["RESULT"] for t in scores] == pytest.approx([row["score"] or 0.0 for row in rows], rel=1e-6)
    assert [t["TEST_FLG"] for t in scores] == [0, 0, 0x80, 0, 0x52, 0x80], "passed, failed, not executed"
    assert [t["HI_LIMIT"] for t in scores] == [pytest.approx(0.3)] * 6
    assert [t["PARM_FLG"] for t in scores] == [0x80, 0x80, 0x88, 0x80, 0x80, 0x88], (
        "equal to the limit passes; above it"
    )
    assert {t["OPT_FLAG"] & 0b1111_0000 for t in scores} == {0b0100_0000}, "a high limit, no low one"
    noise = [t for t in of(records, "PTR") if t["TEST_TXT"] == "NoiseSigma"]
    assert {(t["UNITS"], t["OPT_FLAG"] & 0b1100_0000) for t in noise} == {("DN", 0b1100_0000)}
    [total] = of(records, "PCR")
    assert (total["PART_CNT"], total["RTST_CNT"], total["ABRT_CNT"], total["GOOD_CNT"]) == (5, 1, 1, 3)
    assert [(w["PART_CNT"], w["RTST_CNT"], w["GOOD_CNT"]) for w in of(records, "WRR")] == [(1, 0, 1), (3, 1, 1)]
    assert [(b["HBIN_NUM"], b["HBIN_CNT"], b["HBIN_PF"], b["HBIN_NAM"]) for b in of(records, "HBR")] == [
        (1, 3, "P", "PASS"), (2, 1, "F", "FAIL"), (3, 1, " ", "RETEST")]  # fmt: skip
    assert [(b["SBIN_NUM"], b["SBIN_CNT"], b["SBIN_PF"], b["SBIN_NAM"]) for b in of(records, "SBR")] == [
        (1, 3, "P", "OK"), (2, 1, "F", "Spot")]  # fmt: skip
    assert of(records, "MRR")[0]["FINISH_T"] >= mir["START_T"] > 1_700_000_000


def test_names_of_any_kind_and_places_out_of_range_fit_stdf(tmp_path: Path) -> None:
    made = Station.open(tmp_path, create=True)
    with closing(VerdictLog(made.database)) as log:
        seen, row = judged(1, wafer="ä" * 200, die=(40_000, 1))
        log.record(seen, row | {"name": "Ω" * 120, "reason": "x" * 4000})
    write_stdf(made, ("P", "L"))
    records = read(made.root / "lots/P/L/L.stdf")
    [part], [wafer] = of(records, "PRR"), of(records, "WIR")
    assert part["PART_ID"].startswith("\\u03a9\\u03a9")
    assert len(part["PART_ID"]) == len(part["PART_TXT"]) == len(wafer["WAFER_ID"]) == 255
    assert part["X_COORD"] == -32768


def test_a_map_by_g85_and_as_csv_holds_the_newest_verdict_of_each_die(station: Station) -> None:
    write_maps(station, ("P", "L"))
    folder = station.root / "lots/P/L"
    assert sorted(p.name for p in folder.iterdir()) == ["wafer-1.csv", "wafer-1.xml", "wafer-2.csv", "wafer-2.xml"]
    text = (folder / "wafer-2.xml").read_text()
    assert "<Row><![CDATA[001 002 255]]></Row>" in text
    top = ET.fromstring(text)[0]  # noqa: S314  (our own)
    assert top.attrib == {"WaferId": "2", "SubstrateId": "2", "SubstrateType": "Wafer", "FormatRevision": "G85-1101"}
    device = top[0]
    wanted = {
        "ProductId": "P",
        "LotId": "L",
        "Rows": "2",
        "Columns": "3",
        "BinType": "Decimal",
        "NullBin": "255",
        "OriginLocation": "3",
    }
    assert device.attrib.items() >= wanted.items()
    assert [row.text for row in device.iter("Row")] == ["001 002 255", "255 255 003"], "from the largest y down"
    assert [tuple(b.attrib.values()) for b in device.iter("Bin")] == [
        ("001", "1", "Pass", "PASS"), ("002", "1", "Fail", "FAIL"), ("003", "1", "Fail", "RETEST")]  # fmt: skip
    first = device.find("SupplierData")
    assert first is not None
    assert (first.get("FirstColumnX"), first.get("LastRowY")) == ("0", "-1")
    lines = list(csv.DictReader(io.StringIO((folder / "wafer-2.csv").read_text())))
    assert [(line["x"], line["y"], line["verdict"], line["frame"]) for line in lines] == [
        ("2", "-1", "RETEST", "f5.tif"), ("0", "0", "PASS", "f4.tif"), ("1", "0", "FAIL", "f6.tif")]  # fmt: skip
    assert (lines[0]["score"], lines[0]["reason"], lines[2]["score"]) == ("", "unreadable: broken", "0.9")


def test_a_wafer_of_any_name_stays_in_its_folder(tmp_path: Path) -> None:
    made = Station.open(tmp_path, create=True)
    with closing(VerdictLog(made.database)) as log:
        log.record(*judged(1, wafer="../../\x01<&", die=(1, 1)))
    write_maps(made, ("P", "L"))
    [written] = made.lots.rglob("*.xml")
    assert written.parent == made.lots / "P/L"
    assert ET.fromstring(written.read_text())[0].get("WaferId") == "../../\ufffd<&"  # noqa: S314  (our own)
    long = file_of(made, ("P", "L"), "ä" * 300, ".xml")
    assert len(os.fsencode(long.name)) <= 255


def test_a_die_that_cannot_be_there_costs_the_xml_alone(tmp_path: Path) -> None:
    made = Station.open(tmp_path, create=True)
    with closing(VerdictLog(made.database)) as log:
        log.record(*judged(1, wafer="1", die=(0, 0)))
        log.record(*judged(2, wafer="1", die=(10**9, 0)))
    write_maps(made, ("P", "L"))
    assert [p.name for p in (made.lots / "P/L").iterdir()] == ["wafer-1.csv"]
    rows = rows_of(made, ("P", "L"))
    with pytest.raises(ValueError, match="1000000001 x 1 dies, wanted at most 2000 across"):
        wafer_map.as_xml(("P", "L"), "1", wafer_map.newest_by_die(rows))


def test_a_lot_is_written_when_it_rests_and_again_when_more_comes(with_hosts: Callable[[str], Station]) -> None:
    made = with_hosts("[line.stdf]\nrest_s = 1\n[line.wafer_map]\nrest_s = 1")
    running = Daemon(made)
    running.wait_ready()
    for number in range(3):
        drop(made, f"f_W1_X{number}_Y0", seed=number)
    stdf, map_ = made.lots / "P/L/L.stdf", made.lots / "P/L/wafer-1.xml"
    wait_until(lambda: stdf.exists() and len(of(read(stdf), "PRR")) == 3, "the lot rests")
    wait_until(map_.exists, "its map")
    wait_until(
        lambda: all(line_state(made, name).get("behind") == 0 for name in ("stdf", "wafer_map")), "all is written"
    )
    assert running.stop() == 0
    again = Daemon(made)
    again.wait_ready()
    drop(made, "late_W1_X9_Y9", seed=9)
    wait_until(lambda: len(of(read(stdf), "PRR")) == 4, "written anew")
    wait_until(lambda: 'Columns="10"' in map_.read_text(), "the map, too")
    stdf.unlink()
    stdf.mkdir()
    drop(made, "later_W1_X8_Y8", seed=10)
    drop(made, "other", seed=11, folder="P/M")
    wait_until((made.lots / "P/M/M.stdf").exists, "another lot is written all the same")
    wait_until(lambda: "P/L" in (line_state(made, "stdf").get("error") or ""), "why that one is not")
    assert len(outbox(made)) == 6
    assert again.stop() == 0


def test_files_of_a_lot_on_demand(station: Station, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    umbra("lot", "stdf", "P", "L", out / "l.stdf", "--station", station.root)
    assert len(of(read(out / "l.stdf"), "PRR")) == 6
    umbra("lot", "map", "P", "L", "2", out / "w.xml", "--station", station.root)
    umbra("lot", "map", "P", "L", "2", out / "w.csv", "--station", station.root)
    assert len((out / "w.csv").read_text().splitlines()) == 4
    gone = umbra("lot", "stdf", "P", "X", out / "x.stdf", "--station", station.root, expect=1)
    assert "P/X: no frame of it was judged here" in gone.stderr
    umbra("lot", "map", "P", "L", "9", out / "w.xml", "--station", station.root, expect=1)
    umbra("lot", "map", "P", "L", "2", out / "w.txt", "--station", station.root, expect=2)
