"""The labeling experiment as docs/labeling.md shows it: strategies side by side, and in the form of the paper's Tables I to III."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

Interval = Sequence[float | None]  # mean and half of the 95 % interval; None of one seed
OVER = "mean of the sets"
MEASURES = ("precision", "recall", "f1")
PAPERS_TABLE_1 = ("0.44 / 0.86 / 0.58", "0.51 / 0.85 / 0.64", "0.59 / 0.86 / 0.70", "0.69 / 0.87 / 0.77")
PAPERS_TABLE_2 = ("0.59 / 0.86 / 0.70", "0.47 / 0.84 / 0.60")
PAPERS_TABLE_3 = {
    "A": ("0.67 / 0.34 / 0.45", "0.67 / 1.0 / 0.8", "1.0 / 1.0 / 1.0", "0.4 / 1.0 / 0.58"),
    "B": ("0.4 / 0.4 / 0.4", "0.34 / 0.4 / 0.37", "1.0 / 0.8 / 0.89", "0.4 / 0.8 / 0.54"),
    "C": ("0 / 0 / 0", "0.67 / 0.09 / 0.15", "0.8 / 0.67 / 0.73", "0.95 / 0.71 / 0.81"),
}


def _steps(ours: str) -> dict[str, str]:
    """Rows of the summary, and how many images are labeled by then."""
    return {"first": "10", "round 1": "20", ours: "30", "all": "all"}


def cell(value: Interval, digits: int = 2, *, signed: bool = False) -> str:
    """A mean and its interval in words."""
    mean, half = value
    told = f"{mean:{'+' if signed else ''}.{digits}f}"
    return told if half is None else f"{told} ± {half:.{digits}f}"


def measures(found: Mapping[str, Any], words: str = "") -> str:
    """Precision, recall, and F1 with its interval."""
    return " / ".join((*(f"{found[words + name][0]:.2f}" for name in MEASURES[:2]), cell(found[f"{words}f1"])))


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
    rows = [[name, *(measures(summary[name][step]) for step in steps)] for name in summary if name != OVER]
    return table(["set", *steps.values()], [["the paper: particles", *PAPERS_TABLE_1], *rows])


def equal_boxes(summary: Mapping[str, Any], ours: str) -> str:
    """As the paper's Table II: as many boxes labeled by us and in the directory's order."""
    rows = [
        [name, *(measures(summary[name][one], "equal boxes: ") for one in (ours, "sequential")),
         *(" / ".join(cell(summary[name][one][f"equal boxes: {what}"], 0) for one in (ours, "sequential"))
           for what in ("boxes", "images"))]
        for name in summary if name != OVER
    ]  # fmt: skip
    return table(
        ["set", ours, "sequential", "boxes of both", "images of both"],
        [["the paper: particles", *PAPERS_TABLE_2, "about as many", "30 / not said"], *rows],
    )


def classes(summary: Mapping[str, Any], ours: str) -> str:
    """As the paper's Table III: each class after each round of ours and of everything labeled."""
    steps = _steps(ours)
    rows = [
        [f"{name}: {kind}", *(measures(summary[name][step]["per_class"][kind]) for step in steps)]
        for name in summary if name != OVER for kind in summary[name]["all"]["per_class"]
    ]  # fmt: skip
    paper = [[f"the paper: {kind}", *told] for kind, told in PAPERS_TABLE_3.items()]
    return table(["class", *steps.values()], [*paper, *rows])


def confirmation(summary: Mapping[str, Any]) -> str:
    """F1 of more seeds, of equal images and of equal boxes."""
    return "\n\n".join(strategies(summary, equal=equal) for equal in (False, True))


def markdown(summary: Mapping[str, Any], ours: str) -> str:
    """All of them."""
    parts = [
        "Equal images (30)", strategies(summary, equal=False), "Equal boxes", strategies(summary, equal=True),
        "Classes / boxes / boxes of the rarest class / balance", labels(summary), "Table I", rounds(summary, ours),
        "Table II", equal_boxes(summary, ours), "Table III", classes(summary, ours),
    ]  # fmt: skip
    return "\n\n".join(parts)
