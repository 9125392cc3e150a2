"""Raw frame -> 224x224 image in units of the frame's own noise (docs/math.md, eq. 7-8)."""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kernels import _native
from kernels.errors import FrameGeometryError, NotADarkFrameError
from kernels.packing import RawFrame

IMAGE_SIDE = 224
MIN_SIDE = 4
CLIPPED_SHARE = 0.5

_CONSTANT, _CLIPPED_LOW, _CLIPPED_HIGH, _STUCK_BIT, _REPEATED_ROWS, _REPEATED_COLUMNS = 1, 2, 3, 4, 5, 6


class Tone(enum.IntEnum):
    """Curve from noise units to the image. Values are those of stretch.h."""

    LINEAR = 0
    ASINH = 1
    MIDTONES = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class StretchParams:
    """The part of eq. 8 that belongs to a bundle.

    Attributes:
        k: samples are clipped at +-ceil(k sigma) DN around their plane's median, > 0.
        z_range: Z, the |z| that reaches 0 or 1, > 0.
        tone: the curve between.
        tone_parameter: asinh: the z at which the curve turns logarithmic, > 0; midtones: m in (0, 1); linear: unused.
    """

    k: float = 6.0
    z_range: float = 64.0
    tone: Tone = Tone.ASINH
    tone_parameter: float = 2.0

    def __post_init__(self) -> None:
        if not (self.k > 0 and self.z_range > 0):
            raise ValueError(f"stretch: k {self.k} and z_range {self.z_range} must be above 0")
        if self.tone is Tone.ASINH and not self.tone_parameter > 0:
            raise ValueError(f"stretch: asinh wants a tone_parameter above 0, got {self.tone_parameter}")
        if self.tone is Tone.MIDTONES and not 0 < self.tone_parameter < 1:
            raise ValueError(f"stretch: midtones wants a tone_parameter in (0, 1), got {self.tone_parameter}")


@dataclass(frozen=True, slots=True)
class Noise:
    """Eq. 7 of one frame.

    Attributes:
        median_dn: mean of the medians of the four CFA planes, DN.
        sigma_dn: noise of one pixel, DN, at least 1/sqrt 12.
        minimum_dn, maximum_dn: range of the rows sampled, DN.
    """

    median_dn: float
    sigma_dn: float
    minimum_dn: int
    maximum_dn: int


class Stretcher:
    """Stretches frames one after another with the same buffers; for one thread at a time."""

    def __init__(self, params: StretchParams) -> None:
        self.params = params
        self._native = _native.Stretcher(params.k, params.z_range, int(params.tone), params.tone_parameter)

    def stretch(self, frame: RawFrame, out: NDArray[np.float32]) -> Noise:
        """Write the stretched image of a frame into `out`.

        b = area mean of clip(x - median, +-k sigma);  z = (b - median b) sqrt n / sigma;
        image = clip(1/2 + tone(z) / 2Z, 0, 1)    (docs/math.md, eq. 7-8)

        Args:
            frame: packed or plain samples, at least 4x4 pixels.
            out: (224, 224) float32, C-contiguous; overwritten. Left as it was where an error is raised.

        Raises:
            FrameGeometryError: smaller than 4x4 pixels.
            NotADarkFrameError: constant, more than half of its pixels at its lowest or highest code, a stuck bit, or rows
                or columns that repeat others: faults of the read-out that the image does not show.
        """
        if frame.width < MIN_SIDE or frame.height < MIN_SIDE:
            raise FrameGeometryError(f"frame {frame.width}x{frame.height}: noise needs at least {MIN_SIDE}x{MIN_SIDE}")
        stats = self._native.run(frame.packed, frame.width, frame.height, frame.stride, int(frame.layout), out)
        return checked_noise(*stats)


def checked_noise(
    median: float, sigma: float, lowest: int, highest: int, share_lowest: float, share_highest: float, fault: int,
    where: int, value: int,
) -> Noise:  # fmt: skip
    """What the kernels found out about a frame's samples, in the order of StretchStats.

    Raises:
        NotADarkFrameError: as Stretcher.stretch.
    """
    if fault == _CONSTANT:
        raise NotADarkFrameError(f"no noise: not a dark frame (every pixel is {lowest} DN)")
    if fault == _CLIPPED_LOW:
        raise NotADarkFrameError(f"clipped: {share_lowest:.0%} of pixels at the lowest code, {lowest} DN")
    if fault == _CLIPPED_HIGH:
        raise NotADarkFrameError(f"clipped: {share_highest:.0%} of pixels at the highest code, {highest} DN")
    if fault == _STUCK_BIT:
        raise NotADarkFrameError(f"stuck bit: bit {where} is {value} in every code around the median")
    if fault in (_REPEATED_ROWS, _REPEATED_COLUMNS):
        lines = "rows" if fault == _REPEATED_ROWS else "columns"
        raise NotADarkFrameError(f"repeated tile: {lines} from {where} on come again {value} {lines} later")
    return Noise(median, sigma, lowest, highest)


def tone_scale(params: StretchParams) -> float:
    """What the tone multiplies its curve by, so that |z| = Z reaches 0 or 1."""
    if params.tone is Tone.ASINH:
        return 0.5 / math.asinh(params.z_range / params.tone_parameter)
    return 0.5 / params.z_range
