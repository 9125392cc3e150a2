"""Who a frame is, from its path, its name and its sidecar."""

import pytest

from appliance.frame import identify, stem_of
from appliance.settings import Settings

PATTERN = Settings().name_pattern


@pytest.mark.parametrize(
    ("path", "product", "lot"),
    [
        ("IMX1/L7/a.tif", "IMX1", "L7"),
        ("IMX1/L7/deeper/still/a.tif", "IMX1", "L7"),
        ("IMX1/a.tif", "IMX1", "default"),
        ("a.tif", "default", "default"),
    ],
)
def test_folders_name_product_and_lot(path: str, product: str, lot: str) -> None:
    identity = identify(path)
    assert (identity.product, identity.lot, identity.name) == (product, lot, "a.tif")


def test_the_name_holds_wafer_and_die() -> None:
    identity = identify("P/L/A00012_W03_X-4_Y17.tif", name_pattern=PATTERN)
    assert (identity.wafer, identity.die) == ("03", (-4, 17))
    assert identify("P/L/frame.tif", name_pattern=PATTERN).die is None


def test_a_sidecar_wins_over_the_name() -> None:
    identity = identify("P/L/A_W03_X1_Y2.tif", name_pattern=PATTERN, wafer="9", die=(5, 6))
    assert (identity.wafer, identity.die) == ("9", (5, 6))


@pytest.mark.parametrize(("name", "stem"), [("a.tif", "a"), ("a.b.tif", "a.b"), ("a.fits.gz", "a"), ("a", "a")])
def test_stem_drops_the_suffix(name: str, stem: str) -> None:
    assert stem_of(name) == stem
