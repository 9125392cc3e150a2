"""The stretched image of a frame of the log: the one that is kept, else made anew from what was put away."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from appliance.errors import FrameVanishedError
from appliance.images import kept_planes
from appliance.put_away import places_of
from appliance.reading import read_frame
from appliance.station import Station
from appliance.verdict import Row
from engines.inspector import SMALLEST_SIDE
from kernels import IMAGE_SIDE, FrameGeometryError, NotADarkFrameError, RawFrame, Stretcher, StretchParams


def image_of(place: Station, frame: Row, stretch: StretchParams) -> NDArray[np.uint8] | None:
    """The stretched image of a frame of the log: the one that is kept, else made anew from its file in done/.

    Returns:
        (224, 224) uint8, image times 255; None where neither is there any more.
    """
    kept = kept_planes(place.images, frame["id"], None)
    return _archived(place, frame, stretch) if kept is None else kept[0]


def _archived(place: Station, frame: Row, stretch: StretchParams) -> NDArray[np.uint8] | None:
    """The image of a frame that was put away, stretched anew; None where its file is gone, changed or cannot be judged."""
    for path in places_of(place.done, frame["path"], frame["sha256"]):
        if not path.is_file():
            continue
        try:
            read = read_frame(path, frame["path"], place.settings)
        except FrameVanishedError:  # retention took it meanwhile
            continue
        if read.raw is not None and read.sha256 == frame["sha256"]:
            return _stretched(read.raw, stretch)
    return None


def _stretched(raw: RawFrame, stretch: StretchParams) -> NDArray[np.uint8] | None:
    """The image of samples as the inspector makes it; None where it would refuse them."""
    if min(raw.width, raw.height) < SMALLEST_SIDE:
        return None
    image = np.empty((IMAGE_SIDE, IMAGE_SIDE), np.float32)
    try:
        Stretcher(stretch).stretch(raw, image)
    except (FrameGeometryError, NotADarkFrameError):
        return None
    return np.rint(image * 255).astype(np.uint8)
