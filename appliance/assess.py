"""A data set and a bundle -> the numbers of `umbra evaluate`, measured from the raw files through the engines."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from appliance.dataset import TruthRow, frames_of, read_truth
from appliance.frame import Frame
from engines import Inspector
from engines.training.conventional import conventional_score, cross_fitted
from engines.training.evaluate import Judged, evaluate
from kernels import unpack


def assess(folder: Path, inspector: Inspector, *, progress: Callable[[], None] = lambda: None) -> dict[str, Any]:
    """Evaluate a bundle on a folder with truth.csv.

    Raises:
        DataSetError: the folder's truth is unusable.
    """
    frames = judged_frames(folder, inspector, progress=progress)
    scores = np.array([f.conventional for f in frames])
    defective = np.array([f.class_name != "OK" for f in frames])
    called = cross_fitted(scores, defective, np.array([f.sensor for f in frames]))
    report = evaluate(frames, called, spec=inspector.bundle.spec)
    return {"bundle": inspector.bundle.identity, "engine": inspector.engine, **report}


def judged_frames(folder: Path, inspector: Inspector, *, progress: Callable[[], None] = lambda: None) -> list[Judged]:
    """Every frame of a data set, measured."""
    judged = []
    for row, frame in frames_of(folder, read_truth(folder)):
        judged.append(_judge(row, frame, inspector))
        progress()
    return judged


def _judge(row: TruthRow, frame: Frame, inspector: Inspector) -> Judged:
    measurement = inspector.measure([frame.raw])[0] if frame.raw is not None else None
    inspection = measurement.inspection if measurement else None
    rating = row.level if row.level is not None else float("nan")
    return Judged(
        sensor=row.sensor, class_name=row.class_name, rating=rating,
        true_level=row.true_level if row.true_level is not None else rating,
        called_class=inspection.class_name if inspection else None, p_ng=inspection.p_ng if inspection else None,
        level=inspection.level if inspection else None, score=inspection.score if inspection else None,
        conventional=conventional_score(unpack(frame.raw)) if frame.raw is not None else float("inf"),
    )  # fmt: skip
