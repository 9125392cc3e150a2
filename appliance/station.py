"""The station: the folder that holds inbox, outbox, databases and engines, and who may screen in it."""

from __future__ import annotations

import datetime as dt
import fcntl
import json
import os
import platform
import shutil
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from appliance.errors import RefusedError, StationBusyError
from appliance.mounts import is_mount
from appliance.settings import Settings, read_settings
from engines import Bundle, BundleError, EngineChoice, bundle

STATE_FILE = "state.json"
LINE_FILE = "line.json"
STALE_S = 10.0  # without a new state: the screener is gone, or hangs


@dataclass(frozen=True, slots=True)
class Station:
    """Paths of a station and its settings."""

    root: Path
    settings: Settings

    @classmethod
    def open(cls, root: Path, *, create: bool = False) -> Station:
        """A station with its settings.

        Args:
            root: its folder.
            create: make the folders that are missing.

        Raises:
            RefusedError: there is no such folder, or umbra.toml is wrong.
        """
        station = cls(root, read_settings(root))
        if create:
            for folder in (
                station.inbox,
                station.done,
                station.quarantine,
                station.outbox,
                station.engines,
                station.bundles,
            ):
                try:
                    folder.mkdir(parents=True, exist_ok=True)
                except OSError:
                    if not is_mount(folder):
                        raise  # else a mount that is dead now: the screener says so and waits
        elif not root.is_dir():
            raise RefusedError(f"station {root}: no such folder; `umbra run --station {root}` makes one")
        return station

    @property
    def inbox(self) -> Path:
        """Where testers drop frames: inbox/<product>/<lot>/<name>."""
        return self.root / "inbox"

    @property
    def done(self) -> Path:
        """Where judged frames go."""
        return self.root / "done"

    @property
    def quarantine(self) -> Path:
        """Where files go that cannot be read."""
        return self.root / "quarantine"

    @property
    def outbox(self) -> Path:
        """Where verdict files appear."""
        return self.root / "outbox"

    @property
    def engines(self) -> Path:
        """Compiled engines."""
        return self.root / "engines"

    @property
    def bundles(self) -> Path:
        """Bundles that were brought to this station."""
        return self.root / "engines" / "bundles"

    @property
    def lots(self) -> Path:
        """Where files of whole lots appear: STDF and wafer maps."""
        return self.root / "lots"

    @property
    def database(self) -> Path:
        """The verdict log."""
        return self.root / "umbra.db"

    @property
    def images(self) -> Path:
        """The stretched images and unseen maps; may be deleted."""
        return self.root / "images.db"

    @property
    def columns(self) -> Path:
        """What questions over all frames read; may be deleted."""
        return self.root / "columns"

    @property
    def again(self) -> Station:
        """What other bundles said of archived frames: log, pictures and columns as the station's; may be deleted."""
        return Station(self.root / "again", self.settings)

    def load_bundle(self, name: str | None = None, *, active: str | None = None) -> Bundle:
        """A bundle by name or folder; else the active one; else the one in the settings.

        Raises:
            BundleError: not found or damaged.
        """
        return bundle.load(bundle.find(name or active or self.settings.engine.bundle, self.bundles))

    def own_limit(self, active: str | None) -> float:
        """The limit of the active bundle: what holds where nobody set one."""
        try:
            return self.load_bundle(active=active).spec
        except BundleError:
            return 0.5

    def active_bundle(self) -> str | None:
        """The bundle activated last, as the log names it; None where none ever was."""
        activation = self.activation()
        return activation["folder"] if activation else None

    def activation(self) -> dict[str, Any] | None:
        """The newest activation: identity and folder of the bundle, who, and at; None where there is none."""
        from appliance.verdict_log import VerdictLog

        if not self.database.exists():
            return None
        with closing(VerdictLog(self.database, readonly=True)) as log:
            return log.activation()

    def reference_of(self, chosen: Bundle) -> str:
        """How the log names a bundle, so that it is found again: by name where shipped or brought here, else by path."""
        known = chosen.folder.resolve().parent in (bundle.SHIPPED.resolve(), self.bundles.resolve())
        return chosen.folder.name if known else str(chosen.folder.resolve())

    @property
    def engine(self) -> EngineChoice:
        """What runs bundles here."""
        return self.settings.engine.choice

    def free_bytes(self) -> int:
        """Free space on the station's disk; 0 where it is gone."""
        try:
            return shutil.disk_usage(self.root).free
        except OSError:
            return 0

    def is_screened(self) -> bool:
        """Whether the daemon that last published its state did so just now and is still there."""
        state = self.read_state()
        if state is None or "pid" not in state or not is_recent(state):
            return False
        try:
            os.kill(state["pid"], 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            pass
        return True

    def write_state(self, state: dict[str, Any]) -> None:
        """Publish what the screener is doing, for the API and `umbra doctor`; readers see the old or the new."""
        temporary = self.root / f".{STATE_FILE}.tmp"
        temporary.write_text(json.dumps(state), encoding="utf-8")
        temporary.replace(self.root / STATE_FILE)

    def read_state(self) -> dict[str, Any] | None:
        """What the screener last published; None where it never did."""
        return self._read(STATE_FILE)

    def recent_state(self) -> dict[str, Any] | None:
        """What the screener said just now; None where it says nothing."""
        state = self.read_state()
        return state if state is not None and is_recent(state) else None

    @property
    def line_name(self) -> str:
        """The station's name among others on the line."""
        return self.settings.line.name or f"{platform.node()}-{self.root.resolve().name}"

    def hosts(self) -> dict[str, dict[str, Any]]:
        """The hosts on the line by their protocols: connected, error, cursor, behind; none while nobody tells them."""
        told = self._read(LINE_FILE)
        found: dict[str, dict[str, Any]] = told["hosts"] if told is not None and is_recent(told) else {}
        return found

    def _read(self, name: str) -> dict[str, Any] | None:
        try:
            found: dict[str, Any] = json.loads((self.root / name).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return found


def is_recent(state: Mapping[str, Any]) -> bool:
    """Whether a state was published within STALE_S; a clock that was set back makes it old as well."""
    return abs(age_s(state)) <= STALE_S


def age_s(state: Mapping[str, Any]) -> float:
    """Seconds since a state was published."""
    at = dt.datetime.fromisoformat(state.get("at", "1970-01-01T00:00:00Z"))
    return (dt.datetime.now(dt.UTC) - at).total_seconds()


def as_its_owner(path: Path, folder: Path) -> None:
    """What root puts into a folder belongs to whom the folder belongs to: the services must be able to write it.

    Asked for only where it is another's: a confined service may not even ask.
    """
    owner, held = folder.stat(), path.stat()
    if os.geteuid() == 0 and (held.st_uid, held.st_gid) != (owner.st_uid, owner.st_gid):
        os.chown(path, owner.st_uid, owner.st_gid)


class StationLock:
    """Held by the one process that does something in a station; the kernel lets go of it when the process ends.

    Args:
        station: where.
        name: of the file.
        held: what is told where another one holds it.

    Raises:
        StationBusyError: another process holds it.
    """

    def __init__(
        self, station: Station, name: str = ".screener.lock", held: str = "another `umbra run` screens it"
    ) -> None:
        path = station.root / name
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._descriptor)
            raise StationBusyError(f"station {station.root}: {held}") from None
        as_its_owner(path, station.root)

    def release(self) -> None:
        """Let go."""
        os.close(self._descriptor)
