"""A repeatability study: the same parts judged again and again, on one station or several.

A part's verdicts are trials; stations are appraisers. For verdicts: shares of parts that are judged alike, and Fleiss' kappa,
extended to parts with different numbers of trials. For scores: the variance of trials of one part on one station (repeatability),
of stations over one part (reproducibility), and of parts. (docs/math.md, eq. 14 to 16)
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from appliance.errors import RefusedError
from appliance.parts import Part
from appliance.reading import UNREAD
from appliance.verdict import Row
from appliance.verdict_log import VerdictLog
from engines.training.evaluate import wilson

BATCH = 5000
BORDERLINE_SIGMAS = 3.0


_KEYS: dict[Part, Callable[[Row], tuple[object, ...] | None]] = {
    Part.FRAME: lambda row: None if row["sha256"] == UNREAD else (row["sha256"],),
    Part.DIE: lambda row: (
        None if row["die_x"] is None else (row["product"], row["lot"], row["wafer"], row["die_x"], row["die_y"])
    ),
    Part.NAME: lambda row: (row["product"], row["lot"], row["name"]),
}


@dataclass(frozen=True, slots=True)
class Trial:
    """One verdict of a part.

    Attributes:
        station: which station gave it.
        part: key of the part.
        verdict: PASS, FAIL or RETEST.
        score: or None where it was not measured.
        spec: the limit that was applied.
    """

    station: str
    part: tuple[object, ...]
    verdict: str
    score: float | None
    spec: float


def trials_of(
    stations: Sequence[Path], *, by: Part, since: str | None = None, bundle: str | None = None
) -> list[Trial]:
    """All verdicts of several stations' logs.

    Args:
        stations: folders of stations, or files that are copies of their logs.
        by: what a part is.
        since: only verdicts decided at or after this time.
        bundle: only verdicts of this bundle, name@digest.

    Raises:
        RefusedError: a log is not there or damaged, two have one name, or verdicts of several bundles are mixed.
    """
    found: list[Trial] = []
    bundles: set[str] = set()
    names = Counter(path.resolve().name if path.is_dir() else path.stem for path in stations)
    if len(names) < len(stations):
        raise RefusedError(f"stations have one name: {', '.join(n for n, count in names.items() if count > 1)}")
    for name, path in zip(names, stations, strict=True):
        with closing(VerdictLog(path / "umbra.db" if path.is_dir() else path, readonly=True)) as log:
            after = 0
            asked = (since or "", bundle)
            while rows := log.verdicts(
                "v.seq > ? AND v.decided_at >= ? AND v.bundle = COALESCE(?, v.bundle)", (after, *asked), limit=BATCH
            ):
                after = rows[-1]["seq"]
                bundles |= {row["bundle"] for row in rows}
                keyed = ((_KEYS[by](row), row) for row in rows)
                found += [
                    Trial(name, key, row["verdict"], row["score"], row["spec"]) for key, row in keyed if key is not None
                ]
    if len(bundles) > 1:
        raise RefusedError(f"verdicts of {len(bundles)} bundles: choose one by --bundle: {', '.join(sorted(bundles))}")
    return found


def gauge(trials: Iterable[Trial]) -> dict[str, Any]:
    """Agreement, kappa, spread of scores and borderline share of a study.

    Args:
        trials: of all stations; parts judged once only are left out.

    Raises:
        RefusedError: no part was judged twice.
    """
    parts: dict[tuple[object, ...], list[Trial]] = defaultdict(list)
    for trial in trials:
        parts[trial.part].append(trial)
    repeated = [given for given in parts.values() if len(given) > 1]
    if not repeated:
        raise RefusedError(f"{len(parts)} parts, none of which was judged twice: another --by, or screen them again")
    stations = sorted({trial.station for given in repeated for trial in given})
    within = {station: _within(repeated, station) for station in stations}
    spread = spread_of_scores(repeated)
    return {
        "parts": len(repeated), "judged_once": len(parts) - len(repeated),
        "trials": sum(map(len, repeated)), "stations": within,
        "all": _agreement([[t.verdict for t in given] for given in repeated]),
        "between": _between(repeated, stations),
        "score": spread, "borderline": _borderline(repeated, spread),
    }  # fmt: skip


def _within(parts: Sequence[Sequence[Trial]], station: str) -> dict[str, Any]:
    own = [[t.verdict for t in given if t.station == station] for given in parts]
    return _agreement([verdicts for verdicts in own if len(verdicts) > 1])


def _agreement(parts: Sequence[Sequence[str]]) -> dict[str, Any]:
    """Share of parts judged alike in all trials, with its 95 % interval, and kappa."""
    alike = sum(len(set(verdicts)) == 1 for verdicts in parts)
    return {
        "parts": len(parts), "alike": alike,
        "share": alike / len(parts) if parts else None,
        "interval": wilson(alike, len(parts)) if parts else None,
        "kappa": fleiss_kappa([Counter(verdicts) for verdicts in parts]),
    }  # fmt: skip


def _between(parts: Sequence[Sequence[Trial]], stations: Sequence[str]) -> dict[str, Any] | None:
    """Do stations agree: of each part the verdict that a station gave most often, RETEST where none is."""
    if len(stations) < 2:
        return None
    judged = []
    for given in parts:
        own = [Counter(t.verdict for t in given if t.station == s).most_common(2) for s in stations]
        if all(own):
            judged.append([c[0][0] if len(c) == 1 or c[0][1] > c[1][1] else "RETEST" for c in own])
    return _agreement(judged)


def fleiss_kappa(parts: Sequence[Mapping[str, int]]) -> float | None:
    """Agreement beyond chance: (P - Pe) / (1 - Pe), P the share of agreeing pairs of trials of one part.

    Args:
        parts: how often each verdict was given to each part; any number of trials, at least two.

    Returns:
        At most 1; None where nothing can be said: no part, or only one verdict was ever given.
    """
    pairs = sum(n * (n - 1) for n in (sum(counts.values()) for counts in parts))
    total = sum(sum(counts.values()) for counts in parts)
    if not pairs:
        return None
    agreeing = sum(count * (count - 1) for counts in parts for count in counts.values()) / pairs
    given: Counter[str] = Counter()
    for counts in parts:
        given.update(counts)
    chance = sum((count / total) ** 2 for count in given.values())
    return None if chance == 1 else (agreeing - chance) / (1 - chance)


def spread_of_scores(parts: Sequence[Sequence[Trial]]) -> dict[str, float | None]:
    """Standard deviations of the score: of trials, of stations, of parts, and the gauge's share of the whole variance.

    Trials are nested in stations, these in parts; of the spread of means, what the groups below put into it is taken off
    (docs/math.md, eq. 15).
    """
    cells = [
        [np.array([t.score for t in given if t.station == s and t.score is not None]) for s in sorted({t.station for t in given})]
        for given in parts
    ]  # fmt: skip
    cells = [[cell for cell in part if cell.size] for part in cells]
    repeat = _pooled([cell for part in cells for cell in part])
    compared = [part for part in cells if len(part) > 1]
    stations = _pooled([np.array([cell.mean() for cell in part]) for part in compared])
    reproduce = None if stations is None else max(0.0, stations - (repeat or 0.0) * _noise_of_means(compared))
    means = [float(np.mean([cell.mean() for cell in part])) for part in cells if part]
    part_variance = None
    if len(means) > 1:
        of_trials = np.mean([sum(1 / cell.size for cell in part) / len(part) ** 2 for part in cells if part])
        of_stations = np.mean([1 / len(part) for part in cells if part])
        noise = (repeat or 0.0) * of_trials + (reproduce or 0.0) * of_stations
        part_variance = max(0.0, float(np.var(means, ddof=1) - noise))
    measured = (repeat or 0.0) + (reproduce or 0.0)
    whole = measured + (part_variance or 0.0)
    return {
        "repeatability": None if repeat is None else math.sqrt(repeat),
        "reproducibility": None if reproduce is None else math.sqrt(reproduce),
        "parts": None if part_variance is None else math.sqrt(part_variance),
        "gauge_share": measured / whole if whole else None,
    }


def _noise_of_means(parts: Sequence[Sequence[np.ndarray[Any, np.dtype[np.float64]]]]) -> float:
    """What trials of variance 1 put into the pooled variance of the stations' means of one part."""
    shares = [(len(part) - 1, float(np.mean([1 / cell.size for cell in part]))) for part in parts]
    freedom = sum(f for f, _ in shares)
    return sum(f * share for f, share in shares) / freedom if freedom else 0.0


def _pooled(groups: Sequence[np.ndarray[Any, np.dtype[np.float64]]]) -> float | None:
    """Variance within groups; None where no group has two members."""
    freedom = sum(group.size - 1 for group in groups)
    return float(sum(group.var() * group.size for group in groups)) / freedom if freedom else None


def _borderline(parts: Sequence[Sequence[Trial]], spread: Mapping[str, float | None]) -> dict[str, Any]:
    """Parts that were both passed and failed, and those whose mean score is nearer to the limit than repeated trials spread."""
    sigma = math.hypot(spread["repeatability"] or 0.0, spread["reproducibility"] or 0.0)
    near, flipped, measured = 0, 0, 0
    for given in parts:
        scores = [t.score for t in given if t.score is not None]
        flipped += {"PASS", "FAIL"} <= {t.verdict for t in given}
        if scores:
            measured += 1
            mean = float(np.mean(scores))
            near += min(abs(mean - t.spec) for t in given) <= BORDERLINE_SIGMAS * sigma
    return {
        "within": BORDERLINE_SIGMAS * sigma, "near": near, "measured": measured,
        "share": near / measured if measured else None, "flipped": flipped,
    }  # fmt: skip
