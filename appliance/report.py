"""The station's story in numbers: yield over time, scores by product, the worst and the most novel frames, drift."""

from __future__ import annotations

import base64
import datetime as dt
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from appliance.errors import RefusedError
from appliance.images import kept_pictures
from appliance.overlay import overlay_of
from appliance.page.shell import STATIC, text
from appliance.station import Station
from appliance.verdict import Row, now_utc
from appliance.verdict_log import VerdictLog
from engines import BundleError
from engines.reference import METRICS, Distribution, Reference, counts

SCORE_BINS = 50
GALLERY = 12
WINDOW = 200  # frames that an alarm is decided on
CAPTURE_FAILED = "Error"
MOST_WINDOWS = 60
OWN_FIRST = 500  # frames of a product that it is compared with, too
MOVED = 0.25  # population stability index: up to 0.1 nothing, above this another population
OUTSIDE = 0.05  # share outside the range that 0.99 of the test set lie in
JPEG_QUALITY = 80
VERDICTS = ("PASS", "FAIL", "RETEST")
STEPS = (("hour", 13), ("day", 10))  # letters of a time that name its step
MOST_STEPS = 72
# The newest verdict on each name in the inbox: a part that is captured anew under its name counts once. Of a group the columns
# beside MAX(seq) are those of its newest row.
_ROWS = """
SELECT MAX(v.seq) AS seq, v.frame_id, v.verdict, v.class, v.score, v.m_thresh, v.m_alpha, v.noise_median, v.noise_sigma, v.bundle,
       v.decided_at, f.product, f.lot, f.name
FROM verdicts v JOIN frames f ON f.id = v.frame_id
WHERE v.decided_at >= ? AND v.decided_at < ? AND v.origin = 'inbox' AND (? IS NULL OR f.product = ?) GROUP BY f.path ORDER BY 1
"""
_FIRST = f"""
SELECT {", ".join(f"v.{metric}" for metric in METRICS)}, v.class, v.seq FROM verdicts v JOIN frames f ON f.id = v.frame_id
WHERE f.product = ? AND v.bundle = ? AND v.origin = 'inbox' AND v.class = 'OK' ORDER BY v.seq LIMIT ?
"""  # noqa: S608  (constants)


@dataclass(frozen=True, slots=True)
class Span:
    """What a report is of: times as the log has them, and a product, or all."""

    since: str | None = None
    until: str | None = None
    product: str | None = None

    def __str__(self) -> str:
        """In words, behind a sentence."""
        parts = (("of product", self.product), ("since", self.since), ("before", self.until))
        return "".join(f", {word} {value}" for word, value in parts if value is not None)


@dataclass(frozen=True, slots=True)
class Check:
    """How far frames are from what they are compared with.

    Attributes:
        rule: "index" (population stability) or "outside" (share outside the range).
        value, limit: above the limit is an alarm.
    """

    rule: str
    value: float
    limit: float

    @property
    def alarms(self) -> bool:
        """Whether the frames are of another population."""
        return self.value > self.limit


@dataclass(frozen=True, slots=True)
class Drift:
    """How far the newest frames of a product that are called OK are from what they are compared with, by one metric.

    Attributes:
        product, metric: whose and which.
        test: from the bundle's test set; None where it has none.
        own: from the first OWN_FIRST frames of the product; None where there are too few.
        history: (first frame, value / limit) of windows of WINDOW frames each, oldest first: from its own first frames,
            else from the test set.
        frames: how many there are.
    """

    product: str
    metric: str
    test: Check | None
    own: Check | None
    history: tuple[tuple[str, float], ...]
    frames: int

    @property
    def alarms(self) -> bool:
        """Whether either comparison alarms."""
        return any(check is not None and check.alarms for check in (self.test, self.own))

    @property
    def state(self) -> str:
        """In a word or two."""
        return "alarm" if self.alarms else "not compared" if self.test is None and self.own is None else "steady"


def write(station: Station, out: Path, span: Span) -> dict[str, Any]:
    """Write the report as one HTML file that needs nothing beside it, and return what it shows.

    Raises:
        RefusedError: there is no verdict to report on.
    """
    found = collect(station, span)
    css = "\n".join((STATIC / name).read_text(encoding="utf-8") for name in ("umbra.css", "report.css"))
    temporary = out.with_name(f".{out.name}.tmp")
    temporary.write_text(text("report.html", css=css, **found), encoding="utf-8")
    temporary.replace(out)
    return found


def collect(station: Station, span: Span) -> dict[str, Any]:
    """All that the report shows, of the newest verdict on each name in the inbox.

    Raises:
        RefusedError: there is none in the span.
    """
    with closing(VerdictLog(station.database, readonly=True)) as log:
        rows = log.select(_ROWS, (span.since or "", span.until or "9", span.product, span.product))
        if not rows:
            raise RefusedError(f"station {station.root}: no verdict to report on{span}")
        bundle = rows[-1]["bundle"]
        at_hand, reference = _reference(station, log.active_bundle(), bundle)
        captured = [r for r in rows if r["class"] != CAPTURE_FAILED]
        worst = sorted((r for r in captured if r["score"] is not None), key=lambda r: (-r["score"], r["seq"]))[:GALLERY]
        same = [r for r in captured if r["bundle"] == bundle]
        novel = sorted((r for r in same if r["m_alpha"] is not None), key=lambda r: (-r["m_alpha"], r["seq"]))[:GALLERY]
        products, own_limit = sorted({r["product"] for r in rows}), station.own_limit(log.active_bundle())
        limits = {product: log.spec_for(product, own_limit) for product in products}
        first = {product: log.select(_FIRST, (product, bundle, OWN_FIRST)) for product in products}
        drift = list(drifts(same, reference, first))
        told = {one.product for one in drift}
        return {
            "station": station.line_name, "made_at": now_utc(), "span": span, "first": rows[0]["decided_at"],
            "last": max(r["decided_at"] for r in rows), "frames": len(rows), "counts": _counts(rows),
            "failed_captures": len(rows) - len(captured), "bundles": Counter(r["bundle"] for r in rows).most_common(),
            "bundle": bundle, "steps": steps(rows), "lots": _lots(rows), "products": _products(captured, limits),
            "worst": [_shown(station, log, r) for r in worst], "novel": [_shown(station, log, r) for r in novel],
            "reference": reference, "at_hand": at_hand, "drift": drift, "few": [p for p in products if p not in told],
            "moved": MOVED, "outside": OUTSIDE, "window": WINDOW, "own_first": OWN_FIRST, "bins": SCORE_BINS,
        }  # fmt: skip


def _counts(rows: Sequence[Row]) -> dict[str, int]:
    found = Counter(row["verdict"] for row in rows)
    return {verdict: found[verdict] for verdict in VERDICTS}


def steps(rows: Sequence[Row]) -> dict[str, Any]:
    """Counts by hour, or by day or ten days or more where there are too many hours; steps without a frame are there, too."""
    for name, letters in STEPS:
        found: dict[str, list[Row]] = {}
        for row in rows:
            found.setdefault(row["decided_at"][:letters], []).append(row)
        keys = list(_between(min(found), max(found), hours=letters == 13))
        if len(keys) <= MOST_STEPS:
            return {"step": name, "every": 1, "rows": [{"at": key, **_counts(found.get(key, []))} for key in keys]}
    every = -(-len(keys) // MOST_STEPS)
    grouped = []
    for start in range(0, len(keys), every):
        together = [row for key in keys[start : start + every] for row in found.get(key, [])]
        grouped.append({"at": keys[start], **_counts(together)})
    return {"step": "day", "every": every, "rows": grouped}


def _between(first: str, last: str, *, hours: bool) -> Iterator[str]:
    """Every hour, or day, from the first to the last, as a time of the log begins."""
    at, end = (dt.datetime.fromisoformat(f"{key}:00" if hours else key) for key in (first, last))
    while at <= end:
        yield at.isoformat(timespec="hours")[:13] if hours else at.date().isoformat()
        at += dt.timedelta(hours=1) if hours else dt.timedelta(days=1)


def _lots(rows: Sequence[Row]) -> list[dict[str, Any]]:
    found: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        found.setdefault((row["product"], row["lot"]), []).append(row)
    return [{"product": product, "lot": lot, **_counts(of)} for (product, lot), of in sorted(found.items())]


def _products(rows: Sequence[Row], limits: dict[str, float]) -> list[dict[str, Any]]:
    """Scores of each product in SCORE_BINS bins, with mean and standard deviation."""
    found: dict[str, list[float]] = {}
    for row in rows:
        if row["score"] is not None:
            found.setdefault(row["product"], []).append(row["score"])
    made = []
    for product, values in sorted(found.items()):
        scores = np.asarray(values)
        bins = np.bincount(np.minimum((scores * SCORE_BINS).astype(int), SCORE_BINS - 1), minlength=SCORE_BINS)
        made.append({"product": product, "frames": len(scores), "bins": bins.tolist(), "mean": float(scores.mean()),
                     "deviation": float(scores.std()), "limit": limits[product]})  # fmt: skip
    return made


def _shown(station: Station, log: VerdictLog, row: Row) -> dict[str, Any]:
    """A frame of a gallery: its numbers and its picture, with the overlay where the map is kept; retention may take all of it."""
    verdict, frames = log.verdict(row["seq"]), log.frames("id = ?", [row["frame_id"]])
    size = (frames[0]["width"], frames[0]["height"]) if frames and frames[0]["width"] else None
    rois = json.loads(verdict["rois"]) if verdict is not None and verdict["rois"] else []
    try:
        kept = kept_pictures(station.images, row["frame_id"], row["seq"])
        picture = None if kept is None else _embedded(overlay_of(kept, rois, size) or kept[0])
    except cv2.error:  # a picture that a crash of the machine cut off
        picture = None
    return row | {"picture": picture, "regions": len(rois)}


def _embedded(png: bytes) -> str:
    """A picture as it stands in a page: JPEG, a tenth of the PNG."""
    image = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR)
    _, made = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    return "data:image/jpeg;base64," + base64.b64encode(made.tobytes()).decode()


def _reference(station: Station, active: str | None, identity: str) -> tuple[bool, Reference | None]:
    """Whether the bundle that judged is at hand, and its test set, where it has one."""
    for name in dict.fromkeys((active, identity.partition("@")[0])):
        try:
            found = station.load_bundle(name)
        except BundleError:
            continue
        if found.identity == identity:
            return True, found.reference
    return False, None


def drifts(rows: Sequence[Row], reference: Reference | None, first: Mapping[str, Sequence[Row]]) -> Iterator[Drift]:
    """Of each product and metric: the newest WINDOW frames against the test set, and against the product's own first ones.

    The noise of a sensor is its own: against a test set of several sensors what counts is whether it lies in their range.
    Everything else is in units of the noise, and is compared as it is distributed.

    Args:
        rows: verdicts of one bundle, oldest first.
        reference: of the bundle.
        first: the oldest verdicts of the bundle on each product that the log has, called OK, OWN_FIRST at most.
    """
    products: dict[str, list[Row]] = {}
    for row in rows:
        products.setdefault(row["product"], []).append(row)
    for product, of in sorted(products.items()):
        for metric in METRICS:
            measured = [row for row in of if counts(row, metric)]
            begin = first.get(product, ())
            if len(measured) < WINDOW:
                continue
            values = np.asarray([row[metric] for row in measured], float)
            tested = None if reference is None else reference.metrics[metric]
            check = _is_outside if metric.startswith("noise") else _has_moved
            # Frames are no news beside themselves: its own first ones are over before the newest ones begin.
            over = len(begin) == OWN_FIRST and begin[-1]["seq"] < measured[-WINDOW]["seq"]
            own = Distribution.of([row[metric] for row in begin]) if over else None
            newest = values[-WINDOW:]
            yield Drift(
                product=product, metric=metric, frames=len(values),
                test=None if tested is None else check(tested, newest), own=None if own is None else _has_moved(own, newest),
                history=tuple(_history(measured, values, own, _has_moved) if own is not None
                              else _history(measured, values, tested, check) if tested is not None else ()),
            )  # fmt: skip


def _is_outside(known: Distribution, values: NDArray[np.float64]) -> Check:
    return Check("outside", known.outside(values), OUTSIDE)


def _has_moved(known: Distribution, values: NDArray[np.float64]) -> Check:
    return Check("index", known.stability_index(values), MOVED)


def _history(
    rows: Sequence[Row], values: NDArray[np.float64], known: Distribution,
    check: Callable[[Distribution, NDArray[np.float64]], Check],
) -> Iterator[tuple[str, float]]:  # fmt: skip
    """Each whole window, the last one ending with the newest frame."""
    starts = range(len(values) % WINDOW, len(values), WINDOW)
    for start in starts[-MOST_WINDOWS:]:
        found = check(known, values[start : start + WINDOW])
        yield rows[start]["decided_at"], found.value / found.limit
