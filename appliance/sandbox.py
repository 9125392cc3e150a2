"""Decoding apart from the screener: worker processes that a hostile file may kill, hang or fill, and nothing else."""

from __future__ import annotations

import fcntl
import json
import mmap
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from appliance.decode_worker import LONGEST_MESSAGE
from appliance.errors import ApplianceError, FrameVanishedError, OutOfServiceError
from appliance.frame import Frame, identify
from appliance.reading import UNREAD, OpenFrame, hash_of, open_frame
from appliance.settings import Settings
from kernels import FrameGeometryError, Layout, RawFrame

START_S = 60.0
TRIES = 2


class WorkerDiedError(ApplianceError):
    """A worker ended, hung or talked nonsense over a frame. The message says how."""


class UndecodableError(ApplianceError):
    """What no decoder foresaw in a file. The message says what."""


@dataclass(frozen=True, slots=True)
class Death:
    """A worker that a frame has cost.

    Attributes:
        relative: path of the frame.
        reason: how the worker ended.
        last: whether the frame was given up.
    """

    relative: str
    reason: str
    last: bool


class Worker:
    """One process that decodes; for one thread.

    Args:
        settings: what it must know and obey.

    Attributes:
        retiring: it asks to be replaced, since libraries have lost memory in it.
        spent: it owes an answer: it is of no more use.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        environment = os.environ | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
        with theirs, os.fdopen(os.memfd_create("umbra-settings"), "w+b") as told:
            told.write(settings.model_dump_json().encode())
            told.seek(0)
            self._process = subprocess.Popen(  # noqa: S603  (our own module)
                [sys.executable, "-P", "-m", "appliance.decode_worker", str(theirs.fileno())],
                stdin=told, stderr=subprocess.DEVNULL, pass_fds=[theirs.fileno()], env=environment,
            )  # fmt: skip
        self._ready = False
        self.retiring = self.spent = False

    @property
    def pid(self) -> int:
        """Its process number."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether its process has not ended."""
        return self._process.poll() is None

    def wait_ready(self) -> None:
        """Wait, the first time, until it is up.

        Raises:
            WorkerDiedError: it did not come so far.
        """
        if self._ready:
            return
        try:
            self._receive(START_S)
        except TimeoutError:
            raise WorkerDiedError(f"the decoder was not ready within {START_S:g} s") from None
        except OSError as error:
            raise WorkerDiedError(self._how_it_ended(error.strerror or str(error))) from error
        self._ready = True

    def decode(self, opened: OpenFrame, relative: str) -> Frame:
        """A frame that was opened.

        Raises:
            FrameVanishedError: the file changed while it was read.
            WorkerDiedError: the worker is of no more use.
        """
        files = [d for d in (opened.file, opened.sidecar) if d is not None]
        asked = {"relative": relative, "file": opened.file is not None, "sidecar": opened.sidecar is not None,
                 "problem": opened.problem}  # fmt: skip
        received: list[int] = []
        self.spent = True
        try:
            socket.send_fds(self._channel, [json.dumps(asked).encode()], files)
            message, received = self._receive(self._longest_s)
            told = json.loads(message)
            self.retiring = bool(told["retiring"])
            frame = _frame_of(told, received, relative, self._settings)
        except (FrameVanishedError, UndecodableError):
            self.spent = False  # an answer, too
            raise
        except TimeoutError:
            raise WorkerDiedError(f"decoding took longer than {self._longest_s:g} s") from None
        except OSError as error:
            raise WorkerDiedError(self._how_it_ended(error.strerror or str(error))) from error
        except (ValueError, KeyError, TypeError, FrameGeometryError) as error:
            raise WorkerDiedError(f"the decoder's answer makes no sense: {error}") from error
        else:
            self.spent = False
            return frame
        finally:
            for descriptor in received:
                os.close(descriptor)

    @property
    def _longest_s(self) -> float:
        """By the wall clock: the kernel ends a worker that computes sooner, this one that waits."""
        return 2 * self._settings.limits.decode_s

    def _receive(self, timeout_s: float) -> tuple[bytes, list[int]]:
        self._channel.settimeout(timeout_s)
        message, files, _flags, _address = socket.recv_fds(self._channel, LONGEST_MESSAGE, 1)
        if not message:
            raise OSError(0, "it ended")
        return message, files

    def _how_it_ended(self, otherwise: str) -> str:
        try:
            code = self._process.wait(1)
        except subprocess.TimeoutExpired:
            return f"the decoder broke off: {otherwise}"
        if code >= 0:
            return f"the decoder ended with exit code {code}"
        return f"the decoder was killed by {signal.Signals(-code).name}"

    def interrupt(self) -> None:
        """End the process, from any thread; whoever waits for an answer is told."""
        self._process.kill()

    def close(self) -> None:
        """End it, whatever it does."""
        self._process.kill()
        self._process.wait()
        self._channel.close()


def _frame_of(told: dict[str, Any], files: list[int], relative: str, settings: Settings) -> Frame:
    if "vanished" in told:
        raise FrameVanishedError(told["vanished"])
    if "failed" in told:
        raise UndecodableError(told["failed"])
    die = tuple(told["die"]) if told["die"] else None
    identity = identify(relative, name_pattern=settings.name_pattern, wafer=told["wafer"], die=die)
    raw = _samples(files[0], told["raw"], told["offset"]) if "raw" in told else None
    return Frame(identity=identity, sha256=told["sha256"], file_bytes=told["file_bytes"], raw=raw,
                 unreadable=told["unreadable"], decode_ms=told["decode_ms"])  # fmt: skip


def _samples(descriptor: int, told: dict[str, Any], offset: int) -> RawFrame:
    """Samples in a worker's memory; it can neither shrink nor take back what lies there."""
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL)
    size = os.fstat(descriptor).st_size
    if not 0 <= offset <= size - told["bytes"]:
        raise ValueError(f"{told['bytes']} bytes at {offset} of {size}")
    mapped = mmap.mmap(descriptor, size, prot=mmap.PROT_READ)
    packed = np.frombuffer(mapped, np.uint8, told["bytes"], offset)
    return RawFrame(packed, told["width"], told["height"], told["stride"], Layout(told["layout"]), told["bits"])


class Sandbox:
    """Decodes frames ahead in worker processes.

    Args:
        settings: limits, formats and the pattern of names.
        workers: processes.
    """

    def __init__(self, settings: Settings, *, workers: int = 2) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._workers = {Worker(settings) for _ in range(workers)}
        self._idle: queue.SimpleQueue[Worker | None] = queue.SimpleQueue()  # None: one to be started
        for worker in self._workers:
            self._idle.put(worker)
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="decode")
        self._new_deaths: list[Death] = []
        self._closed = False
        self.died = self.retired = 0

    def submit(self, root: Path, relative: str, *, known_as: str | None = None) -> Future[Frame]:
        """Begin to decode a file below a folder.

        Args:
            root: the folder.
            relative: path below it.
            known_as: path that tells product, lot, name and format, where the file is called otherwise now.

        Returns:
            The frame; where its samples cannot be read, or it has cost TRIES workers, with the reason in `unreadable`.
            Else FrameVanishedError: it is gone, or changed while it was read; OutOfServiceError: no worker can be had.
        """
        return self._pool.submit(self._decode, root, relative, known_as or relative)

    def deaths(self) -> list[Death]:
        """Workers that frames have cost since the last look."""
        with self._lock:
            deaths, self._new_deaths = self._new_deaths, []
        return deaths

    def close(self) -> None:
        """End the workers; what is under way is given up."""
        with self._lock:
            self._closed = True
            workers = list(self._workers)
        for worker in workers:
            worker.interrupt()
        self._pool.shutdown(wait=True, cancel_futures=True)
        for worker in self._workers:
            worker.close()

    def _decode(self, root: Path, place: str, relative: str) -> Frame:
        began = time.perf_counter()
        attempt = 0
        while True:
            attempt += 1
            opened = open_frame(root, place)
            try:
                return self._by_a_worker(opened, relative, fresh=attempt > 1)
            except UndecodableError as error:
                return self._given_up(opened, relative, str(error), began)
            except WorkerDiedError as error:
                if self._closed:
                    raise FrameVanishedError(f"{relative}: the sandbox is closed") from error
                self._count(Death(relative, str(error), last=attempt == TRIES))
                if attempt == TRIES:
                    given_up = self._given_up(opened, relative, f"{error}, {TRIES} times", began)
                    return replace(given_up, hostile=True)
            finally:
                opened.close()

    def _by_a_worker(self, opened: OpenFrame, relative: str, *, fresh: bool) -> Frame:
        worker = self._ready_one(fresh=fresh)
        try:
            return worker.decode(opened, relative)
        finally:
            self._give_back(worker)

    def _give_back(self, worker: Worker) -> None:
        """For the next frame; in the place of one that is spent or retires another will be started."""
        if worker.spent or worker.retiring:
            self._dismiss(worker)
            self.retired += not worker.spent
            self._idle.put(None)
        else:
            self._idle.put(worker)

    def _ready_one(self, *, fresh: bool) -> Worker:
        """A worker that is up; one that does not come up, or has died since its last frame, is no frame's fault.

        Args:
            fresh: one that has decoded nothing yet.

        Raises:
            OutOfServiceError: none comes up.
        """
        for attempt in range(1, TRIES + 1):
            worker = self._idle.get()
            try:
                if worker is not None and (fresh or not worker.alive):
                    self._dismiss(worker)
                    worker = None
                if worker is None:
                    worker = self._start()
                worker.wait_ready()
            except (WorkerDiedError, OSError) as error:
                if worker is not None:
                    self._dismiss(worker)
                self._idle.put(None)
                if attempt == TRIES:
                    raise OutOfServiceError(f"no process can be had that decodes frames: {error}") from error
            else:
                return worker
        raise AssertionError  # the loop returns or raises

    def _start(self) -> Worker:
        with self._lock:
            if self._closed:
                raise WorkerDiedError("the sandbox is closed")
            worker = Worker(self._settings)
            self._workers.add(worker)
        return worker

    def _dismiss(self, worker: Worker) -> None:
        with self._lock:
            self._workers.discard(worker)
        worker.close()

    def _count(self, death: Death) -> None:
        with self._lock:
            self.died += 1
            self._new_deaths.append(death)

    def _given_up(self, opened: OpenFrame, relative: str, reason: str, began: float) -> Frame:
        """A frame that cannot be had, with the hash of its bytes, which no decoder is needed for."""
        sha256, size = UNREAD, 0
        if opened.file is not None:
            with suppress(OSError):  # not even its bytes can be had
                sha256, size = hash_of(opened.file), os.fstat(opened.file).st_size
        identity = identify(relative, name_pattern=self._settings.name_pattern)
        return Frame(identity=identity, sha256=sha256, file_bytes=size, raw=None, unreadable=reason,
                     decode_ms=(time.perf_counter() - began) * 1e3)  # fmt: skip
