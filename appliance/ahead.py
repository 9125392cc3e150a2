"""Files of the inbox, decoded before their turn: in their order, but none waits long for one before it."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, field
from pathlib import Path

from appliance.frame import Frame
from appliance.sandbox import Sandbox
from appliance.watch import Candidate
from engines import Inspector, worth_together

DECODE_AHEAD = 3  # frames decoded while one is inferred
DECODED_BYTES = 1 << 30  # of frames decoded ahead for a GPU: bounds the memory
PATIENCE_S = 1.0  # for the oldest, before the others pass it

Decoding = tuple[Candidate, Future[Frame]]


def room_ahead(inspector: Inspector, nbytes: int) -> int:
    """How many frames may be decoded ahead: two calls' worth, as far as frames of so many bytes leave memory."""
    return max(DECODE_AHEAD, min(2 * worth_together(inspector), DECODED_BYTES // nbytes))


@dataclass(slots=True)
class Ahead:
    """What waits to be decoded, and what is being decoded.

    Attributes:
        inbox: folder that the files lie in.
        sandbox: decodes.
        wait_ms: that a batch waits for further frames.
        inspector: that frames are for now; another one, once a bundle was activated.
        stopped: whether to wait no more.
        meanwhile: called at least every second while a file is waited for.
    """

    inbox: Path
    sandbox: Sandbox
    wait_ms: float
    inspector: Callable[[], Inspector]
    stopped: Callable[[], bool]
    meanwhile: Callable[[], None]
    _waiting: deque[Candidate] = field(default_factory=deque)
    _decoding: deque[Decoding] = field(default_factory=deque)
    _late: Future[Frame] | None = None  # waited for in vain: others need not wait for it once more
    _sizes: deque[int] = field(default_factory=lambda: deque([1], maxlen=64))  # bytes of the last frames' samples

    @property
    def has_more(self) -> bool:
        """Whether files wait to be decoded."""
        return bool(self._waiting)

    def add(self, found: Iterable[Candidate]) -> bool:
        """Take files; whether any is being decoded."""
        self._waiting.extend(found)
        self._fill()
        return bool(self._decoding)

    def saw(self, frame: Frame) -> None:
        """How large frames are, for how many may be decoded ahead."""
        if frame.raw is not None:
            self._sizes.append(frame.raw.packed.nbytes)

    def let_go(self) -> list[Candidate]:
        """Keep nothing; the files that were waited for."""
        found = [*self._waiting, *(candidate for candidate, _ in self._decoding)]
        self._waiting.clear()
        self._decoding.clear()
        return found

    def following(self) -> Iterator[Decoding]:
        """The next decoded file, and for a GPU a batch of those that are within the waiting time, and another of those that are
        already. None of them where this is told to stop.
        """
        first = self._first_decoded()
        if first is None:
            return
        self._fill()
        yield first
        end = time.monotonic() + self.wait_ms / 1e3
        for number in range(1, min(worth_together(self.inspector()), self._room())):
            patience = max(0.0, end - time.monotonic()) if number < self.inspector().batch else 0.0
            if not self._decoding or not wait([self._decoding[0][1]], patience).done:
                break
            following = self._decoding.popleft()
            self._fill()
            yield following

    def _fill(self) -> None:
        while self._waiting and len(self._decoding) < self._room():
            candidate = self._waiting.popleft()
            self._decoding.append((candidate, self.sandbox.submit(self.inbox, candidate.relative)))

    def _room(self) -> int:
        return room_ahead(self.inspector(), max(self._sizes, default=1))

    def _first_decoded(self) -> Decoding | None:
        """The oldest file that is decoded, as soon as there is one; one that takes long lets the others pass."""
        oldest = self._decoding[0][1]
        if oldest is not self._late and not wait([oldest], timeout=PATIENCE_S).done:
            self._late = oldest
        while not self.stopped():
            for number, (_, decoded) in enumerate(self._decoding):
                if decoded.done():
                    found = self._decoding[number]
                    del self._decoding[number]
                    return found
            self.meanwhile()
            wait([decoded for _, decoded in self._decoding], timeout=PATIENCE_S, return_when=FIRST_COMPLETED)
        return None
