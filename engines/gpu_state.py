"""What of the way to a GPU is there on this machine, and what is not; imports nothing that fails without one."""

from __future__ import annotations

from ctypes.util import find_library
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

from engines.choice import Target
from engines.errors import EngineUnavailableError
from engines.tensorrt import Flavour, load
from kernels import fatbin
from kernels.driver import Gpu, probe
from kernels.errors import FatbinError, NoGpuError
from kernels.pycuda_device import EXTRAS

_LIBRARY = {Flavour.TENSORRT: "nvinfer", Flavour.TENSORRT_RTX: "tensorrt_rtx"}


@dataclass(frozen=True, slots=True)
class Part:
    """One thing that is wanted.

    Attributes:
        name: what.
        found: what there is of it; None where it is missing.
        missing: why it cannot be used; None where it can.
        advice: what to do where it cannot.
    """

    name: str
    found: str | None
    missing: str | None = None
    advice: str = ""


@dataclass(frozen=True, slots=True)
class GpuState:
    """Everything that a target on a GPU wants.

    Attributes:
        gpu: with its driver.
        kernels: the compiled CUDA kernels, and whether they fit it.
        packages: pycuda and cuda-bindings.
        targets: what each target wants beside these.
    """

    gpu: Part
    kernels: Part
    packages: Part
    targets: dict[Target, Part]

    def why_off(self, target: Target) -> str | None:
        """The first thing that keeps a target from being used; None where nothing does."""
        for part in (self.gpu, self.kernels, self.packages, self.targets[target]):
            if part.missing is not None:
                return f"{part.name}: {part.missing}"
        return None

    @property
    def parts(self) -> list[Part]:
        """All of them."""
        return [self.gpu, self.kernels, self.packages, *self.targets.values()]


def packages_present() -> bool:
    """Whether somebody installed anything for a GPU here."""
    return any(
        find_spec(name) is not None for name in ("pycuda", "tensorrt", "tensorrt_bindings", "tensorrt_rtx_bindings")
    )


def without_importing() -> str | None:
    """Why no GPU is used, as far as that is known without importing what is for one; None where nothing is missing."""
    for part in (_gpu()[1], _packages()):
        if part.missing is not None:
            return f"{part.name}: {part.missing}"
    there = [flavour for flavour in Flavour if find_spec(f"{flavour}_bindings") is not None]
    if there and not any(find_spec(f"{flavour}_libs") or find_library(_LIBRARY[flavour]) for flavour in there):
        return f"{there[0]}: its package is there, and its libraries are not: pip install 'umbra[{there[0].extra}]'"
    return None


def look() -> GpuState:
    """What is there."""
    gpu, part = _gpu()
    return GpuState(part, _kernels(gpu), _packages(), {
        Target.TENSORRT: _tensorrt(Flavour.TENSORRT), Target.TENSORRT_RTX: _tensorrt(Flavour.TENSORRT_RTX),
        Target.TORCH_CUDA: _torch(),
    })  # fmt: skip


def _gpu() -> tuple[Gpu | None, Part]:
    try:
        gpu = probe()
    except NoGpuError as error:
        return None, Part("gpu", None, str(error), "install the NVIDIA driver r580 or newer, or use target openvino")
    found = (f"{gpu.name}, {gpu.memory_bytes / 2**30:.0f} GiB, compute capability {gpu.capability / 10:.1f}, "
             f"driver {gpu.driver}, CUDA {gpu.cuda_version}")  # fmt: skip
    return gpu, Part("gpu", found)


def _kernels(gpu: Gpu | None) -> Part:
    try:
        codes = {code for kernel in fatbin.KERNELS for code in fatbin.contents(kernel)}
        fits = gpu is None or fatbin.fits(gpu.capability)
    except FatbinError as error:
        return Part("cuda kernels", None, str(error), "put CUDA 13's nvcc on the PATH and install umbra again")
    machine = sorted(code.capability for code in codes if code.machine)
    found = f"for {', '.join(f'{c / 10:.1f}' for c in machine)} and newer"
    if not fits and gpu is not None:
        return Part(
            "cuda kernels", found, f"not for compute capability {gpu.capability / 10:.1f}", "Turing or newer is wanted"
        )
    return Part("cuda kernels", found)


def _packages() -> Part:
    found, missing = [], []
    for package, module in (("pycuda", "pycuda"), ("cuda-bindings", "cuda.bindings")):
        try:
            there = find_spec(module) is not None
        except ModuleNotFoundError:
            there = False
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            there = False
        if not there:
            missing.append(package)
    reason = f"{' and '.join(missing)} not installed" if missing else None
    return Part("gpu packages", ", ".join(found) or None, reason, f"pip install {EXTRAS}" if missing else "")


def _tensorrt(flavour: Flavour) -> Part:
    try:
        return Part(str(flavour), load(flavour).__version__)
    except EngineUnavailableError as error:
        return Part(
            str(flavour), None, str(error).removeprefix(f"{flavour}: "), f"pip install 'umbra[{flavour.extra}]'"
        )


def _torch() -> Part:
    name = str(Target.TORCH_CUDA)
    try:
        found = f"torch {version('torch')}"
    except PackageNotFoundError:
        return Part(name, None, "torch is not installed", "pip install 'umbra[torch-gpu]'")
    if "+cpu" in found:
        return Part(name, found, "this build of torch is for the CPU", "install a build of torch for CUDA 13")
    return Part(name, found)
