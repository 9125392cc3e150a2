"""The NVIDIA driver asked directly: which GPU there is, or why there is none. Needs no package."""

from __future__ import annotations

import ctypes
import re
from dataclasses import dataclass
from pathlib import Path

from kernels.errors import NoGpuError

OLDEST_CUDA = 13000  # of the driver: r580
_MAJOR, _MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_..
_NAME_BYTES = 256


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU as its driver describes it.

    Attributes:
        name: as sold.
        capability: compute capability times 10: 90 for 9.0.
        cuda: the newest CUDA that the driver runs, times 1000: 13000 for 13.0.
        memory_bytes: of the device.
        driver: its version, as 580.95.05; the newest CUDA that it runs where it tells no other.
    """

    name: str
    capability: int
    cuda: int
    memory_bytes: int
    driver: str

    @property
    def cuda_version(self) -> str:
        """The newest CUDA that the driver runs, as 13.0."""
        return _dotted(self.cuda)


def _dotted(cuda: int) -> str:
    return f"{cuda // 1000}.{cuda % 1000 // 10}"


def probe(ordinal: int = 0, *, library: str = "libcuda.so.1") -> Gpu:
    """Initialise the driver and describe a GPU. TensorRT must not be asked for anything before this succeeded.

    Args:
        ordinal: which GPU.
        library: the driver's.

    Raises:
        NoGpuError: no driver, no such GPU, or a driver that is too old; says which.
    """
    try:
        driver = ctypes.CDLL(library)
    except OSError as error:
        raise NoGpuError(f"no NVIDIA driver: {error}") from error
    _call(driver, "cuInit", 0)
    count, cuda, device, major, minor = (ctypes.c_int() for _ in range(5))
    _call(driver, "cuDriverGetVersion", ctypes.byref(cuda))
    if cuda.value < OLDEST_CUDA:
        raise NoGpuError(f"the driver runs CUDA {_dotted(cuda.value)}, wanted 13.0 (r580) or newer")
    _call(driver, "cuDeviceGetCount", ctypes.byref(count))
    if not 0 <= ordinal < count.value:
        raise NoGpuError(f"no GPU {ordinal}: the driver knows {count.value}")
    _call(driver, "cuDeviceGet", ctypes.byref(device), ordinal)
    name, memory = ctypes.create_string_buffer(_NAME_BYTES), ctypes.c_size_t()
    _call(driver, "cuDeviceGetName", name, _NAME_BYTES, device)
    _call(driver, "cuDeviceTotalMem_v2", ctypes.byref(memory), device)
    _call(driver, "cuDeviceGetAttribute", ctypes.byref(major), _MAJOR, device)
    _call(driver, "cuDeviceGetAttribute", ctypes.byref(minor), _MINOR, device)
    return Gpu(
        name.value.decode(errors="replace"), 10 * major.value + minor.value, cuda.value, memory.value,
        driver_version() or f"CUDA {_dotted(cuda.value)}",
    )  # fmt: skip


def driver_version(told: Path = Path("/proc/driver/nvidia/version")) -> str | None:
    """The version of the kernel's part of the driver; None where there is none."""
    try:
        found = re.search(r"\b\d{3}\.\d+(?:\.\d+)?\b", told.read_text())
    except OSError:
        return None
    return found[0] if found else None


def _call(driver: ctypes.CDLL, function: str, *arguments: object) -> None:
    code = getattr(driver, function)(*arguments)
    if code:
        text = ctypes.c_char_p()
        driver.cuGetErrorString(code, ctypes.byref(text))
        meaning = text.value.decode() if text.value else "no description"
        raise NoGpuError(f"{function} failed: {meaning} (CUDA error {code})")
