"""How long each network trains: paper scale, the starter bundle on two cores, or seconds for tests."""

from __future__ import annotations

from engines.training.fit import Stage

PRESETS: dict[str, dict[str, tuple[Stage, ...]]] = {
    "paper": {
        "classifier": (Stage(128, 280_000, 128, 2e-3), Stage(224, 280_000, 128, 1e-3)),
        "regressor": (Stage(128, 200_000, 128, 2e-3), Stage(224, 200_000, 128, 1e-3)),
        "unseen": (Stage(128, 200_000, 64, 4e-3), Stage(224, 40_000, 32, 1e-3)),
    },
    "starter": {
        "classifier": (Stage(64, 60_000, 64, 1.5e-3), Stage(128, 120_000, 32, 1e-3)),
        "regressor": (Stage(64, 100_000, 64, 2e-3), Stage(128, 240_000, 64, 1e-3)),
        "unseen": (Stage(128, 24_000, 16, 5e-3), Stage(224, 3_000, 8, 8e-4)),
    },
    "finish": {  # from a bundle that is good already
        "classifier": (Stage(128, 110_000, 32, 6e-4),),
        "regressor": (Stage(128, 280_000, 64, 1e-3),),
        "unseen": (Stage(224, 3_000, 8, 4e-4),),
    },
    "small": {  # some hundred pictures, varied, from a bundle's weights
        "classifier": (Stage(64, 24_000, 32, 8e-4), Stage(128, 10_000, 32, 4e-4)),
        "regressor": (Stage(64, 30_000, 32, 1e-3), Stage(128, 20_000, 32, 6e-4)),
        "unseen": (Stage(128, 6_000, 16, 2e-3), Stage(224, 1_000, 8, 4e-4)),
    },
    "photographs": {  # some hundred pictures of anything, from weights that learnt photographs
        "classifier": (Stage(224, 14_400, 16, 1e-4),),
        "regressor": (Stage(224, 4_800, 16, 1e-4),),
        "unseen": (Stage(96, 6_400, 8, 5e-3), Stage(224, 400, 4, 1e-3)),
    },
    "compare": {  # equal and short, to compare recipes
        "classifier": (Stage(64, 24_000, 32, 1.5e-3),),
        "regressor": (Stage(64, 48_000, 32, 2e-3),),
        "unseen": (Stage(128, 4_000, 16, 5e-3),),
    },
    "smoke": {
        "classifier": (Stage(64, 64, 16, 1e-3),),
        "regressor": (Stage(64, 128, 16, 1e-3),),
        "unseen": (Stage(64, 64, 8, 1e-3),),
    },
}
NORM_IMAGES = {
    "paper": 3200,
    "starter": 1600,
    "finish": 400,
    "small": 1600,
    "photographs": 1600,
    "compare": 1600,
    "smoke": 64,
}  # that norms are re-estimated over, and familiar places kept from
