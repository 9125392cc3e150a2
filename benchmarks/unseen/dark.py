"""`make left-out-dark`: rings, bands and capture failures that a UNet never saw, on simulated dark frames."""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from appliance.training_sets import VALIDATION, simulated_set, training_sets
from benchmarks.harness import RESULTS, as_json, digest_of, machine
from engines.bundle import load
from engines.models import build, familiarity, unet
from engines.openvino import outputs_of
from engines.regions import find_regions
from engines.training import fit as fitting
from engines.training import outliers, unseen
from engines.training.data import ImageSet
from engines.training.evaluate import wilson
from engines.training.fit import fit, predict
from engines.training.pack import CLEAN_FRAMES, choose_threshold
from engines.training.presets import PRESETS
from engines.training.unseen import ALPHA, auroc, finish, seen_only, unseen_job, unseen_maps
from kernels import IMAGE_SIDE

RESULT_FILE = RESULTS / "left_out_dark.json"
FRAMES, TEST_FRAMES, TEST_SEED = 20_000, 8_000, 7_000
LEFT_OUT = {"rings": ("ring",), "bands": ("band", "streak")}
DEFECTIVE_FROM, CLEAN_TO = 4, 1  # ratings
ALPHAS = (1.0, 2.0, 4.0, 8.0)
FIRST = (10, 50, 200)  # of an order


def groups_of(test: ImageSet) -> dict[str, NDArray[np.bool_]]:
    """Which frames show what, of what is to be found; and the clean ones."""
    failed = test.rating == 10
    shown = {name: np.isin(test.kind, kinds) & (test.rating >= DEFECTIVE_FROM) for name, kinds in LEFT_OUT.items()}
    known = (test.rating >= DEFECTIVE_FROM) & ~failed & ~np.isin(test.kind, LEFT_OUT["rings"] + LEFT_OUT["bands"])
    return {**shown, "failures": failed, "known shapes": known, "clean": (test.rating <= CLEAN_TO) & ~failed}


def judged(logits: NDArray[np.float32], test: ImageSet, t: float) -> dict[str, Any]:
    """AUROC against clean frames, and the share that shows a region above t, with its 95 % interval."""
    maps = unseen_maps(logits)
    groups = groups_of(test)
    table: dict[str, Any] = {"t": t, "frames": {name: int(here.sum()) for name, here in groups.items()}}
    for alpha in ALPHAS:
        m_alpha = (maps.astype(float) ** alpha).sum((1, 2))
        table[f"auroc, alpha {alpha:g}"] = {
            name: auroc(m_alpha[here], m_alpha[groups["clean"]]) for name, here in groups.items() if name != "clean"
        }
    eight_bit = np.rint(maps * 255).astype(np.uint8)
    table["orders"] = orders(maps, eight_bit, test, t)
    for name, here in groups.items():
        found = int(sum(bool(find_regions(one, threshold=t)) for one in eight_bit[here]))
        table[f"flagged: {name}"] = [found / max(1, int(here.sum())), *wilson(found, int(here.sum()))]
    return table


def orders(
    maps: NDArray[np.float32], eight_bit: NDArray[np.uint8], test: ImageSet, t: float
) -> dict[str, dict[str, Any]]:
    """What stands first by M_alpha, and by the peaks of regions with equal ones by M_alpha, as `umbra rank` has it."""
    m_alpha = (maps.astype(float) ** ALPHA).sum((1, 2))
    peaks = np.array([sum(region.peak for region in find_regions(one, threshold=t)) for one in eight_bit])
    groups = groups_of(test)
    found: dict[str, dict[str, Any]] = {}
    for name, value in (("m_alpha", m_alpha), ("rois", peaks)):
        order = np.lexsort((np.arange(len(value)), -m_alpha, -value))
        place = np.empty(len(order))
        place[order] = np.arange(len(order))
        found[name] = {
            f"auroc: {group}": auroc(-place[here], -place[groups["clean"]])
            for group, here in groups.items() if group != "clean"
        }  # fmt: skip
        for count in FIRST:
            first = order[:count]
            found[name][f"first {count}"] = {group: int(here[first].sum()) for group, here in groups.items()}
            found[name][f"kinds among the first {count}"] = len(set(test.kind[first]))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=Path("work/left-out"))
    parser.add_argument("--bundle", type=Path, help="judge this bundle's network instead of training one")
    parser.add_argument("--frames", type=int, default=FRAMES)
    parser.add_argument("--preset", choices=PRESETS, default="starter")
    arguments = parser.parse_args()
    work: Path = arguments.work
    test = simulated_set(replace(VALIDATION, seed=TEST_SEED), TEST_FRAMES, cache=work / "sets", name="test")
    if arguments.bundle:
        bundle = load(arguments.bundle)
        name, t, logits = bundle.identity, bundle.threshold, outputs_of(bundle.model("unseen"), test.images)
    else:
        training, validation = training_sets(None, arguments.frames, cache=work / "sets")
        kinds = tuple(kind for kinds in LEFT_OUT.values() for kind in kinds)
        model, known = build("unseen"), seen_only(validation, kinds)
        digest = f"{training.digest[:8]}-{digest_of(unseen, outliers, fitting, unet, familiarity)}"
        job = unseen_job(
            model, training, validation, PRESETS[arguments.preset]["unseen"], work / f"unseen-{digest}", left_out=kinds
        )
        fit(replace(job, data=digest))
        print(finish(job, training.images[:1], known.images, "exposed", None))
        clean = validation.images[validation.rating <= CLEAN_TO][:CLEAN_FRAMES]
        t = choose_threshold(unseen_maps(predict(model, clean, IMAGE_SIDE, batch=16, exact=True)))
        name, logits = (
            "rings, bands and failures left out",
            predict(model, test.images, IMAGE_SIDE, batch=16, exact=True),
        )
    results: dict[str, Any] = json.loads(RESULT_FILE.read_text()) if RESULT_FILE.exists() else {}
    at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    results[name] = judged(logits, test, t) | {"machine": machine(), "at": at}
    RESULT_FILE.write_text(as_json(results))
    print(name, json.dumps(results[name], indent=1))


if __name__ == "__main__":
    main()
