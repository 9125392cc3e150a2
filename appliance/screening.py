"""`umbra screen`: judge files and folders once, in order; nothing is moved or published."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from appliance.decode import is_frame_name
from appliance.errors import FrameVanishedError, RefusedError
from appliance.frame import Frame, identify
from appliance.images import ImageStore
from appliance.pipeline import judge
from appliance.reading import UNREAD
from appliance.sandbox import Sandbox
from appliance.settings import Settings
from appliance.verdict import Row
from appliance.verdict_log import VerdictLog
from engines import Inspector

DECODE_AHEAD = 3


@dataclass(frozen=True, slots=True)
class Target:
    """A file to screen: a folder and the path below it, which says product and lot."""

    root: Path
    relative: str


def find_targets(paths: Sequence[Path]) -> list[Target]:
    """The files given, and the image files below the folders given, in order of name.

    Raises:
        RefusedError: a path is not there, or a folder holds no image file.
    """
    targets = []
    for path in paths:
        if path.is_dir():
            found = sorted(p for p in path.rglob("*") if p.is_file() and not p.is_symlink() and is_frame_name(p.name))
            if not found:
                raise RefusedError(f"{path}: no image file in it")
            targets += [Target(path, p.relative_to(path).as_posix()) for p in found]
        elif path.exists():
            file = path.resolve()  # a link that is asked for by name is followed
            targets.append(Target(file.parent, file.name))
        else:
            raise RefusedError(f"{path}: no such file or folder")
    return targets


@dataclass(frozen=True, slots=True)
class OneShot:
    """Screens targets with one inspector.

    Attributes:
        inspector: the engines.
        settings: decoding and decision.
        log: where verdicts are kept, or None to keep none.
        images: where pictures are kept, or None.
    """

    inspector: Inspector
    settings: Settings
    log: VerdictLog | None = None
    images: ImageStore | None = None

    def screen(self, targets: Sequence[Target]) -> Iterator[Row]:
        """One row a target, in order; decoding runs ahead of inference. A file that went meanwhile is RETEST."""
        waiting = deque(targets)
        decoding: deque[tuple[Target, Future[Frame]]] = deque()
        with closing(Sandbox(self.settings)) as sandbox:
            while waiting or decoding:
                while waiting and len(decoding) < max(DECODE_AHEAD, 2 * self.inspector.batch):
                    target = waiting.popleft()
                    decoding.append((target, sandbox.submit(target.root, target.relative)))
                count = min(self.inspector.batch, len(decoding))
                yield from self._screen([_result(*decoding.popleft()) for _ in range(count)])

    def _screen(self, frames: Sequence[Frame]) -> Iterator[Row]:
        own, log = self.inspector.bundle, self.log
        known = [log.find_verdict(f.identity.path, f.sha256, own.identity) if log else None for f in frames]
        new = [frame for frame, row in zip(frames, known, strict=True) if row is None]
        judged = iter(judge(
            new, self.inspector, spec=lambda product: log.spec_for(product, own.spec) if log else own.spec,
            capture_failed=self.settings.capture_failed,
        ))  # fmt: skip
        for frame, row in zip(frames, known, strict=True):
            if row is not None:
                yield row
                continue
            decided, measurement = next(judged)
            if log is not None:
                decided = log.record(frame, decided, origin="screen")
                if self.images is not None and measurement is not None:
                    self.images.add(decided["frame_id"], measurement)
            yield decided


def _result(target: Target, decoded: Future[Frame]) -> Frame:
    try:
        return decoded.result()
    except FrameVanishedError as error:
        identity = identify(target.relative)
        return Frame(identity=identity, sha256=UNREAD, file_bytes=0, raw=None, unreadable=str(error), decode_ms=0.0)
