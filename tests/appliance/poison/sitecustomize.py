"""Faults for tests that put this folder on PYTHONPATH: decoders die of files that begin with a word, engines of frames
of a certain width, and drift while a file lies in the folder UMBRA_POISON.
"""

import os
import sys

if "appliance.decode_worker" in sys.orig_argv:
    import mmap
    import signal
    import time
    from collections.abc import Callable
    from pathlib import Path

    import appliance.decode as decoders

    def _grow(held: list[bytearray]) -> None:
        while True:
            held.append(bytearray(1 << 26))

    def _spin() -> None:
        while True:
            pass

    def _wait_once() -> None:
        busy = Path(os.environ["UMBRA_BUSY"])
        if not busy.exists():
            part = busy.with_suffix(".part")
            part.write_text(str(os.getpid()))
            part.rename(busy)
            time.sleep(3600)

    HELD: list[mmap.mmap] = []
    WORDS: dict[bytes, Callable[[], object]] = {
        b"SEGV": lambda: os.kill(os.getpid(), signal.SIGSEGV),
        b"EXIT": lambda: os._exit(3),
        b"HANG": lambda: time.sleep(3600),
        b"SPIN": _spin,
        b"WAIT": _wait_once,
        b"GROW": lambda: _grow([]),
        b"LONG": lambda: os.ftruncate(os.memfd_create("long"), 1 << 40),
        b"LEAK": lambda: HELD.append(mmap.mmap(-1, 50 << 20)),
        b"ODDS": lambda: dict[str, str]()["of no meaning"],
    }
    before = decoders._decoder_of

    def decoder_of(content: memoryview, name: str) -> object:
        word = bytes(content[:4])
        if word in WORDS:
            WORDS[word]()
        return before(content, name)

    decoders._decoder_of = decoder_of  # type: ignore[assignment]

if "appliance.cli" in sys.orig_argv and "run" in sys.orig_argv and "UMBRA_POISON" in os.environ:
    import signal
    import time
    from collections.abc import Sequence
    from dataclasses import replace
    from pathlib import Path

    from engines import EngineFaultError, Measurement, cpu_inspector
    from kernels import RawFrame

    folder = Path(os.environ["UMBRA_POISON"])
    measure_well = cpu_inspector.CpuInspector.measure

    def measure(self: cpu_inspector.CpuInspector, frames: Sequence[RawFrame]) -> list[Measurement]:
        for frame in frames:
            if frame.width == 301:
                os.kill(os.getpid(), signal.SIGSEGV)
            if frame.width == 302:
                time.sleep(3600)
            if frame.width == 303:
                raise EngineFaultError("engine of a test: it broke")
        found = measure_well(self, frames)
        if (folder / "drift").exists():
            return [
                m if m.inspection is None else replace(m, inspection=replace(m.inspection, level=9.5)) for m in found
            ]
        return found

    cpu_inspector.CpuInspector.measure = measure  # type: ignore[method-assign]
