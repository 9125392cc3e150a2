"""An inspector on this machine's GPU: plans found or built, then everything on the one thread that holds the device."""

from __future__ import annotations

import atexit
import tempfile
import threading
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import ExitStack
from functools import cache as once
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, TypeVar

from engines.bundle import Bundle
from engines.choice import EngineChoice, Target
from engines.cuda_inspector import CudaInspector, GpuEngines
from engines.errors import EngineBuildError, EngineFaultError, EngineUnavailableError
from engines.inspector import Inspector, Measurement
from engines.tensorrt import Flavour, PlanKey, Plans, Progress, find_or_build, find_plans, load
from kernels import RawFrame
from kernels.device import Device
from kernels.driver import Gpu, probe
from kernels.errors import DeviceFaultError, FatbinError, NoGpuError

if TYPE_CHECKING:
    from kernels.pycuda_device import PycudaDevice

T = TypeVar("T")


class _GpuThread:
    """The one thread of this process that talks to the GPU; gives the device back when the process ends.

    An executor's thread ends before anything that runs at exit, with the device still its own.
    """

    def __init__(self) -> None:
        self._device: PycudaDevice | None = None
        self._work: SimpleQueue[tuple[Future[Any], Callable[[], Any]]] = SimpleQueue()
        threading.Thread(target=self._run, name="gpu", daemon=True).start()
        atexit.register(self._do, self._give_back)

    def call(self, work: Callable[[Device], T]) -> T:
        """What `work` gives in the GPU's context."""
        return self._do(lambda: self._in_context(work))

    def _run(self) -> None:
        while True:
            done, work = self._work.get()
            try:
                done.set_result(work())
            except BaseException as error:  # noqa: BLE001  (whatever it is, it is raised where the answer is waited for)
                traceback.clear_frames(error.__traceback__)  # what they hold of the device must go on this thread
                done.set_exception(error)
            del done, work

    def _do(self, work: Callable[[], T]) -> T:
        done: Future[T] = Future()
        self._work.put((done, work))
        return done.result()

    def _in_context(self, work: Callable[[Device], T]) -> T:
        if self._device is None:
            from kernels.pycuda_device import PycudaDevice

            self._device = PycudaDevice()
        with self._device as device:
            return work(device)

    def _give_back(self) -> None:
        if self._device is not None:
            self._device.close()
            self._device = None


_gpu_thread = once(_GpuThread)


def _on_gpu_thread(work: Callable[[Device], T]) -> T:
    """What `work` gives, on the thread and in the context of the GPU."""
    return _gpu_thread().call(work)


class ThreadBound:
    """An engines.Inspector whose device may be used by one thread only; this may be used by any, one at a time."""

    def __init__(self, inspector: CudaInspector) -> None:
        self._inspector: CudaInspector | None = inspector
        self.bundle, self.engine, self.batch = inspector.bundle, inspector.engine, inspector.batch

    def measure(self, frames: Sequence[RawFrame]) -> list[Measurement]:
        """As engines.Inspector."""
        return _on_gpu_thread(lambda _: self._measure(frames))

    def close(self) -> None:
        """As engines.Inspector."""
        try:
            _on_gpu_thread(lambda _: self._close())
        except DeviceFaultError as error:
            raise EngineFaultError(f"engine {self.engine}: {error}") from error

    def _measure(self, frames: Sequence[RawFrame]) -> list[Measurement]:
        if self._inspector is None:
            raise EngineFaultError(f"engine {self.engine}: it was closed")
        return self._inspector.measure(frames)

    def _close(self) -> None:
        """Here, because what it holds must go on the thread that made it."""
        if self._inspector is not None:
            self._inspector.close()
            self._inspector = None


def plan_key(bundle: Bundle, choice: EngineChoice, gpu: Gpu, source: str = "onnx") -> PlanKey:
    """The key of a bundle's plans for a GPU, with the TensorRT that is installed.

    Raises:
        EngineUnavailableError: it is not installed.
    """
    flavour = Flavour(choice.target)
    return PlanKey(
        bundle=bundle.digest, flavour=flavour, version=load(flavour).__version__, gpu=gpu.name, capability=gpu.capability,
        driver=gpu.driver, precision=choice.arithmetic, max_batch=choice.max_batch, source=source,
    )  # fmt: skip


def built(bundle: Bundle, choice: EngineChoice, folder: Path) -> bool:
    """Whether the engines of a bundle would be found and not built, for this machine's GPU.

    Raises:
        EngineUnavailableError, EngineBuildError: as ready_plans.
    """
    if choice.target is Target.TORCH_CUDA:
        return True
    try:
        return find_plans(folder, plan_key(bundle, choice, probe())) is not None
    except NoGpuError as error:
        raise EngineUnavailableError(f"{choice.target}: {error}") from error


def ready_plans(
    bundle: Bundle, choice: EngineChoice, folder: Path, progress: Progress | None, *, runs: Path | None = None
) -> Plans:
    """The plans of a bundle for this machine's GPU; built where there are none under their key.

    With `runs`, a folder of trainings, they are made of its weights by torch-tensorrt.

    Raises:
        EngineUnavailableError: no GPU, or TensorRT is not installed.
        EngineBuildError: damaged plans, or a model that cannot be built.
    """
    try:
        gpu = probe()
    except NoGpuError as error:
        raise EngineUnavailableError(f"{choice.target}: {error}") from error
    if runs is None:
        return find_or_build(bundle, folder, plan_key(bundle, choice, gpu), progress=progress)
    from engines.training.via_torch import plan_maker, weights_digest

    key = plan_key(bundle, choice, gpu, source=weights_digest(runs))
    return find_or_build(bundle, folder, key, progress=progress, via=plan_maker(runs))


def gpu_inspector(
    bundle: Bundle,
    choice: EngineChoice,
    *,
    cache: Path | None,
    progress: Progress | None = None,
    runs: Path | None = None,
) -> Inspector:
    """An inspector on this machine's GPU; its engines have not passed the golden gate yet.

    Args:
        bundle: what to run.
        choice: a target on a GPU.
        cache: folder that plans are kept in; None to keep none.
        progress: told what a build is doing.
        runs: trainings whose weights the networks are made of, by torch-tensorrt, in place of the bundle's ONNX files.

    Raises:
        EngineUnavailableError: no GPU or driver, or a package or the CUDA kernels are missing; says what to do.
        EngineBuildError: an engine cannot be built, or there is no room for it.
    """
    with ExitStack() as stack:
        plans = None
        if choice.target is not Target.TORCH_CUDA:
            folder = cache or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="umbra-plans-")))
            plans = ready_plans(bundle, choice, folder, progress, runs=runs)
        try:
            return ThreadBound(_on_gpu_thread(lambda device: _inspector(bundle, choice, plans, device)))
        except (NoGpuError, FatbinError) as error:
            raise EngineUnavailableError(f"{choice.target}: {error}") from error
        except DeviceFaultError as error:
            raise EngineBuildError(f"{choice.target}: {error}") from error


def _inspector(bundle: Bundle, choice: EngineChoice, plans: Plans | None, device: Device) -> CudaInspector:
    engines: GpuEngines
    if plans is not None:
        from engines.tensorrt_run import TensorRtEngines

        engines = TensorRtEngines(plans, device)
    else:
        try:
            from engines.torch_cuda import TorchCudaEngines
        except ModuleNotFoundError as error:
            raise EngineUnavailableError(
                f"{choice.target}: {error.name} is not installed: pip install 'umbra[torch-gpu]'"
            ) from error
        engines = TorchCudaEngines(bundle, device, max_batch=choice.max_batch)
    # torch's own allocator does not know of graphs that others capture: it has its own inside.
    return CudaInspector(bundle, engines, device, graphs=choice.target is not Target.TORCH_CUDA)
