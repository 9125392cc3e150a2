"""The overlay: a stretched frame with S as heat, its regions outlined and numbered by importance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from appliance.images import Pictures, plane_of, to_png
from kernels import IMAGE_SIDE

SCALE = 2  # pixels of the overlay for one of the image
HEAT = 0.7  # of the heat where S = 1
OUTLINE = (80, 220, 120)  # blue, green, red


def overlay_of(kept: Pictures, rois: Sequence[Mapping[str, Any]], size: tuple[int, int] | None) -> bytes | None:
    """PNG of a frame's overlay; None where its map was not measured.

    Args:
        kept: its image and map.
        rois: as the verdict row has them, boxes in pixels of the frame, strongest first.
        size: width and height of the frame.
    """
    image, unseen = map(plane_of, kept)
    if image is None or unseen is None or size is None:
        return None
    return overlay(image, unseen, [_in_image(roi["box"], size) for roi in rois])


def _in_image(box: Sequence[int], size: tuple[int, int]) -> tuple[int, int, int, int]:
    sx, sy = IMAGE_SIDE / size[0], IMAGE_SIDE / size[1]
    x0, y0, x1, y1 = box
    return round(x0 * sx), round(y0 * sy), round(x1 * sx), round(y1 * sy)


def overlay(image: NDArray[np.uint8], unseen: NDArray[np.uint8], boxes: Sequence[tuple[int, int, int, int]]) -> bytes:
    """The overlay as PNG, twice as large as the image.

    Args:
        image, unseen: (224, 224) uint8.
        boxes: (x0, y0, x1, y1) in pixels of the image, most important first.
    """
    heat = cv2.applyColorMap(unseen, cv2.COLORMAP_INFERNO).astype(np.float32)
    share = (unseen.astype(np.float32) / 255 * HEAT)[:, :, None]
    mixed = cv2.cvtColor(image, cv2.COLOR_GRAY2BGR) * (1 - share) + heat * share
    large = cv2.resize(mixed.astype(np.uint8), None, fx=SCALE, fy=SCALE, interpolation=cv2.INTER_NEAREST)
    for number, box in enumerate(boxes, start=1):
        x0, y0, x1, y1 = (SCALE * v for v in box)
        cv2.rectangle(large, (x0, y0), (x1 - 1, y1 - 1), OUTLINE, 1)
        cv2.putText(large, str(number), (x0 + 2, max(12, y0 - 3)), cv2.FONT_HERSHEY_SIMPLEX, 0.4, OUTLINE, 1)
    return to_png(large)
