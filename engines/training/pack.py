"""Three trained networks -> a bundle: quantise, choose spec and threshold on validation frames, measure golden frames."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch

from engines.bundle import FILES, GOLDEN_EXPECTED, GOLDEN_FRAMES, MODEL_FILES, Bundle, write_manifest
from engines.cpu_inspector import CpuInspector
from engines.errors import TrainingError
from engines.inspector import Measurement
from engines.openvino import outputs_of
from engines.regions import find_regions
from engines.simulation import SENSORS, Plan, simulate
from engines.training.data import AMBIGUOUS, ImageSet
from engines.training.quantize import decisive, load_weights, quantize
from engines.training.unseen import ALPHA
from kernels import RawFrame, StretchParams

SCORE_TOLERANCE = 0.05  # int8 differs between processors (VNNI or not); more than this is another network
GOLDEN_SIZE = (352, 288)
GOLDEN_PLANS = (
    ("A", "OK", 0.0), ("C", "OK", 1.0), ("F", "OK", 0.0), ("A", "Spot", 7.0), ("D", "Spot", 8.0), ("F", "Spot", 6.5),
    ("B", "Diagonal", 7.0), ("E", "Diagonal", 8.0),
)  # fmt: skip
GOLDEN_SEED = 424_242
SCORE_ERROR = 0.02
CLEAN_FRAMES_FLAGGED = 0.01
CLEAN_FRAMES = 1000  # that the threshold is chosen on


def choose_spec(p_ng: np.ndarray, level: np.ndarray, defective: np.ndarray) -> float:
    """The limit on the score, on a grid of 1/200, with the best F1 if every score were measured with an error.

    The error (normal, SD SCORE_ERROR) draws the limit into the gap between the two classes: where scores are dense,
    the next engine or the next exposure of the same frame would change verdicts.

    Args:
        p_ng: (n,) P(NG), 0..1.
        level: (n,) levels, 0..10.
        defective: (n,) bool, the truth.
    """
    score = p_ng * np.clip(level, 0, 10) / 10
    limits = np.arange(1, 140) / 200
    called = torch.special.ndtr(torch.from_numpy((score - limits[:, None]) / SCORE_ERROR)).numpy()
    f1 = 2 * called[:, defective].sum(1) / (defective.sum() + called.sum(1))
    best = limits[f1 >= f1.max() - 1e-9]
    return round(float(best[len(best) // 2]), 3)


def choose_threshold(maps: np.ndarray) -> float:
    """t, on a bin edge: the lowest at which at most 1 % of clean frames show a region; maps is (n, h, w) of S, 0..1."""
    eight_bit = np.rint(maps * 255).astype(np.uint8)
    for edge in range(64, 256, 4):
        t = edge / 256
        if np.mean([bool(find_regions(unseen, threshold=t)) for unseen in eight_bit]) <= CLEAN_FRAMES_FLAGGED:
            return t
    return 252 / 256


def golden_frames() -> dict[str, RawFrame]:
    """Small simulated frames far from the limit, named by number, sensor and class."""
    frames = {}
    for number, (sensor_name, class_name, level) in enumerate(GOLDEN_PLANS):
        sensor = SENSORS[sensor_name].resized(*GOLDEN_SIZE)
        made = simulate(sensor, Plan(class_name, level), seed=(GOLDEN_SEED, number))
        frames[f"{number:02d}-{sensor_name}-{class_name}"] = RawFrame.from_samples(made.samples, bits=sensor.bits)
    return frames


def pack(
    weights: Mapping[str, Path],
    sets: tuple[ImageSet, ImageSet],
    out: Path,
    *,
    name: str,
    stretch: StretchParams,
    training: Mapping[str, str],
    spec: float | None = None,
    report: Callable[[str], None] = print,
) -> Bundle:
    """Quantise three networks and write a bundle.

    Args:
        weights: of classifier, regressor and unseen: weights.pt of a training, or the ONNX file of another bundle, which
            is taken over byte for byte.
        sets: calibration images (of training) and validation images.
        out: folder of the bundle; made.
        name: of the bundle.
        stretch: what the images were stretched with.
        training: free text for bundle.toml.
        spec: the default limit on the score; None: chosen on the validation frames.
        report: called with one line of progress.

    Raises:
        TrainingError: validation frames that no spec or threshold can be chosen on, or weights that are no such network's.
    """
    calibration, validation = sets
    clear = validation.select(validation.class_index != AMBIGUOUS)
    clean = validation.images[validation.rating <= 1][:CLEAN_FRAMES]
    if not (len(clean) and (clear.class_index > 0).any() and (clear.class_index == 0).any()):
        raise TrainingError("validation set: wanted OK and NG frames to choose the spec on, and some of level 0 or 1 to "
                         "choose the threshold of the unseen map on")  # fmt: skip
    out.mkdir(parents=True, exist_ok=True)
    for role, file in MODEL_FILES.items():
        if weights[role].suffix == ".onnx":
            shutil.copyfile(weights[role], out / file)
            report(f"{file}: {(out / file).stat().st_size / 1e6:.1f} MB, as it is in {weights[role].parent}")
            continue
        found = quantize(load_weights(role, weights[role]), calibration, validation, out / file)
        report(f"{file}: {(out / file).stat().st_size / 1e6:.1f} MB, {found}")
    if spec is None:
        p_ng = decisive("classifier", outputs_of(out / MODEL_FILES["classifier"], clear.images))
        level = decisive("regressor", outputs_of(out / MODEL_FILES["regressor"], clear.images))[:, 0]
        spec = choose_spec(p_ng, level, clear.class_index > 0)
    threshold = choose_threshold(decisive("unseen", outputs_of(out / MODEL_FILES["unseen"], clean)))
    report(f"spec {spec}, t {threshold:.4f}")
    golden = golden_frames()
    images = {key: frame.packed.view(np.uint16 if frame.layout.storage_bits == 16 else np.uint8).reshape(
        frame.height, frame.width) for key, frame in golden.items()}  # fmt: skip
    np.savez_compressed(out / GOLDEN_FRAMES, **images)  # type: ignore[arg-type]
    (out / GOLDEN_EXPECTED).write_text("{}")
    numbers = {"threshold": threshold, "alpha": ALPHA, "spec": spec, "score_tolerance": SCORE_TOLERANCE}
    draft = write_manifest(out, name=name, stretch=stretch, training=training, **numbers)
    measured = CpuInspector(draft).measure(list(golden.values()))
    expected = {key: _expected(m, golden[key]) for key, m in zip(golden, measured, strict=True)}
    (out / GOLDEN_EXPECTED).write_text(json.dumps(expected, indent=1) + "\n")
    bundle = write_manifest(out, name=name, stretch=stretch, training=training, **numbers)
    report(f"{bundle.identity}: {sum((out / f).stat().st_size for f in FILES) / 1e6:.1f} MB")
    return bundle


def _expected(measurement: Measurement, frame: RawFrame) -> dict[str, object]:
    inspection, unseen = measurement.inspection, measurement.unseen
    if inspection is None or unseen is None:
        raise ValueError(f"golden frame: {measurement.refused}")
    return {"bits": frame.bits, "p": list(inspection.p), "level": inspection.level, "score": inspection.score,
            "m_alpha": unseen.m_alpha}  # fmt: skip
