"""What a bundle measured on its own test set, and how far other frames are from it: the population stability index."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

METRICS = ("noise_median", "noise_sigma", "score", "m_thresh", "m_alpha")  # columns of a verdict
BINS = 10
ENOUGH = 500  # frames: of fewer the bins are so uncertain that the same population raises alarms


@dataclass(frozen=True, slots=True)
class Distribution:
    """Values of one metric in bins that its own values fill about alike.

    Attributes:
        edges: rising; a value belongs behind the last edge that is no larger.
        shares: of the values in each of the len(edges) + 1 bins, which sum to 1.
        frames: how many values.
        range: that 99 of 100 values lie in, 1 in 200 below it and 1 above.
    """

    edges: tuple[float, ...]
    shares: tuple[float, ...]
    frames: int
    range: tuple[float, float]

    @classmethod
    def of(cls, values: ArrayLike) -> Distribution:
        """Of (n,) finite values; where many are equal there are fewer bins.

        Raises:
            ValueError: there is none.
        """
        found = np.sort(np.asarray(values, float).ravel())
        if not len(found):
            raise ValueError("no values: wanted at least one")
        quantiles = np.quantile(found, np.arange(1, BINS) / BINS, method="inverted_cdf")
        edges = np.unique(quantiles)
        edges = edges[edges > found[0]]
        if quantiles[0] == found[0] < found[-1]:  # many are the smallest: the others begin a bin
            edges = np.union1d(edges, found[found > found[0]][0])
        if found[0] == found[-1]:  # what differs at all is seen
            edges = np.asarray([found[0], np.nextafter(found[0], np.inf)])
        shares = np.bincount(np.searchsorted(edges, found, side="right"), minlength=len(edges) + 1) / len(found)
        low, high = np.quantile(found, [0.005, 0.995])
        return cls(tuple(map(float, edges)), tuple(map(float, shares)), len(found), (float(low), float(high)))

    def counts(self, values: ArrayLike) -> NDArray[np.int64]:
        """How many of (n,) values lie in each bin."""
        found = np.searchsorted(self.edges, np.asarray(values, float).ravel(), side="right")
        return np.bincount(found, minlength=len(self.shares)).astype(np.int64)

    def outside(self, values: ArrayLike) -> float:
        """Share of (n,) values outside the range; of the same population about 0.01. 0 for no values."""
        found = np.asarray(values, float).ravel()
        low, high = self.range
        return float(np.mean((found < low) | (found > high))) if len(found) else 0.0

    def stability_index(self, values: ArrayLike) -> float:
        """PSI = sum over bins of (a - e) ln(a / e), with shares a of `values` and e of these.

        Both with half a frame more in each bin, so that an empty one is not infinitely far. 0 for no values.
        """
        counts = self.counts(values)
        if not counts.sum():
            return 0.0
        expected = np.asarray(self.shares) * self.frames
        a, e = ((n + 0.5) / (n.sum() + 0.5 * len(n)) for n in (counts, expected))
        return float(((a - e) * np.log(a / e)).sum())


def counts(row: Mapping[str, Any], metric: str) -> bool:
    """Whether drift of a metric looks at a verdict: it was measured, and called OK."""
    return row["class"] == "OK" and row[metric] is not None


@dataclass(frozen=True, slots=True)
class Reference:
    """The test set of a bundle: its frames that the bundle calls OK, so that the share of blemishes, which is yield, is no drift.

    Attributes:
        source: where its frames come from, in words.
        metrics: by the columns of a verdict.
    """

    source: str
    metrics: Mapping[str, Distribution]

    @classmethod
    def of(cls, source: str, rows: Sequence[Mapping[str, Any]]) -> Reference:
        """Of verdicts.

        Raises:
            ValueError: none of them is called OK.
        """
        columns = {name: [row[name] for row in rows if counts(row, name)] for name in METRICS}
        return cls(source, {name: Distribution.of(values) for name, values in columns.items()})

    @classmethod
    def from_table(cls, table: Mapping[str, Any]) -> Reference:
        """As bundle.toml has it.

        Raises:
            KeyError, TypeError, ValueError: it is not as `to_toml` writes it.
        """
        found = {}
        for name in METRICS:
            edges, shares, span = (tuple(map(float, table[name][key])) for key in ("edges", "shares", "range"))
            low, high = span
            if (
                len(shares) != len(edges) + 1
                or list(edges) != sorted(edges)
                or not math.isclose(sum(shares), 1, abs_tol=1e-3)
            ):
                raise ValueError(f"reference.{name}: wanted rising edges, and shares between them that sum to 1")
            found[name] = Distribution(edges, shares, int(table[name]["frames"]), (low, high))
        return cls(str(table["source"]), found)

    def to_toml(self, quoted: str) -> list[str]:
        """The lines of [reference]; `quoted` is the source as TOML writes it."""
        lines = ["[reference]", f"source = {quoted}"]
        for name, one in self.metrics.items():
            edges = ", ".join(repr(edge) for edge in one.edges)
            shares = ", ".join(repr(share) for share in one.shares)
            low, high = one.range
            lines.append(
                f"{name} = {{ frames = {one.frames}, range = [{low!r}, {high!r}], edges = [{edges}], shares = [{shares}] }}"
            )
        return lines
