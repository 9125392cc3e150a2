"""`make bench-gpu`: kernels against a device copy, the inspector against eager torch and against its own limits, on this GPU."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.harness import RESULTS, machine
from engines import EngineChoice, Target, bundle, gpu_state
from engines.build import build_inspector
from engines.cuda_inspector import GpuEngines
from engines.models import ROLES, build
from kernels import Layout, RawFrame, StretchParams
from kernels.cuda import IMAGE_PIXELS, OVERREAD, REDUCED, STATS, ReduceKernels, StretchKernels, describe
from kernels.device import Argument, Grid, Stream
from kernels.packing.reference import pack
from kernels.pycuda_device import PycudaDevice

SIZES = {
    "12 MP u16": (3000, 4000, Layout.U16LE),
    "12 MP RAW10": (3040, 4056, Layout.RAW10),
    "48 MP u16": (6000, 8000, Layout.U16LE),
}
BATCHES = (1, 2, 4, 8, 16, 32, 64)
REPEATS = 20
COPY_BYTES = 1 << 30


class Stopwatch:
    """Times work on one stream by the device's own clock."""

    def __init__(self, device: PycudaDevice) -> None:
        self.device, self.stream = device, device.stream()

    def ms(self, work: Callable[[], None], repeats: int = REPEATS) -> float:
        """Median of `repeats`, after two that do not count."""
        event = self.device.driver.Event
        taken = []
        for i in range(repeats + 2):
            begin, end = event(), event()
            begin.record(self.stream.stream)
            work()
            end.record(self.stream.stream)
            end.synchronize()
            if i >= 2:
                taken.append(begin.time_till(end))
        return float(median(taken))


class Launches:
    """A device that times each kernel by itself."""

    def __init__(self, watch: Stopwatch) -> None:
        self._watch, self._device = watch, watch.device
        self.ms: dict[str, float] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._device, name)

    def launch(self, kernel: str, grid: Grid, threads: int, arguments: tuple[Argument, ...], on: Stream) -> None:
        self.ms[kernel] = self._watch.ms(lambda: self._device.launch(kernel, grid, threads, arguments, on), 5)


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
    source, target = watch.device.allocate(COPY_BYTES), watch.device.allocate(COPY_BYTES)
    copy = watch.device.driver.memcpy_dtod_async
    ms = watch.ms(lambda: copy(target.address, source.address, COPY_BYTES, watch.stream.stream))
    source.free()
    target.free()
    return 2 * COPY_BYTES / ms / 1e6


def kernels(watch: Stopwatch, copy: float) -> dict[str, dict[str, Any]]:
    """The stretch by size and batch, and the reduction, in GB/s of frames (maps) read."""
    device = watch.device
    found: dict[str, dict[str, Any]] = {}
    for size in SIZES:
        different = [_put(device, f.packed, OVERREAD) for f in frames_of(size, 4)]
        frame = frames_of(size, 1)[0]
        for batch in (1, 8, 32):
            stretch = StretchKernels(device, StretchParams(), frames=batch, side=max(frame.width, frame.height))
            table = _put(device, describe([frame] * batch, [different[i % 4].address for i in range(batch)]), 0)
            out = [device.allocate(batch * n) for n in (4 * IMAGE_PIXELS, IMAGE_PIXELS, STATS.itemsize)]

            def enqueue(
                by: StretchKernels = stretch, at: int = table.address, n: int = batch,
                to: tuple[int, int, int] = (out[0].address, out[1].address, out[2].address),
            ) -> None:  # fmt: skip
                by.enqueue(at, n, images=to[0], shown=to[1], stats=to[2], on=watch.stream)

            ms = watch.ms(enqueue)
            gb_s = batch * frame.packed.nbytes / ms / 1e6
            found[f"stretch, {size}, batch {batch}"] = {"ms": ms, "gb_s": gb_s, "share_of_copy": gb_s / copy}
            if batch == 32:
                steps = Launches(watch)
                stretch._device = steps  # type: ignore[assignment]
                enqueue()
                found[f"stretch, {size}, batch {batch}"]["steps_ms"] = steps.ms
            for memory in (*out, table):
                memory.free()
            stretch.free()
        for memory in different:
            memory.free()
    logits = _put(device, np.random.default_rng(0).normal(-1, 2, (64, 2, 224, 224)).astype(np.float32), 0)
    reduced, maps = device.allocate(64 * REDUCED.itemsize), device.allocate(64 * IMAGE_PIXELS)
    reduce = ReduceKernels(device, threshold=0.5, alpha=2.0)
    ms = watch.ms(
        lambda: reduce.enqueue(logits.address, 64, reduced=reduced.address, maps=maps.address, on=watch.stream)
    )
    gb_s = 64 * (8 * IMAGE_PIXELS + IMAGE_PIXELS) / ms / 1e6
    found["reduce, batch 64"] = {"ms": ms, "gb_s": gb_s, "share_of_copy": gb_s / copy}
    return found


def _put(device: PycudaDevice, array: NDArray[Any], beyond: int) -> Any:
    memory, host = device.allocate(array.nbytes + beyond), device.pinned(array.nbytes)
    host[:] = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    stream = device.stream()
    device.upload(memory.address, host, stream)
    device.synchronize()
    return memory


def inspectors(targets: list[Target], cache: Path) -> dict[str, Any]:
    """Frames per second of each target by size and batch; of eager torch with OpenCV; and the two limits."""
    starter = bundle.load(bundle.find("starter"))
    found: dict[str, Any] = {}
    for size in ("12 MP u16", "12 MP RAW10"):
        frames = frames_of(size, 8)
        eager = eager_rate(frames)
        found[f"eager torch + OpenCV, {size}"] = {"frames_s": eager}
        for target in targets:
            for batch in BATCHES:
                choice = EngineChoice(target=target, max_batch=batch)
                inspector = build_inspector(starter, choice, cache=cache)
                many = [frames[i % len(frames)] for i in range(max(8 * batch, 32))]
                inspector.measure(many[: 2 * batch])
                began = time.perf_counter()
                inspector.measure(many)
                rate = len(many) / (time.perf_counter() - began)
                row: dict[str, Any] = {"frames_s": rate, "against_eager": rate / eager}
                if batch == 1:
                    row |= latency(partial(inspector.measure, frames[:1]))
                inspector.close()
                found[f"{target}, {size}, batch {batch}"] = row
    return found


def latency(work: Callable[[], object], repeats: int = 300) -> dict[str, float]:
    taken = []
    for _ in range(repeats):
        began = time.perf_counter()
        work()
        taken.append((time.perf_counter() - began) * 1e3)
    hundredths = quantiles(taken, n=100)
    return {"p50_ms": hundredths[49], "p99_ms": hundredths[98]}


def eager_rate(frames: list[RawFrame]) -> float:
    """What one writes in an afternoon: unpack on the host, OpenCV's area resize, three eager networks in half precision."""
    models = [build(role).eval().half().cuda() for role in ROLES]

    def one(frame: RawFrame) -> None:
        from kernels import unpack

        image = cv2.resize(unpack(frame).astype(np.float32), (224, 224), interpolation=cv2.INTER_AREA)
        image = (image - np.median(image)) / max(float(image.std()), 1e-6)
        x = torch.from_numpy(image)[None, None].half().cuda()
        with torch.inference_mode():
            for model in models:
                model(x).float().cpu()

    one(frames[0])
    began = time.perf_counter()
    for i in range(32):
        one(frames[i % len(frames)])
    return 32 / (time.perf_counter() - began)


def limits(watch: Stopwatch, engines: GpuEngines, batch: int, nbytes: int) -> dict[str, float]:
    """Frames per second of the way up alone, and of the networks alone."""
    device = watch.device
    host, up = device.pinned(batch * nbytes), device.allocate(batch * nbytes)
    upload_ms = watch.ms(lambda: device.upload(up.address, host, watch.stream))
    images, logits = device.allocate(4 * IMAGE_PIXELS * batch), device.allocate(16 * batch)
    levels, maps = device.allocate(4 * batch), device.allocate(8 * IMAGE_PIXELS * batch)
    networks_ms = watch.ms(lambda: engines.enqueue(
        images.address, batch, logits=logits.address, levels=levels.address, maps=maps.address, on=watch.stream))  # fmt: skip
    for memory in (up, images, logits, levels, maps):
        memory.free()
    return {"upload_alone_frames_s": batch * 1e3 / upload_ms, "networks_alone_frames_s": batch * 1e3 / networks_ms}


def picture(found: dict[str, Any], path: Path) -> None:
    """Where the time of a stretch goes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4), layout="constrained")
    axes = figure.subplots()
    for row, (name, numbers) in enumerate((n, v) for n, v in found["kernels"].items() if "steps_ms" in v):
        left = 0.0
        for i, (step, ms) in enumerate(numbers["steps_ms"].items()):
            axes.barh(row, ms, left=left, color=f"C{i}", label=step.removeprefix("stretch_") if row == 0 else None)
            left += ms
        axes.text(left, row, f" {name}: {numbers['share_of_copy']:.0%} of a copy", va="center")
    axes.set(xlabel="ms", yticks=[], title=f"{found['gpu']}: the stretch, kernel by kernel")
    axes.legend(fontsize=7, ncols=3, loc="lower right")
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cache", type=Path, default=Path("work/plans"), help="where plans are kept")
    parser.add_argument("--out", type=Path, default=RESULTS, help="where the numbers and the picture go")
    arguments = parser.parse_args()
    state = gpu_state.look()
    with PycudaDevice() as device:
        measure(device, state, arguments.cache, arguments.out)
    device.close()


def measure(device: PycudaDevice, state: gpu_state.GpuState, cache: Path, out: Path) -> None:
    """All numbers of this GPU, to a file and a picture."""
    watch = Stopwatch(device)
    copy = copy_gb_s(watch)
    found: dict[str, Any] = {
        "gpu": device.gpu.name,
        "driver": device.gpu.driver,
        "machine": machine(),
        "copy_gb_s": copy,
    }
    found["kernels"] = kernels(watch, copy)
    targets: list[Target] = [t for t in Target if t is not Target.OPENVINO and state.why_off(t) is None]
    found["inspectors"] = inspectors(targets, cache)
    if Target.TORCH_CUDA in targets:
        from engines.torch_cuda import TorchCudaEngines

        starter = bundle.load(bundle.find("starter"))
        found["limits"] = {
            f"{size}, batch {batch}": limits(
                watch, TorchCudaEngines(starter, device, max_batch=batch), batch, frames_of(size, 1)[0].packed.nbytes
            )
            for size in ("12 MP u16", "12 MP RAW10")
            for batch in (1, 16, 64)
        }
    name = "gpu-" + "".join(c if c.isalnum() else "-" for c in device.gpu.name.lower())
    out.mkdir(parents=True, exist_ok=True)
    (out / f"{name}.json").write_text(json.dumps(found, indent=1) + "\n")
    picture(found, out / f"{name}.png")
    for part in ("kernels", "inspectors", "limits"):
        for row, numbers in found.get(part, {}).items():
            print(f"{row:46}", {k: round(v, 3) for k, v in numbers.items() if isinstance(v, float)})


if __name__ == "__main__":
    main()
