"""The label loop: label, retrain, activate; what stands where, and the next step."""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from appliance.errors import ApplianceError
from appliance.label_set import label_set
from appliance.labels import standing
from appliance.rank import class_counts
from appliance.station import Station
from appliance.verdict_log import VerdictLog
from engines import Bundle
from engines.ranking import imbalance
from engines.training.data import ImageSet, join

TRAINED = "loop.trained"
ENOUGH = 10  # labeled frames since the last training that make another one worth its time
LABELED_SHARE = 0.5  # of the frames that training draws; the others are simulated, so that nothing known is forgotten
MOST_REPEATS = 50


class Step(enum.StrEnum):
    """What to do next."""

    SETTLE = "settle"
    ACTIVATE = "activate"
    TRAIN = "train"
    LABEL = "label"


ADVICE = {
    Step.SETTLE: "people differ on {disputed} frames: umbra labels list --disputed, then umbra labels add FRAME ... --settles",
    Step.ACTIVATE: "bundle {trained} is trained and not active: umbra bundle activate {trained}",
    Step.TRAIN: "{new} frames were labeled since the last training: umbra loop train",
    Step.LABEL: "label what is least known: umbra loop next",
}


def status(place: Station, log: VerdictLog) -> dict[str, Any]:
    """Where the loop stands: the active bundle, labels and their balance, disputes, the last training, and the next step.

    Args:
        place: the station.
        log: of the station.
    """
    activation, trained = log.activation(), log.newest_event(TRAINED)
    active = activation["identity"] if activation else place.load_bundle().identity
    labels = log.labels()
    holds = {frame_id: standing(given) for frame_id, given in labels.items()}
    people = {frame_id: one.label for frame_id, one in holds.items() if one.label is not None}
    disputed = sum(one.disputed for one in holds.values())
    since = trained["detail"]["at"] if trained else ""
    new = sum(label.at > since for label in people.values())
    counts = class_counts(labels)
    waiting = trained["detail"]["identity"] if trained and trained["detail"]["identity"] != active else None
    known = {row["identity"] for row in log.table("bundles")}
    if waiting in known:
        waiting = None  # it was active once: somebody went back on purpose
    step = Step.SETTLE if disputed else Step.ACTIVATE if waiting else Step.TRAIN if new >= ENOUGH else Step.LABEL
    found = {
        "bundle": active, "measured": log.measured(), "labeled": len(people), "new": new, "disputed": disputed,
        "proposed": sum(one.label is None and one.proposal is not None for one in holds.values()),
        "classes": dict(counts), "imbalance": round(imbalance(counts), 4),
        "trained": trained["detail"] if trained else None, "next": step.value,
    }  # fmt: skip
    name = waiting.partition("@")[0] if waiting else ""
    return found | {"advice": ADVICE[step].format(disputed=disputed, new=new, trained=name)}


@dataclass(frozen=True, slots=True)
class Taught:
    """What a loop's training saw.

    Attributes:
        sets: training and validation images.
        labeled: frames of people in the training set, before they are repeated.
    """

    sets: tuple[ImageSet, ImageSet]
    labeled: int


def loop_sets(
    place: Station, log: VerdictLog, role: str, bundle: Bundle, *, simulated: tuple[ImageSet, ImageSet],
    report: Callable[[str], None],
) -> Taught:  # fmt: skip
    """Labeled frames, repeated until they are half of what is drawn, among simulated ones.

    Args:
        place: the station.
        log: of the station.
        role: classifier, regressor or unseen.
        bundle: that is gone on from.
        simulated: training and validation frames.
        report: called with one line.

    Raises:
        ApplianceError: no label teaches this role.
    """
    found = label_set(place, log, role, bundle.stretch)
    if not len(found.training):
        raise ApplianceError(
            f"{role}: no label that could teach it; wanted frames with {_wanted(role)} (umbra loop next)"
        )
    report(f"{role}: {len(found.training)} labeled frames, {len(found.validation)} kept for validation, "
           f"{found.disputed} disputed and {found.lost} without a picture left out")  # fmt: skip
    repeats = int(
        np.clip(LABELED_SHARE / (1 - LABELED_SHARE) * len(simulated[0]) / len(found.training), 1, MOST_REPEATS)
    )
    training = join([simulated[0], *[found.training] * repeats])
    return Taught((training, join([simulated[1], found.validation])), len(found.training))


def _wanted(role: str) -> str:
    return {"classifier": "a class", "regressor": "a level"}.get(role, "boxes, or OK")
