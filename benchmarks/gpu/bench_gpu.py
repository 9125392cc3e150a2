"""`make bench-gpu`: kernels against a device copy, the inspector against eager torch and against its own limits, on this GPU."""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.gpu.picture import picture
from benchmarks.harness import RESULTS, machine
from engines import Bundle, EngineChoice, Target, bundle, gpu_state
from engines.build import build_inspector
from engines.cuda_inspector import GpuEngines, Results, at_once
from engines.errors import EngineError
from engines.gpu import ready_plans
from engines.models import ROLES, build
from kernels import Layout, RawFrame, StretchParams, unpack
from kernels.cuda import IMAGE_PIXELS, OVERREAD, REDUCED, STATS, ReduceKernels, StretchKernels, describe
from kernels.device import Argument, Grid, Memory, Stream
from kernels.errors import DeviceFaultError
from kernels.packing.reference import pack
from kernels.pycuda_device import PycudaDevice

SIZES = {
    "12 MP u16": (3000, 4000, Layout.U16LE),
    "12 MP RAW10": (3040, 4056, Layout.RAW10),
    "48 MP u16": (6000, 8000, Layout.U16LE),
}
INSPECTED = ("12 MP u16", "12 MP RAW10")
BATCHES = (1, 2, 4, 8, 16, 32, 64)
KERNEL_BATCHES = (1, 8, 32)
SAMPLES, SAMPLE_MS = 30, 3.0
COPY_BYTES = 1 << 30
PAST_CACHES = 1 << 28  # bytes of frames that take turns: more than any level-2 cache holds
LATENCY_BATCHES = (1, 16)
LEAST_FRAMES, RUNS = 32, 3  # of an inspector


class Stopwatch:
    """Times work on one stream by the device's own clock."""

    def __init__(self, device: PycudaDevice) -> None:
        self.device, self.stream = device, device.stream()

    def ms(self, work: Callable[[], None]) -> float:
        """Median time of one turn; each sample has as many turns as make a few milliseconds, so that no gap before the first
        counts.
        """
        once = self._sample(work, 2) / 2
        turns = max(1, math.ceil(SAMPLE_MS / max(once, 1e-3)))
        return float(median(self._sample(work, turns) / turns for _ in range(SAMPLES)))

    def as_one_ms(self, work: Callable[[], None]) -> float:
        """The same of work that is recorded as a graph first: nothing of what the host does to enqueue it counts."""
        work()
        graph = self.device.capture(work, self.stream)
        return self.ms(work if graph is None else partial(graph.launch, self.stream))

    def _sample(self, work: Callable[[], None], turns: int) -> float:
        event = self.device.driver.Event
        begin, end = event(), event()
        begin.record(self.stream.stream)
        for _ in range(turns):
            work()
        end.record(self.stream.stream)
        end.synchronize()
        return float(begin.time_till(end))


class FirstLaunches:
    """A device that launches no more than the first kernels of a sequence."""

    def __init__(self, device: PycudaDevice, names: list[str], most: int | None = None) -> None:
        self._device, self._names, self._most = device, names, most
        names.clear()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._device, name)

    def launch(self, kernel: str, grid: Grid, threads: int, arguments: Sequence[Argument], on: Stream) -> None:
        if self._most is None or len(self._names) < self._most:
            self._names.append(kernel)
            self._device.launch(kernel, grid, threads, arguments, on)


class Held(ExitStack):
    """Device memory that is given back at the end."""

    def __init__(self, device: PycudaDevice) -> None:
        super().__init__()
        self.device = device

    def allocate(self, nbytes: int) -> Memory:
        memory = self.device.allocate(nbytes)
        self.callback(memory.free)
        return memory

    def put(self, array: NDArray[Any], beyond: int = 0) -> Memory:
        """A copy of an array, with `beyond` bytes of room after it."""
        memory, host = self.allocate(array.nbytes + beyond), self.device.pinned(array.nbytes)
        host[:] = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        self.device.upload(memory.address, host, self.device.stream())
        self.device.synchronize()
        return memory


def frames_of(size: str, count: int) -> list[RawFrame]:
    height, width, layout = SIZES[size]
    frames = []
    for i in range(count):
        noise = np.random.default_rng(i).normal(64, 4, (height, width))
        samples = np.clip(np.rint(noise), 0, 1023).astype(np.uint16)
        frames.append(pack(samples, layout) if layout is Layout.RAW10 else RawFrame.from_samples(samples, bits=10))
    return frames


def copy_gb_s(watch: Stopwatch) -> float:
    """Bytes read and written by a copy within the device."""
    with Held(watch.device) as held:
        source, target = held.allocate(COPY_BYTES), held.allocate(COPY_BYTES)
        copy = watch.device.driver.memcpy_dtod_async
        ms = watch.ms(lambda: copy(target.address, source.address, COPY_BYTES, watch.stream.stream))
    return 2 * COPY_BYTES / ms / 1e6


def stretch_of(watch: Stopwatch, size: str, batch: int, *, steps: bool = False) -> dict[str, Any]:
    """Milliseconds of a stretch of a batch, over frames that come from memory; and of each kernel in it."""
    frames = frames_of(size, 2)
    nbytes = frames[0].packed.nbytes
    turns = max(1, math.ceil(PAST_CACHES / (batch * nbytes)))
    with Held(watch.device) as held:
        at = [held.put(frames[i % 2].packed, OVERREAD).address for i in range(turns * batch)]
        tables = [
            held.put(describe([frames[i % 2] for i in range(batch)], at[turn * batch : (turn + 1) * batch])).address
            for turn in range(turns)
        ]
        side = max(frames[0].width, frames[0].height)
        kernels = StretchKernels(watch.device, StretchParams(), frames=batch, side=side)
        held.callback(kernels.free)
        images, shown, stats = (
            held.allocate(batch * n).address for n in (4 * IMAGE_PIXELS, IMAGE_PIXELS, STATS.itemsize)
        )

        def enqueue() -> None:
            for table in tables:
                kernels.enqueue(table, batch, images=images, shown=shown, stats=stats, on=watch.stream)

        row: dict[str, Any] = {"ms": watch.as_one_ms(enqueue) / turns}
        if steps:  # what each kernel adds to those before it, which it needs
            names: list[str] = []
            tables, before, row["steps_ms"] = tables[:1], 0.0, {}
            kernels._device = FirstLaunches(watch.device, names)
            enqueue()
            for most, name in enumerate(list(names), start=1):
                work = partial(_first, kernels, watch, names, most, enqueue)
                so_far = watch.as_one_ms(work)
                row["steps_ms"][name], before = max(0.0, so_far - before), so_far
        row["gb_s"] = batch * nbytes / row["ms"] / 1e6
        return row


def _first(kernels: StretchKernels, watch: Stopwatch, names: list[str], most: int, enqueue: Callable[[], None]) -> None:
    kernels._device = FirstLaunches(watch.device, names, most)
    enqueue()


def reduce_ms(watch: Stopwatch, batch: int) -> float:
    """Of the reduction of a batch, over maps that come from memory."""
    one = np.random.default_rng(0).normal(-1, 2, (batch, 2, 224, 224)).astype(np.float32)
    turns = max(1, math.ceil(PAST_CACHES / one.nbytes))
    with Held(watch.device) as held:
        logits = [held.put(one).address for _ in range(turns)]
        reduced, maps = held.allocate(batch * REDUCED.itemsize).address, held.allocate(batch * IMAGE_PIXELS).address
        reduce = ReduceKernels(watch.device, threshold=0.5, alpha=2.0)

        def enqueue() -> None:
            for at in logits:
                reduce.enqueue(at, batch, reduced=reduced, maps=maps, on=watch.stream)

        return watch.as_one_ms(enqueue) / turns


def kernels_alone(watch: Stopwatch, copy: float) -> Iterator[tuple[str, dict[str, Any]]]:
    """The stretch by size and batch, and the reduction, in GB/s of frames (maps) read, and as shares of a copy."""
    for size in SIZES:
        for batch in KERNEL_BATCHES:
            try:
                row = stretch_of(watch, size, batch, steps=batch == KERNEL_BATCHES[-1])
                yield f"stretch, {size}, batch {batch}", row | {"share_of_copy": row["gb_s"] / copy}
            except DeviceFaultError as error:  # a small GPU has no room for all of them
                yield f"stretch, {size}, batch {batch}", {"refused": str(error)}
    ms = reduce_ms(watch, BATCHES[-1])
    gb_s = BATCHES[-1] * 9 * IMAGE_PIXELS / ms / 1e6
    yield f"reduce, batch {BATCHES[-1]}", {"ms": ms, "gb_s": gb_s, "share_of_copy": gb_s / copy}


def alone_ms(watch: Stopwatch, engines: GpuEngines, size: str, batch: int) -> dict[str, float]:
    """Milliseconds a frame of each part of the way, alone, at a batch."""
    device, nbytes = watch.device, frames_of(size, 1)[0].packed.nbytes
    with Held(device) as held:
        host, up = device.pinned(batch * nbytes), held.allocate(batch * nbytes)
        images = held.put(np.random.default_rng(1).random((batch, IMAGE_PIXELS), np.float32)).address
        logits, levels = held.allocate(16 * batch).address, held.allocate(4 * batch).address
        maps, results = held.allocate(8 * IMAGE_PIXELS * batch).address, held.allocate(Results(batch).nbytes)
        down = device.pinned(results.nbytes)
        found = {
            "upload": watch.ms(lambda: device.upload(up.address, host, watch.stream)),
            "stretch": stretch_of(watch, size, batch)["ms"],
            "networks": watch.ms(
                lambda: engines.enqueue(images, batch, logits=logits, levels=levels, maps=maps, on=watch.stream)
            ),
            "reduce": reduce_ms(watch, batch),
            "download": watch.ms(lambda: device.download(down, results.address, watch.stream)),
        }
    return {name: ms / batch for name, ms in found.items()}


def inspector_row(
    watch: Stopwatch, own: Bundle, choice: EngineChoice, size: str, cache: Path, eager: float
) -> dict[str, Any]:
    """Frames per second of a target at a largest batch, beside eager torch and beside what its slowest part takes alone."""
    frames = frames_of(size, 8)
    batch = at_once(choice.max_batch, frames[0].packed.nbytes)
    many = [frames[i % len(frames)] for i in range(max(8 * batch, LEAST_FRAMES))]
    inspector = build_inspector(own, choice, cache=cache)
    try:
        inspector.measure(many[: 4 * batch])  # all graphs of both slots
        taken = []
        for _ in range(RUNS):
            began = time.perf_counter()
            inspector.measure(many)
            taken.append((time.perf_counter() - began) * 1e3 / len(many))
        row: dict[str, Any] = {"batch": batch, "frames_s": 1e3 / median(taken), "ms": median(taken)}
        if choice.max_batch in LATENCY_BATCHES:
            row |= latency(partial(inspector.measure, frames[:1]))
    finally:
        inspector.close()
    engines = engines_of(watch.device, own, choice, cache)
    try:
        row["alone_ms"] = alone_ms(watch, engines, size, batch)
    finally:
        engines.close()
    slowest = max(row["alone_ms"]["upload"], row["alone_ms"]["networks"])
    return row | {"against_eager": row["frames_s"] / eager, "share_of_limit": slowest / row["ms"]}


def engines_of(device: PycudaDevice, own: Bundle, choice: EngineChoice, cache: Path) -> GpuEngines:
    """The networks of a target alone."""
    if choice.target is Target.TORCH_CUDA:
        from engines.torch_cuda import TorchCudaEngines

        return TorchCudaEngines(own, device, max_batch=choice.max_batch)
    from engines.tensorrt_run import TensorRtEngines

    return TensorRtEngines(ready_plans(own, choice, cache, None), device)


def latency(work: Callable[[], object], repeats: int = 300) -> dict[str, float]:
    """Of one frame."""
    taken = []
    for _ in range(repeats):
        began = time.perf_counter()
        work()
        taken.append((time.perf_counter() - began) * 1e3)
    hundredths = quantiles(taken, n=100)
    return {"p50_ms": hundredths[49], "p99_ms": hundredths[98]}


def eager_rate(frames: Sequence[RawFrame], batch: int) -> float:
    """What one writes in an afternoon: unpack on the host, OpenCV's area resize, three eager networks in half precision."""
    models = [build(role).eval().half().to("cuda", memory_format=torch.channels_last) for role in ROLES]  # type: ignore[call-overload]

    def together(some: Sequence[RawFrame]) -> None:
        images = []
        for frame in some:
            image = cv2.resize(unpack(frame).astype(np.float32), (224, 224), interpolation=cv2.INTER_AREA)
            images.append((image - np.median(image)) / max(float(image.std()), 1e-6))
        x = torch.from_numpy(np.stack(images)[:, None]).half().cuda()
        with torch.inference_mode():
            for model in models:
                model(x).float().cpu()

    turns = [[frames[(turn + i) % len(frames)] for i in range(batch)] for turn in range(max(4, 32 // batch))]
    together(turns[0])
    began = time.perf_counter()
    for some in turns:
        together(some)
    return len(turns) * batch / (time.perf_counter() - began)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cache", type=Path, default=Path("work/plans"), help="where plans are kept")
    parser.add_argument("--out", type=Path, default=RESULTS, help="where the numbers and the picture go")
    parser.add_argument("--batch", type=int, action="append", help="largest batches of inspectors; default: 1 to 64")
    parser.add_argument("--target", type=Target, action="append", help="default: all that this machine has")
    arguments = parser.parse_args()
    state = gpu_state.look()
    targets = [t for t in arguments.target or Target if t is not Target.OPENVINO and state.why_off(t) is None]
    with PycudaDevice() as device:
        measure(device, targets, arguments.batch or BATCHES, arguments.cache, arguments.out)
    device.close()


def measure(device: PycudaDevice, targets: Sequence[Target], batches: Sequence[int], cache: Path, out: Path) -> None:
    """All numbers of this GPU, to a file, as they come, and a picture."""
    watch = Stopwatch(device)
    gpu = device.gpu
    found: dict[str, Any] = {"gpu": gpu.name, "driver": gpu.driver, "machine": machine(), "copy_gb_s": copy_gb_s(watch)}
    name = "gpu-" + "".join(c if c.isalnum() else "-" for c in gpu.name.lower())
    out.mkdir(parents=True, exist_ok=True)

    def keep(part: str, row: str, numbers: dict[str, Any]) -> None:
        found.setdefault(part, {})[row] = numbers
        (out / f"{name}.json").write_text(json.dumps(found, indent=1) + "\n")
        print(f"{row:46}", {k: round(v, 3) for k, v in numbers.items() if isinstance(v, float)}, flush=True)

    for row, numbers in kernels_alone(watch, found["copy_gb_s"]):
        keep("kernels", row, numbers)
    own = bundle.load(bundle.find("starter"))
    for size in INSPECTED:
        rates = {f"batch {n}": eager_rate(frames_of(size, 8), n) for n in (1, 16)}
        keep("inspectors", f"eager torch + OpenCV, {size}", rates)
        for target in targets:
            for most in batches:
                choice = EngineChoice(target=target, max_batch=most)
                try:
                    numbers = inspector_row(watch, own, choice, size, cache, max(rates.values()))
                except (EngineError, DeviceFaultError) as error:  # this target does not serve this GPU: the others may
                    keep("inspectors", f"{target}, {size}", {"refused": str(error)})
                    print(error)
                    break
                keep("inspectors", f"{target}, {size}, at most {most}", numbers)
    picture(found, out / f"{name}.png")


if __name__ == "__main__":
    main()
