"""What must hold of a station whatever happened to it: every frame one verdict, every file equal to its row."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from appliance.formats import write_frame
from appliance.station import Station
from appliance.verdict import document
from appliance.verdict_log import VerdictLog
from engines import CpuInspector, bundle
from kernels import RawFrame
from tests.appliance.running import DEADLINE_S, wait_until
from tests.conftest import dark

KINDS = 12  # different frames; each is fed under many names


@dataclass(slots=True)
class Ledger:
    """Frames fed to a station, and what was published of them so far.

    Attributes:
        station: where.
        scores: what an undisturbed inspector says of each kind.
        fed: name of a frame -> its kind.
        published: every verdict file ever seen, by name.
        goal: how many frames are to be fed by now.
    """

    station: Station
    scores: list[float | None] = field(default_factory=list)
    fed: dict[str, int] = field(default_factory=dict)
    published: dict[str, dict[str, Any]] = field(default_factory=dict)
    goal: int = 0
    _files: list[Path] = field(default_factory=list)

    def __post_init__(self) -> None:
        inspector = CpuInspector(bundle.load(bundle.find("starter")), cache=self.station.engines)
        frames = [self._frame(kind) for kind in range(KINDS)]
        for frame in inspector.measure([RawFrame.from_samples(f, bits=8) for f in frames]):
            self.scores.append(None if frame.inspection is None else round(frame.inspection.score, 6))
        self._files = [
            write_frame(self.station.root.parent / "kinds", f"k{kind}", frame, bits=8, format_name="tiff")
            for kind, frame in enumerate(frames)
        ]

    @staticmethod
    def _frame(kind: int) -> Any:
        samples = dark(232 + 8 * kind, 240, seed=kind)
        if kind % 3 == 1:
            samples[60:110, 60:110] += 12  # seen
        if kind % 6 == 5:
            samples[:] = 7  # refused: no noise
        return samples

    def feed(self, name: str, *, hidden: bool = False) -> None:
        """Drop the next frame in the inbox, whole; hidden: as a temporary file, until `show`."""
        kind = len(self.fed) % KINDS
        self.fed[name] = kind
        target = self.station.inbox / "P" / "L" / f"{name}.tif"
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_suffix(".part")
        part.write_bytes(self._files[kind].read_bytes())
        if not hidden:
            part.rename(target)

    def show(self) -> None:
        """Give hidden frames their names."""
        for part in self.station.inbox.rglob("*.part"):
            part.rename(part.with_suffix(".tif"))

    def pending(self) -> int:
        """Frames whose way is not at its end: without file, or still in the inbox."""
        missing = sum(not (self.station.outbox / "P" / "L" / f"{name}.json").exists() for name in self.fed)
        return missing + len(list(self.station.inbox.rglob("*.tif")))

    def look(self) -> None:
        """Read what is published now: nothing that was published before may say anything else."""
        for path in self.station.outbox.rglob("*.json"):
            found = json.loads(path.read_text(encoding="utf-8"))
            before = self.published.setdefault(path.stem, found)
            assert found == before, f"{path.name} was published twice with different values"

    def check(self) -> None:
        """Everything, once nothing is pending."""
        self.look()
        assert sorted(self.published) == sorted(self.fed)
        log = VerdictLog(self.station.database, readonly=True)
        try:
            rows = log.verdicts(limit=1 << 30)
            assert log.database.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
        finally:
            log.close()
        assert sorted(row["name"] for row in rows) == sorted(f"{name}.tif" for name in self.fed)
        for row in rows:
            name = Path(row["name"]).stem
            assert self.published[name] == document(row), f"{name}: the file is not the row"
            assert row["score"] == self.scores[self.fed[name]], f"{name}: another score than undisturbed"
        kept = {p.stem: p for folder in (self.station.done, self.station.quarantine) for p in folder.rglob("*.tif")}
        assert sorted(kept) == sorted(self.fed)
        for name, path in kept.items():
            assert path.read_bytes() == self._files[self.fed[name]].read_bytes()

    def wait_done(self) -> None:
        """Until nothing is pending."""
        seconds = DEADLINE_S + self.pending() / 2  # two frames a second, however busy the machine is
        wait_until(lambda: self.pending() == 0, "every frame has its file and is put away", seconds=seconds)
