"""Wafer maps of a lot: SEMI G85 as XML, and the same as CSV; the newest verdict of each die."""

from __future__ import annotations

import asyncio
import csv
import io
import re
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Sequence
from itertools import groupby

from appliance import log as events
from appliance.line.feed import Feed
from appliance.line.lots import Lot, file_of, follow, put, rows_of
from appliance.settings import LotSettings
from appliance.station import Station
from appliance.verdict import Row

NULL_BIN = 255
BINS = {1: ("Pass", "PASS"), 2: ("Fail", "FAIL"), 3: ("Fail", "RETEST")}  # a die that nobody passed is not picked
LOWER_LEFT = 3
WIDEST = 2000  # dies across: a position that makes a map larger is wrong
_NO_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
COLUMNS = ("x", "y", "frame", "verdict", "hard_bin", "class", "level", "score", "limit", "reason", "seq", "decided_at")


_log = events.get()


def newest_by_die(rows: Sequence[Row]) -> dict[tuple[int, int], Row]:
    """The newest verdict of each die, of the verdicts of one wafer in their order."""
    return {(row["die_x"], row["die_y"]): row for row in rows if row["die_x"] is not None and row["die_y"] is not None}


def as_xml(lot: Lot, wafer: str, dies: dict[tuple[int, int], Row]) -> bytes:
    """The map by SEMI G85-1101. Rows go from the largest y to the smallest, columns from the smallest x to the largest.

    Raises:
        ValueError: dies lie so far apart that one of the positions is wrong.
    """
    xs, ys = sorted({x for x, _ in dies}), sorted({y for _, y in dies})
    columns, lines = xs[-1] - xs[0] + 1, ys[-1] - ys[0] + 1
    if max(columns, lines) > WIDEST:
        raise ValueError(f"wafer {wafer}: {columns} x {lines} dies, wanted at most {WIDEST} across")
    last = max(row["decided_at"] for row in dies.values())
    when = "".join(c for c in last if c.isdigit())
    wafer, product, name = (_NO_XML.sub("\ufffd", text) for text in (wafer, *lot))
    root = ET.Element("Maps")
    top = ET.SubElement(root, "Map", {
        "xmlns:semi": "http://www.semi.org", "WaferId": wafer, "SubstrateId": wafer, "SubstrateType": "Wafer",
        "FormatRevision": "G85-1101",
    })  # fmt: skip
    device = ET.SubElement(top, "Device", {
        "ProductId": product, "LotId": name, "CreateDate": when, "SupplierName": "", "Rows": str(lines), "Columns": str(columns),
        "Orientation": "0", "OriginLocation": str(LOWER_LEFT), "BinType": "Decimal", "NullBin": str(NULL_BIN),
    })  # fmt: skip
    for number, count in sorted(Counter(row["hard"] for row in dies.values()).items()):
        quality, text = BINS[number]
        ET.SubElement(
            device,
            "Bin",
            {"BinCode": f"{number:03}", "BinCount": str(count), "BinQuality": quality, "BinDescription": text},
        )
    ET.SubElement(device, "SupplierData", {"FirstColumnX": str(xs[0]), "LastRowY": str(ys[0])})
    data = ET.SubElement(device, "Data", {"MapName": "Umbra", "MapVersion": "1"})
    for y in range(ys[-1], ys[0] - 1, -1):
        codes = (dies[x, y]["hard"] if (x, y) in dies else NULL_BIN for x in range(xs[0], xs[-1] + 1))
        ET.SubElement(data, "Row").text = " ".join(f"{code:03}" for code in codes)
    ET.indent(root)
    made: bytes = ET.tostring(root, encoding="utf-8", xml_declaration=True)
    made = made.replace(b"<Row>", b"<Row><![CDATA[").replace(
        b"</Row>", b"]]></Row>"
    )  # as readers of this format expect it
    return made + b"\n"


def as_csv(dies: dict[tuple[int, int], Row]) -> bytes:
    """One line a die, by y, then x; empty where nothing was measured."""
    text = io.StringIO(newline="")
    out = csv.writer(text, lineterminator="\n")
    out.writerow(COLUMNS)
    for (x, y), row in sorted(dies.items(), key=lambda item: (item[0][1], item[0][0])):
        told = (
            row["name"],
            row["verdict"],
            row["hard"],
            row["class"],
            row["level"],
            row["score"],
            row["spec"],
            row["reason"],
        )
        out.writerow((x, y, *told, row["seq"], row["decided_at"]))
    return text.getvalue().encode()


def write(station: Station, lot: Lot) -> None:
    """Write lots/<product>/<lot>/wafer-<wafer>.xml and .csv of each wafer, as the log has them now."""
    for wafer, rows in groupby(rows_of(station, lot), key=lambda row: row["wafer"]):
        dies = newest_by_die(list(rows))
        if wafer is None or not dies:
            continue
        put(file_of(station, lot, f"wafer-{wafer}", ".csv"), [as_csv(dies)])
        try:
            put(file_of(station, lot, f"wafer-{wafer}", ".xml"), [as_xml(lot, wafer, dies)])
        except ValueError as error:
            _log.error(events.MAP_REFUSED, product=lot[0], lot=lot[1], reason=str(error))


async def run(station: Station, settings: LotSettings, feed: Feed, stopping: asyncio.Event) -> None:
    """Write lots that rest, until told to stop."""
    await follow(station, feed, stopping, rest_s=settings.rest_s, write=write)
