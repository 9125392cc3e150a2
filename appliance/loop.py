"""The label loop: label, retrain, activate; what stands where, and the next step."""

from __future__ import annotations

import enum
from typing import Any

from appliance import log as events
from appliance.labels import standing
from appliance.measured import measured_by_others
from appliance.rank import class_counts
from appliance.station import Station
from appliance.verdict import Row
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
    new = len(log.frames_people_labeled(after=_last_label(log, trained) if trained else 0))
    counts = class_counts(labels)
    waiting = trained["detail"]["identity"] if trained and _may_be_activated(place, log, trained, active) else None
    step = Step.SETTLE if disputed else Step.ACTIVATE if waiting else Step.TRAIN if new >= ENOUGH else Step.LABEL
    found = {
        "bundle": active, "measured": log.measured(), "labeled": len(people), "new": new, "disputed": disputed,
        "proposed": sum(one.label is None and one.proposal is not None for one in holds.values()),
        "classes": dict(counts), "imbalance": round(imbalance(counts), 4),
        "trained": trained["detail"] if trained else None, "next": step.value,
    }  # fmt: skip
    advice = ADVICE[step].format(disputed=disputed, new=new, trained=_name_of(waiting) if waiting else "")
    if step is Step.LABEL and (others := measured_by_others(place, log)):
        advice += f"; {others} frames were measured by other bundles only: umbra rescreen"
    return found | {"advice": advice}


def _last_label(log: VerdictLog, trained: Row) -> int:
    """Number of the newest label that a training saw; earlier versions noted only when it was."""
    noted = trained["detail"].get("last_label")
    return log.newest_label(by=trained["at"]) if noted is None else int(noted)


def _may_be_activated(place: Station, log: VerdictLog, trained: Row, active: str) -> bool:
    """Whether the bundle of a training is there, was never active (else somebody went back on purpose), and not refused."""
    identity = trained["detail"]["identity"]
    known = {active, *(row["identity"] for row in log.table("bundles"))}
    refused = {row["detail"].get("identity") for row in log.events(events.BUNDLE_REFUSED)}
    return identity not in known | refused and (place.bundles / _name_of(identity)).is_dir()


def _name_of(identity: str) -> str:
    return identity.partition("@")[0]
