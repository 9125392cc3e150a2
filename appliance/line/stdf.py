"""STDF V4 (Teradyne's Standard Test Data Format): one file a lot, of parametric tests, bins and parts; little-endian."""

from __future__ import annotations

import asyncio
import datetime as dt
import struct
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from itertools import groupby

from appliance.line.feed import Feed
from appliance.line.lots import Lot, file_of, follow, put, rows_of
from appliance.settings import LotSettings
from appliance.station import Station
from appliance.verdict import Row
from engines import CLASSES

HEAD, SITE, ALL_HEADS = 1, 1, 255
NOT_EXECUTED, NO_VERDICT, FAILED = (
    0b0001_0010,
    0b0100_0000,
    0b1000_0000,
)  # TEST_FLG; not executed: RESULT is invalid, too
ABOVE, EQUAL_PASSES = 0b1000, 0b1000_0000  # PARM_FLG
RETESTED_ID, RETESTED_PLACE, ABNORMAL, PART_FAILED, PART_UNDECIDED = 0b1, 0b10, 0b100, 0b1000, 0b1_0000  # PART_FLG
NO_SPECS, NO_LOW, NO_HIGH = 0b0000_1110, 0b0100_0000, 0b1000_0000  # OPT_FLAG
MISSING_PLACE, MISSING_BIN, MISSING_COUNT = -32768, 65535, 4294967295
HARD_BINS = {1: ("P", "PASS"), 2: ("F", "FAIL"), 3: (" ", "RETEST")}


@dataclass(frozen=True, slots=True)
class _Test:
    """A parametric test: its number, name, the column of its result and the unit."""

    number: int
    name: str
    column: str
    unit: str = ""


TESTS = (
    _Test(1, "PNotGood", "p_ng"),
    _Test(2, "Level", "level"),
    _Test(3, "Score", "score"),
    _Test(4, "UnseenMThresh", "m_thresh"),
    _Test(5, "UnseenMAlpha", "m_alpha"),
    _Test(6, "UnseenRegions", "rois"),
    _Test(7, "NoiseMedian", "noise_median", "DN"),
    _Test(8, "NoiseSigma", "noise_sigma", "DN"),
)
SCORE = 3  # the one test that has a limit


def _text(text: str) -> bytes:
    """C*n: length and ASCII, at most 255 bytes; what is not ASCII becomes escapes."""
    known = text.encode("ascii", "backslashreplace")[:255]
    return bytes([len(known)]) + known


def _record(kind: tuple[int, int], *parts: bytes) -> bytes:
    body = b"".join(parts)
    return struct.pack("<HBB", len(body), *kind) + body


def _seconds(at: str) -> int:
    return int(dt.datetime.fromisoformat(at).timestamp())


def records(station: str, lot: Lot, rows: Sequence[Row]) -> Iterator[bytes]:
    """The records of a lot: FAR MIR SDR, for each wafer WIR (PIR PTR.. PRR).. WRR, then PCR HBR.. SBR.. MRR.

    Args:
        station: its name.
        lot: product and lot.
        rows: verdicts as lots.rows_of has them; at least one.
    """
    times = [_seconds(row["decided_at"]) for row in rows]
    newest = max(rows, key=lambda row: row["seq"])
    product, name = lot
    yield _record((0, 10), struct.pack("<BB", 2, 4))
    yield _record(
        (1, 10), struct.pack("<IIB", min(times), min(times), 1), b"P  ", struct.pack("<H", 65535), b" ",
        *map(_text, (name, product, station, "Umbra", newest["bundle"], "", "", "", "umbra", version("umbra"))),
    )  # fmt: skip
    yield _record((1, 80), struct.pack("<BBBB", HEAD, 255, 1, SITE))
    for wafer, of_wafer in groupby(rows, key=lambda row: row["wafer"]):
        parts = list(of_wafer)
        if wafer is not None:
            yield _record((2, 10), struct.pack("<BBI", HEAD, 255, _seconds(parts[0]["decided_at"])), _text(wafer))
        yield from _parts(parts)
        if wafer is not None:
            finish = struct.pack("<BBI", HEAD, 255, _seconds(parts[-1]["decided_at"]))
            yield _record((2, 20), finish, _counts(parts), _text(wafer))
    yield _record((1, 30), struct.pack("<BB", ALL_HEADS, 0), _counts(rows))
    final = _final(rows)
    for number, count in sorted(Counter(row["hard"] for row in final).items()):
        mark, text = HARD_BINS[number]
        yield _record((1, 40), struct.pack("<BBHI", ALL_HEADS, 0, number, count), mark.encode(), _text(text))
    for number in sorted({_soft_bin(row) for row in final} - {MISSING_BIN}):
        passed = [row["verdict"] == "PASS" for row in final if _soft_bin(row) == number]
        failed = [row["verdict"] == "FAIL" for row in final if _soft_bin(row) == number]
        mark = "P" if all(passed) else "F" if all(failed) else " "
        head = struct.pack("<BBHI", ALL_HEADS, 0, number, len(passed))
        yield _record((1, 50), head, mark.encode(), _text(CLASSES[number - 1]))
    yield _record((1, 20), struct.pack("<I", max(times)), b" ")


def _parts(rows: Iterable[Row]) -> Iterator[bytes]:
    """PIR, PTRs and PRR of each verdict; a part that was judged before is marked so."""
    names: set[str] = set()
    places: set[tuple[int, int]] = set()
    for row in rows:
        yield _record((5, 10), struct.pack("<BB", HEAD, SITE))
        yield from (_test(test, row) for test in TESTS)
        executed = sum(row[test.column] is not None for test in TESTS)
        place = None if row["die_x"] is None or row["die_y"] is None else (row["die_x"], row["die_y"])
        fits = place is not None and all(abs(v) < -MISSING_PLACE for v in place)
        flag = RETESTED_PLACE if fits and place in places else RETESTED_ID if row["name"] in names else 0
        flag |= {"PASS": 0, "FAIL": PART_FAILED, "RETEST": ABNORMAL | PART_UNDECIDED}[row["verdict"]]
        x, y = place if place is not None and fits else (MISSING_PLACE,) * 2
        yield _record(
            (5, 20),
            struct.pack("<BBBHHHhhI", HEAD, SITE, flag, executed, row["hard"], _soft_bin(row), x, y, round(row["ms_total"])),
            _text(row["name"]), _text(row["reason"] or ""), b"\0",
        )  # fmt: skip
        names.add(row["name"])
        if place is not None:
            places.add(place)


def _test(test: _Test, row: Row) -> bytes:
    """PTR; the score has its limit as the high one, and passes or fails."""
    value, limited = row[test.column], test.number == SCORE
    flag = NOT_EXECUTED | NO_VERDICT if value is None else 0 if limited else NO_VERDICT
    parm = EQUAL_PASSES if limited else 0
    if limited and value is not None and value > row["spec"]:
        flag, parm = flag | FAILED, parm | ABOVE
    optional = NO_SPECS | NO_LOW | (0 if limited else NO_HIGH)
    return _record(
        (15, 10), struct.pack("<IBBBBf", test.number, HEAD, SITE, flag, parm, value or 0.0), _text(test.name), _text(""),
        struct.pack("<Bbbbff", optional, 0, 0, 0, 0.0, row["spec"] if limited else 0.0), _text(test.unit),
        _text("%9.6f"), _text(""), _text("%9.6f" if limited else ""),
    )  # fmt: skip


def _soft_bin(row: Row) -> int:
    """1.. by the order of the classes; MISSING_BIN for what was not measured."""
    return MISSING_BIN if row["class"] is None else CLASSES.index(row["class"]) + 1


def _final(rows: Iterable[Row]) -> list[Row]:
    """The last verdict on each part: on each die of a wafer, and on each name where there is no die."""
    last: dict[object, Row] = {}
    for row in rows:
        known = row["die_x"] is not None and row["die_y"] is not None
        last[(row["wafer"], row["die_x"], row["die_y"]) if known else (row["wafer"], row["name"])] = row
    return list(last.values())


def _counts(rows: Sequence[Row]) -> bytes:
    """PART_CNT, RTST_CNT, ABRT_CNT, GOOD_CNT, FUNC_CNT."""
    final = _final(rows)
    good, undecided = (sum(row["verdict"] == verdict for row in final) for verdict in ("PASS", "RETEST"))
    return struct.pack("<5I", len(final), len(rows) - len(final), undecided, good, MISSING_COUNT)


def write(station: Station, lot: Lot) -> None:
    """Write lots/<product>/<lot>/<lot>.stdf as the log has it now."""
    rows = rows_of(station, lot)
    if rows:
        put(file_of(station, lot, lot[1], ".stdf"), records(station.line_name, lot, rows))


async def run(station: Station, settings: LotSettings, feed: Feed, stopping: asyncio.Event) -> None:
    """Write lots that rest, until told to stop."""
    await follow(station, feed, stopping, rest_s=settings.rest_s, write=write)
