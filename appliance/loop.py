"""The label loop: label, retrain, activate; what stands where, and the next step."""

from __future__ import annotations

import enum
from typing import Any

from appliance.labels import standing
from appliance.rank import class_counts
from appliance.station import Station
from appliance.verdict_log import VerdictLog
from engines.ranking import imbalance

TRAINED = "loop.trained"
ENOUGH = 10  # labeled frames since the last training that make another one worth its time


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
