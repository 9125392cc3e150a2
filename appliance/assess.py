"""A data set and a bundle -> the numbers of `umbra evaluate`, measured from the raw files through the engines."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from appliance.dataset import DataSet, DataSetError, TruthRow
from appliance.frame import Frame
from appliance.training_sets import images_and_sizes
from engines import CLASSES, Inspector
from engines.training.conventional import PerSensorSpec, conventional_score, cross_fitted
from engines.training.evaluate import JUDGES, Judged, difference, evaluate
from kernels import unpack

FIT_FRAMES = 400  # training frames a sensor, at most, that the conventional spec is fitted on


def assess(
    data: DataSet,
    inspector: Inspector,
    *,
    split: str = "test",
    against: Inspector | None = None,
    progress: Callable[[int, int], None] = lambda *_: None,
) -> dict[str, Any]:
    """Evaluate a bundle on a data set.

    Where the set is split, its frames of `split` are judged, and the conventional method's spec of each sensor is fitted
    on training frames alone; where it is not, or where training frames are judged too, each half of a sensor's frames is
    judged by a spec fitted on the clear frames of the other half.

    Args:
        data: frames with truth.
        inspector: of the bundle.
        split: test, validation, train, or all.
        against: the same bundle in another arithmetic: how many verdicts and how far the numbers differ is reported.
        progress: called with frames done and frames in all.

    Raises:
        DataSetError: no frame of that split, or a frame that cannot be read.
    """
    judged_rows = data.of_split(split)
    fitting = _drawn(data.of_split("train")) if data.is_split and split in ("test", "validation") else []
    total = len(judged_rows) + len(fitting)
    frames, others = [], []
    for row, frame in data.frames(judged_rows):
        frames.append(_judge(row, frame, inspector))
        if against is not None:
            others.append(_judge(row, frame, against, frames[-1].conventional))
        progress(len(frames), total)
    report = evaluate(frames, _conventional(frames, fitting, data, lambda n: progress(len(frames) + n, total)),
                      spec=inspector.bundle.spec)  # fmt: skip
    return {"bundle": inspector.bundle.identity, "engine": inspector.engine, "split": split if data.is_split else "all",
            "conventional_fitted_on": len(fitting) or "the other half", **report,
            **({"against": {"engine": against.engine, **difference(frames, others, spec=inspector.bundle.spec)}}
               if against is not None else {})}  # fmt: skip


def assess_images(
    data: DataSet,
    outputs: Mapping[str, Callable[[NDArray[np.uint8]], NDArray[np.float32]]],
    *,
    split: str = "test",
    spec: float,
    identity: str,
) -> dict[str, Any]:
    """Evaluate bare networks on the images of a data set: for pictures, and for networks that are in no bundle yet.

    Args:
        data: frames or pictures with truth.
        outputs: classifier and regressor, or one of them: (n, 224, 224) uint8 images -> P of the four classes, or level.
        split: as assess.
        spec: the limit on the score.
        identity: what is measured.

    Raises:
        DataSetError: no frame of that split, or a file that cannot be read.
    """
    rows, images = [], []
    for row, image, _ in images_and_sizes(data, data.of_split(split)):
        rows.append(row)
        images.append(image)
    there = [i for i, image in enumerate(images) if image is not None]
    stack = np.stack([image for image in images if image is not None])
    p, level = (dict(zip(there, outputs[role](stack), strict=True)) if role in outputs else {} for role in JUDGES)
    frames = []
    for i, row in enumerate(rows):
        p_ng = float(1 - p[i][0]) if i in p else None
        found = float(np.clip(level[i], 0, 10)) if i in level else None
        frames.append(Judged(
            sensor=row.sensor, class_name=row.class_name, rating=float("nan") if row.level is None else row.level,
            true_level=float("nan") if row.true_level is None else row.true_level,
            called_class=CLASSES[int(p[i].argmax())] if i in p else None, p_ng=p_ng, level=found,
            score=None if p_ng is None or found is None else p_ng * found / 10, conventional=float("nan"),
            refused=images[i] is None,
        ))  # fmt: skip
    return {"bundle": identity, "engine": "networks alone", "split": split if data.is_split else "all",
            "conventional_fitted_on": "nothing", **evaluate(frames, None, spec=spec)}  # fmt: skip


def _drawn(rows: Sequence[TruthRow]) -> list[TruthRow]:
    """At most FIT_FRAMES clear rows of each sensor, evenly spread."""
    chosen: list[TruthRow] = []
    for name in sorted({row.sensor for row in rows}):
        here = [row for row in rows if row.sensor == name and not row.ambiguous]
        chosen += [here[i] for i in np.unique(np.linspace(0, len(here) - 1, min(FIT_FRAMES, len(here))).astype(int))]
    return chosen


def _conventional(
    frames: Sequence[Judged], fitting: Sequence[TruthRow], data: DataSet, progress: Callable[[int], None]
) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
    """For each frame, whether the conventional method calls it defective."""
    scores = np.array([f.conventional for f in frames])
    sensors = np.array([f.sensor for f in frames])
    if not fitting:
        clear = np.array([not f.ambiguous for f in frames])
        return cross_fitted(scores, np.array([f.class_name != "OK" for f in frames]), sensors, clear)
    known = []
    for number, (_, frame) in enumerate(data.frames(fitting), start=1):
        if frame.raw is None:
            raise DataSetError(f"{fitting[number - 1].file}: {frame.unreadable}")
        known.append(conventional_score(unpack(frame.raw)))
        progress(number)
    spec = PerSensorSpec.fit(
        np.array(known),
        np.array([row.class_name != "OK" for row in fitting]),
        np.array([row.sensor for row in fitting]),
    )
    if missing := sorted(set(sensors.tolist()) - spec.limits.keys()):
        raise DataSetError(
            f"{data.folder}: no training frame of sensor {', '.join(missing)} to fit a conventional spec on"
        )
    return spec.calls(scores, sensors)


def _judge(row: TruthRow, frame: Frame, inspector: Inspector, conventional: float | None = None) -> Judged:
    if frame.raw is None:
        raise DataSetError(f"{row.file}: {frame.unreadable}")
    if conventional is None:
        conventional = conventional_score(unpack(frame.raw))
    inspection = inspector.measure([frame.raw])[0].inspection
    rating = row.level if row.level is not None else float("nan")
    return Judged(
        sensor=row.sensor, class_name=row.class_name, rating=rating,
        true_level=row.true_level if row.true_level is not None else rating,
        called_class=inspection.class_name if inspection else None, p_ng=inspection.p_ng if inspection else None,
        level=inspection.level if inspection else None, score=inspection.score if inspection else None,
        conventional=conventional, refused=inspection is None,
    )  # fmt: skip
