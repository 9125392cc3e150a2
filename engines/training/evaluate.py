"""Judged frames against their truth: the numbers of the dark-blemish paper (its Table 3 and regression results)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engines.classes import CLASSES
from engines.simulation import RATED_CEILING, RATED_FLOOR

JUDGES = ("classifier", "regressor")  # the roles that a score rests on
Z_95 = 1.959964
BOOTSTRAP_DRAWS = 2000


@dataclass(frozen=True, slots=True)
class Judged:
    """One frame's truth beside what was measured.

    Attributes:
        sensor: name.
        class_name: true class.
        true_level: as simulated, or the rating where nothing finer is known.
        rating: whole-number level, 0..10.
        called_class: by the classifier; None where the frame was refused before it, or no classifier was asked.
        p_ng, level, score: measured, or None.
        conventional: eq. 10, DN; NaN where it was not asked.
        refused: whether the line refuses the frame before any network: it does not pass.
    """

    sensor: str
    class_name: str
    true_level: float
    rating: float
    called_class: str | None
    p_ng: float | None
    level: float | None
    score: float | None
    conventional: float
    refused: bool = False

    @property
    def ambiguous(self) -> bool:
        """Within half a level of the OK/NG border: in no classification number, as in the paper."""
        return self.class_name != "Error" and RATED_FLOOR < self.true_level < RATED_CEILING

    @property
    def called_ng(self) -> bool:
        """By the classifier, or because it was refused and would not pass."""
        return self.refused or (self.p_ng is not None and self.p_ng > 0.5)

    def stopped(self, spec: float) -> bool:
        """Whether the line does not pass it: class Error, a score above the spec, or refused."""
        return self.refused or self.called_class == "Error" or (self.score is not None and self.score > spec)


def rates(truth: NDArray[np.bool_], called: NDArray[np.bool_]) -> dict[str, float]:
    """Accuracy, F1 and recall of NG; NaN where there is no frame, or no NG one."""
    hits, ng, all_called = int((truth & called).sum()), int(truth.sum()), int(called.sum())
    return {
        "accuracy": float((truth == called).mean()) if len(truth) else float("nan"),
        "f1": 2 * hits / (ng + all_called) if ng + all_called else float("nan"),
        "recall": hits / ng if ng else float("nan"),
    }


def wilson(hits: int, n: int) -> list[float]:
    """95 % interval of a share (Wilson's score interval): [low, high]; [0, 1] where n is 0."""
    if n == 0:
        return [0.0, 1.0]
    centre, z2 = hits / n, Z_95**2
    half = Z_95 * np.sqrt(centre * (1 - centre) / n + z2 / (4 * n * n))
    low, high = ((centre + z2 / (2 * n) + sign * half) / (1 + z2 / n) for sign in (-1, 1))
    return [max(0.0, float(low)), min(1.0, float(high))]


def mean_interval(values: NDArray[np.floating]) -> list[float]:
    """95 % interval of a mean (normal, from the sample's SD): [low, high]; NaN below two values."""
    if len(values) < 2:
        return [float("nan")] * 2
    half = Z_95 * values.std(ddof=1) / np.sqrt(len(values))
    return [float(values.mean() - half), float(values.mean() + half)]


def f1_interval(truth: NDArray[np.bool_], called: NDArray[np.bool_]) -> list[float]:
    """95 % interval of F1 by resampling frames (percentile bootstrap, 2,000 draws of a fixed seed): [low, high]."""
    if not len(truth):
        return [0.0, 1.0]
    # A frame is one of four kinds; drawing n frames is drawing the counts of the kinds.
    kinds = np.bincount(2 * truth + called, minlength=4) / len(truth)
    drawn = np.random.default_rng(0).multinomial(len(truth), kinds, BOOTSTRAP_DRAWS)
    f1 = 2 * drawn[:, 3] / np.maximum(1, 2 * drawn[:, 3] + drawn[:, 1] + drawn[:, 2])
    return [float(v) for v in np.percentile(f1, [2.5, 97.5])]


def with_intervals(
    truth: NDArray[np.bool_], called: NDArray[np.bool_] | None, here: NDArray[np.bool_]
) -> dict[str, Any]:
    """Rates of the frames that are `here`, the share of OK called NG, and a 95 % interval of each.

    All are NaN where nothing was called (None), and each where it has no frame to be a share of.
    """
    keys = ("accuracy", "f1", "recall", "false_alarms")
    if called is None:
        return dict.fromkeys(keys, float("nan")) | {"intervals": {key: [float("nan")] * 2 for key in keys}}
    truth, called = truth[here], called[here]
    hits, alarms = int((truth & called).sum()), int((~truth & called).sum())
    ok, ng = int((~truth).sum()), int(truth.sum())
    return rates(truth, called) | {
        "false_alarms": alarms / ok if ok else float("nan"),
        "intervals": {
            "accuracy": wilson(int((truth == called).sum()), len(truth)), "f1": f1_interval(truth, called),
            "recall": wilson(hits, ng), "false_alarms": wilson(alarms, ok),
        },
    }  # fmt: skip


def evaluate(
    frames: Sequence[Judged], conventional_called: NDArray[np.bool_] | None, *, spec: float
) -> dict[str, Any]:  # fmt: skip
    """The report of `umbra evaluate --json`.

    NG is called where P(NG) > 1/2, or where the frame was refused (it would not pass); `verdicts` has the same numbers
    for the decision of the line: class Error, score > spec, or refused. What was not measured (one network alone has no
    score) is NaN.

    Args:
        frames: all frames, ambiguous ones included.
        conventional_called: for each frame, whether the conventional method calls it defective; None where it was not asked.
        spec: the limit on the score.
    """
    clear = np.array([not f.ambiguous for f in frames])
    truth = np.array([f.class_name != "OK" for f in frames])
    sensors = np.array([f.sensor for f in frames])
    classified = all(f.refused or f.p_ng is not None for f in frames)
    scored = all(f.refused or f.score is not None for f in frames)
    called = np.array([f.called_ng for f in frames]) if classified else None
    stopped = np.array([f.stopped(spec) for f in frames]) if scored else None
    per_sensor, intervals, scores = {}, {}, {}
    for name in sorted(set(sensors.tolist())):
        here = clear & (sensors == name)
        new = with_intervals(truth, called, here)
        intervals[name] = new["intervals"]
        per_sensor[name] = {
            "n": int(here.sum()), "accuracy": new["accuracy"], "f1": new["f1"],
            "conventional": _conventional(truth, conventional_called, here),
        }  # fmt: skip
        scores[name] = _distributions([f for f, use in zip(frames, here, strict=True) if use])
    named = np.array([f.called_class == f.class_name for f in frames])[clear]
    known = classified and len(named) > 0
    return {
        "n": int(clear.sum()), **with_intervals(truth, called, clear), **_levels(frames),
        "class_accuracy": float(named.mean()) if known else float("nan"),
        "class_accuracy_interval": wilson(int(named.sum()), len(named)) if known else [float("nan")] * 2,
        "confusion": _confusion(frames) if classified else {}, "per_sensor": per_sensor, "scores": scores,
        "per_sensor_intervals": intervals,
        "conventional": _conventional(truth, conventional_called, clear),
        "verdicts": with_intervals(truth, stopped, clear) | {"spec": spec},
        "ambiguous": int((~clear).sum()), "refused": sum(f.refused for f in frames),
    }  # fmt: skip


def difference(frames: Sequence[Judged], others: Sequence[Judged], *, spec: float) -> dict[str, Any]:
    """How far the same frames differ when another engine measures them: verdicts that flip, and mean differences.

    Args:
        frames: as measured.
        others: the same frames by the other engine, in order.
        spec: the limit on the score.
    """
    flips = sum(a.stopped(spec) != b.stopped(spec) for a, b in zip(frames, others, strict=True))
    pairs = [(a, b) for a, b in zip(frames, others, strict=True) if a.score is not None and b.score is not None]
    levels = [abs((a.level or 0.0) - (b.level or 0.0)) for a, b in pairs]
    scores = [abs((a.score or 0.0) - (b.score or 0.0)) for a, b in pairs]
    return {
        "flips": flips, "flip_share": flips / max(1, len(frames)), "flip_interval": wilson(flips, len(frames)),
        "score_difference": float(np.mean(scores)) if scores else float("nan"),
        "level_difference": float(np.mean(levels)) if levels else float("nan"),
        **{key: value for key, value in _levels(others).items() if key in ("mae", "mae_0_to_9")},
    }  # fmt: skip


def _conventional(
    truth: NDArray[np.bool_], called: NDArray[np.bool_] | None, here: NDArray[np.bool_]
) -> dict[str, float]:
    if called is None:
        return {"accuracy": float("nan"), "f1": float("nan")}
    found = rates(truth[here], called[here])
    return {"accuracy": found["accuracy"], "f1": found["f1"]}


def _levels(frames: Sequence[Judged]) -> dict[str, Any]:
    measured = [(f.level, f.rating) for f in frames if f.level is not None and np.isfinite(f.rating)]
    level, rating = np.array(measured, float).reshape(-1, 2).T
    error = np.abs(level - rating)
    below_ten = rating < 10
    varied = len(error) > 1 and level.std() > 0 and rating.std() > 0
    return {
        "mae": float(error.mean()) if len(error) else float("nan"),
        "mae_interval": mean_interval(error),
        "mae_0_to_9_interval": mean_interval(error[below_ten]),
        "mae_0_to_9": float(error[below_ten].mean()) if below_ten.any() else float("nan"),
        "beyond_3": float((error > 3).mean()) if len(error) else float("nan"),
        "pcc": float(np.corrcoef(level, rating)[0, 1]) if varied else float("nan"),
        "level_by_rating": {f"{r:g}": box(level[rating.round(3) == r]) for r in np.unique(rating.round(3))},
    }


def box(values: NDArray[np.floating]) -> dict[str, float]:
    """The numbers of a box plot: n, mean, quartiles, and the last values within 1.5 interquartile ranges of them."""
    q1, median, q3 = np.percentile(values, [25, 50, 75])
    inside = values[(values >= q1 - 1.5 * (q3 - q1)) & (values <= q3 + 1.5 * (q3 - q1))]
    return {
        "n": len(values), "mean": float(values.mean()), "low": float(inside.min()), "q1": float(q1),
        "median": float(median), "q3": float(q3), "high": float(inside.max()),
    }  # fmt: skip


def _distributions(frames: Sequence[Judged]) -> dict[str, dict[str, dict[str, float]]]:
    """Box-plot numbers of both scores, for OK and NG: the paper's Figure 2."""
    found: dict[str, dict[str, dict[str, float]]] = {"umbra": {}, "conventional_dn": {}}
    for name, wanted in (("OK", True), ("NG", False)):
        here = [f for f in frames if (f.class_name == "OK") is wanted]
        ours = np.array([f.score for f in here if f.score is not None])
        old = np.array([f.conventional for f in here if np.isfinite(f.conventional)])
        found["umbra"] |= {name: box(ours)} if len(ours) else {}
        found["conventional_dn"] |= {name: box(old)} if len(old) else {}
    return found


def _confusion(frames: Sequence[Judged]) -> dict[str, dict[str, int]]:
    """Counts by true class, then by called class or "refused"."""
    table = {true: dict.fromkeys((*CLASSES, "refused"), 0) for true in CLASSES}
    for f in frames:
        if not f.ambiguous:
            table[f.class_name][f.called_class or "refused"] += 1
    return table
