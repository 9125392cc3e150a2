"""Training on a station's own labels: labeled frames among simulated ones -> networks -> a bundle of the station."""

from __future__ import annotations

import fcntl
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from appliance.errors import ApplianceError
from appliance.label_set import label_set
from appliance.loop import TRAINED
from appliance.station import Station
from appliance.verdict import now_utc
from appliance.verdict_log import VerdictLog
from engines import Bundle
from engines.bundle import MODEL_FILES, check_name, load
from engines.training.data import ImageSet, join
from engines.training.pack import pack
from engines.training.train import train

LABELED_SHARE = 0.5  # of the frames that training draws; the others are simulated, so that nothing known is forgotten
MOST_REPEATS = 50
WANTED = {
    "classifier": "a class",
    "regressor": "a level",
    "unseen": "boxes, or that there is nothing to draw one around",
}
Sets = tuple[ImageSet, ImageSet]


@dataclass(frozen=True, slots=True, kw_only=True)
class Retraining:
    """What to train on a station's labels.

    Attributes:
        name: of the new bundle.
        roles: networks that are trained; the others are taken over from the active bundle.
        preset: how long.
        seed: of batches.
    """

    name: str
    roles: tuple[str, ...] = ("unseen",)
    preset: str = "small"
    seed: int = 0


def new_bundle(place: Station, name: str) -> Path:
    """Where a station's bundle of a new name will lie.

    Raises:
        BundleError: it cannot be a name.
        ApplianceError: the station has one of this name.
    """
    check_name(name)
    if (folder := place.bundles / name).exists():
        raise ApplianceError(f"{folder}: there is a bundle of this name already; choose another")
    return folder


def retrain(
    place: Station,
    log: VerdictLog,
    active: Bundle,
    wanted: Retraining,
    simulated: Sets,
    *,
    report: Callable[[str], None],
) -> Bundle:
    """Train networks on the labels of a station, from the active bundle's weights on, and pack a bundle of the station.

    Where the classifier and the regressor are taken over, so is the limit on the score. Goes on where it was stopped, unless
    anybody labeled anything since: then it begins anew.

    Args:
        place: the station; the bundle appears among its bundles when it is whole.
        log: of the station, open for writing.
        active: bundle that is gone on from.
        wanted: what to train.
        simulated: training and validation frames among which the labeled ones are mixed.
        report: called with one line of progress.

    Raises:
        ApplianceError: the station has a bundle of this name, one is being trained, or no label teaches a role.
        EngineError: the name cannot be one, or training or packing fails.
    """
    out, work, began = new_bundle(place, wanted.name), place.root / "loop" / wanted.name, now_utc()
    with _alone(work):
        state = log.state_of_labels()
        here = work / ("labels-" + "-".join(map(str, state)))
        for earlier in set(work.glob("labels-*")) - {here}:
            shutil.rmtree(earlier)
        weights, sets, labeled = {role: active.model(role) for role in MODEL_FILES}, simulated, {}
        for role in wanted.roles:
            sets, labeled[role] = _loop_sets(place, log, role, active, simulated, report)
            weights[role] = train(
                role, sets, here / role, preset=wanted.preset, seed=wanted.seed, start=active.model(role), report=report
            )
        judged_as_before = wanted.roles == ("unseen",)
        note = f"{', '.join(wanted.roles)} trained on labels of a station, from {active.identity}"
        packed = pack(
            weights, sets if judged_as_before else simulated, here / "bundle", name=wanted.name, stretch=active.stretch,
            spec=active.spec if judged_as_before else None, training={"note": note}, report=report,
        )  # fmt: skip
        # Written down first: a bundle that nobody knows of could not be made again under its name.
        log.add_event(
            TRAINED, identity=packed.identity, at=began, labeled=labeled, last_label=state[0], roles=list(wanted.roles),
            **{"from": active.identity},
        )  # fmt: skip
        place.bundles.mkdir(parents=True, exist_ok=True)
        packed.folder.rename(out)
        shutil.rmtree(here)
    return load(out)


@contextmanager
def _alone(work: Path) -> Iterator[None]:
    """One training of a name at a time; the kernel lets go of the lock when the process ends."""
    work.mkdir(parents=True, exist_ok=True)
    with (work / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ApplianceError(f"{work}: a bundle of this name is being trained by another process") from None
        yield


def _loop_sets(
    place: Station, log: VerdictLog, role: str, bundle: Bundle, simulated: Sets, report: Callable[[str], None]
) -> tuple[Sets, int]:
    """Labeled frames, repeated until they are half of what is drawn, among simulated ones; and how many there are.

    Raises:
        ApplianceError: no label teaches this role.
    """
    found = label_set(place, log, role, bundle.stretch)
    if not len(found.training):
        raise ApplianceError(
            f"{role}: no label that could teach it; wanted frames with {WANTED[role]} (umbra loop next)"
        )
    report(f"{role}: {len(found.training)} labeled frames, {len(found.validation)} kept for validation, "
           f"{found.disputed} disputed and {found.lost} without a picture left out")  # fmt: skip
    repeats = int(
        np.clip(LABELED_SHARE / (1 - LABELED_SHARE) * len(simulated[0]) / len(found.training), 1, MOST_REPEATS)
    )
    training = join([simulated[0], *[found.training] * repeats])
    return (training, join([simulated[1], found.validation])), len(found.training)
