"""Judged frames against their truth: the numbers of the dark-blemish paper (its Table 3 and regression results)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engines.classes import CLASSES
from engines.simulation import RATED_CEILING, RATED_FLOOR


@dataclass(frozen=True, slots=True)
class Judged:
    """One frame's truth beside what was measured.

    Attributes:
        sensor: name.
        class_name: true class.
        true_level: as simulated, or the rating where nothing finer is known.
        rating: whole-number level, 0..10.
        called_class: by the classifier; None where the frame was refused before it.
        p_ng, level, score: measured, or None.
        conventional: eq. 10, DN.
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

    @property
    def ambiguous(self) -> bool:
        """Within half a level of the OK/NG border: in no classification number, as in the paper."""
        return self.class_name != "Error" and RATED_FLOOR < self.true_level < RATED_CEILING


def rates(truth: NDArray[np.bool_], called: NDArray[np.bool_]) -> dict[str, float]:
    """Accuracy, F1 and recall of NG."""
    hits = int((truth & called).sum())
    return {
        "accuracy": float((truth == called).mean()) if len(truth) else float("nan"),
        "f1": 2 * hits / max(1, int(truth.sum() + called.sum())),
        "recall": hits / max(1, int(truth.sum())),
    }


def evaluate(frames: list[Judged], conventional_called: NDArray[np.bool_], *, spec: float) -> dict[str, Any]:
    """The report of `umbra evaluate --json`.

    NG is called where P(NG) > 1/2, or where the frame was refused (it would not pass); `verdicts` has the same numbers
    for the decision of the line: class Error, score > spec, or refused.

    Args:
        frames: all frames, ambiguous ones included.
        conventional_called: for each frame, whether the conventional method calls it defective.
        spec: the limit on the score.
    """
    clear = np.array([not f.ambiguous for f in frames])
    truth = np.array([f.class_name != "OK" for f in frames])
    called = np.array([f.p_ng is None or f.p_ng > 0.5 for f in frames])
    stopped = np.array([f.score is None or f.score > spec or f.called_class == "Error" for f in frames])
    sensors = np.array([f.sensor for f in frames])
    per_sensor = {}
    for name in sorted(set(sensors.tolist())):
        here = clear & (sensors == name)
        old = rates(truth[here], conventional_called[here])
        new = rates(truth[here], called[here])
        per_sensor[name] = {
            "n": int(here.sum()), "accuracy": new["accuracy"], "f1": new["f1"],
            "conventional": {"accuracy": old["accuracy"], "f1": old["f1"]},
        }  # fmt: skip
    old = rates(truth[clear], conventional_called[clear])
    return {
        "n": int(clear.sum()), **rates(truth[clear], called[clear]), **_levels(frames),
        "confusion": _confusion(frames), "per_sensor": per_sensor,
        "conventional": {"accuracy": old["accuracy"], "f1": old["f1"]},
        "verdicts": rates(truth[clear], stopped[clear]) | {"spec": spec},
        "ambiguous": int((~clear).sum()), "refused": sum(f.p_ng is None for f in frames),
    }  # fmt: skip


def _levels(frames: list[Judged]) -> dict[str, float]:
    measured = [(f.level, f.rating) for f in frames if f.level is not None]
    level, rating = np.array(measured, float).reshape(-1, 2).T
    error = np.abs(level - rating)
    below_ten = rating < 10
    varied = len(error) > 1 and level.std() > 0 and rating.std() > 0
    return {
        "mae": float(error.mean()) if len(error) else float("nan"),
        "mae_0_to_9": float(error[below_ten].mean()) if below_ten.any() else float("nan"),
        "beyond_3": float((error > 3).mean()) if len(error) else float("nan"),
        "pcc": float(np.corrcoef(level, rating)[0, 1]) if varied else float("nan"),
    }


def _confusion(frames: list[Judged]) -> dict[str, dict[str, int]]:
    """Counts by true class, then by called class or "refused"."""
    table = {true: dict.fromkeys((*CLASSES, "refused"), 0) for true in CLASSES}
    for f in frames:
        if not f.ambiguous:
            table[f.class_name][f.called_class or "refused"] += 1
    return table
