"""Arrays in, arrays out: unpack raw samples, stretch a frame to noise units, reduce two maps to unseen metrics."""

from kernels.errors import FrameGeometryError, KernelError, NonFiniteMapError, NotADarkFrameError
from kernels.packing import Layout, RawFrame, unpack
from kernels.reduce import HISTOGRAM_BINS, Reducer, UnseenMetrics
from kernels.stretch import IMAGE_SIDE, Noise, Stretcher, StretchParams, Tone

__all__ = [
    "HISTOGRAM_BINS",
    "IMAGE_SIDE",
    "FrameGeometryError",
    "KernelError",
    "Layout",
    "Noise",
    "NonFiniteMapError",
    "NotADarkFrameError",
    "RawFrame",
    "Reducer",
    "StretchParams",
    "Stretcher",
    "Tone",
    "UnseenMetrics",
    "unpack",
]
