"""The labeling experiment as docs/labeling.md shows it: strategies side by side, and in the form of the paper's Tables I to III."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

Interval = Sequence[float | None]  # mean and half of the 95 % interval; None of one seed
OVER = "mean of the sets"
MEASURES = ("precision", "recall", "f1")


def _steps(ours: str) -> dict[str, str]:
    """Rows of the summary, and how many images are labeled by then."""
    return {"first": "10", "round 1": "20", ours: "30", "all": "all"}


def cell(value: Interval, digits: int = 2, *, signed: bool = False) -> str:
    """A mean and its interval in words."""
    mean, half = value
    told = f"{mean:{'+' if signed else ''}.{digits}f}"
    return told if half is None else f"{told} ± {half:.{digits}f}"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of Markdown."""
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *rows))


def strategies(summary: Mapping[str, Any], *, equal: bool) -> str:
    """F1 of each strategy by set, on the mean of them, and above sequential and random; of equal images, or of equal boxes."""
    words = "equal boxes: " if equal else ""
    sets = [name for name in summary if name != OVER]
    over = summary[OVER]
    rows = [
        [name, *(cell(summary[one][name][f"{words}f1"]) for one in sets), cell(over[name][f"{words}f1"]),
         *(cell(over[name][f"{words}above {base}"], 3, signed=True) for base in ("sequential", "random"))]
        for name in over if f"{words}f1" in over[name]
    ]  # fmt: skip
    return table(["strategy", *sets, "mean", "above sequential", "above random"], rows)


def labels(summary: Mapping[str, Any]) -> str:
    """What costs no detector: classes, boxes, boxes of the rarest class and balance, by set."""
    sets = [name for name in summary if name != OVER]
    kinds = ("classes", "boxes", "rarest", "balance")
    rows = [
        [name, *(" / ".join(f"{summary[one][name][kind][0]:.2g}" for kind in kinds) for one in sets)]
        for name in summary[OVER] if "equal boxes: f1" in summary[OVER][name]
    ]  # fmt: skip
    return table(["strategy", *sets], rows)


def rounds(summary: Mapping[str, Any], ours: str) -> str:
    """As the paper's Table I: precision, recall and F1 after each round of ours and of everything labeled."""
    steps = _steps(ours)
    rows = [
        [name, measure, *(cell(summary[name][step][measure]) for step in steps)]
        for name in summary if name != OVER for measure in MEASURES
    ]  # fmt: skip
    return table(["set", "", *steps.values()], rows)


def equal_boxes(summary: Mapping[str, Any], ours: str) -> str:
    """As the paper's Table II: as many boxes labeled by us and in the directory's order."""
    rows = [
        [name, what, *(cell(summary[name][one][f"equal boxes: {what}"], digits) for one in (ours, "sequential"))]
        for name in summary if name != OVER
        for what, digits in (*((measure, 2) for measure in MEASURES), ("boxes", 0), ("images", 0))
    ]  # fmt: skip
    return table(["set", "", ours, "sequential"], rows)


def classes(summary: Mapping[str, Any], name: str, ours: str) -> str:
    """As the paper's Table III: each class of a set after each round of ours and of everything labeled."""
    found, steps = summary[name], _steps(ours)
    rows = [
        [kind, measure, *(cell(found[step]["per_class"][kind][measure]) for step in steps)]
        for kind in found["all"]["per_class"] for measure in MEASURES
    ]  # fmt: skip
    return table(["class", "", *steps.values()], rows)


def markdown(summary: Mapping[str, Any], ours: str) -> str:
    """All of them."""
    parts = [
        "Equal images (30)", strategies(summary, equal=False), "Equal boxes", strategies(summary, equal=True),
        "Classes / boxes / boxes of the rarest class / balance", labels(summary), "Table I", rounds(summary, ours),
        "Table II", equal_boxes(summary, ours),
        *(part for name in summary if name != OVER for part in (f"Table III, {name}", classes(summary, name, ours))),
    ]  # fmt: skip
    return "\n\n".join(parts)
