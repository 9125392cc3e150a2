"""umbra.db as a file: opened, migrated, checked, copied, and written in durable transactions (WAL, synchronous=FULL)."""

from __future__ import annotations

import errno
import fcntl
import os
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from sqlite_utils import Database

from appliance.errors import NotNowError, OutOfServiceError, RefusedError
from appliance.migrations import MIGRATIONS
from appliance.mounts import NETWORK_FILE_SYSTEMS, file_system_of
from appliance.verdict import Row

BUSY_MS = 5000
ROOM_FOR_A_ROW = 1 << 16  # bytes; less is a full disk, whatever SQLite calls it


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """One process makes or migrates a log at a time: SQLite waits for no lock when it turns a file into WAL."""
    descriptor = os.open(path.with_name(f".{path.name}.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _out_of_service(path: Path, error: sqlite3.OperationalError) -> OutOfServiceError:
    """Why a log cannot be written. A shared-memory file that cannot grow is no I/O error but a full disk, too."""
    kind = error.sqlite_errorcode & 0xFF
    not_now = kind in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_BUSY) or (
        kind == sqlite3.SQLITE_IOERR and _free_bytes(path) < ROOM_FOR_A_ROW
    )
    return (NotNowError if not_now else OutOfServiceError)(f"{path}: {error}")


def _is_one_file(path: Path) -> bool:
    """Whether a log is a copy, as a backup is, that no WAL belongs to: its header says so."""
    try:
        with path.open("rb") as file:
            return file.read(20)[18:20] == b"\x01\x01"
    except OSError:
        return False


def _free_bytes(path: Path) -> int:
    found = os.statvfs(path.parent)
    return found.f_bavail * found.f_frsize


class LogFile:
    """umbra.db, open for writing or for reading only.

    Args:
        path: of umbra.db; made and migrated when opened for writing.
        readonly: open an existing file without writing anything.

    Raises:
        RefusedError: on a network file system (copies may be read there), of a newer schema, damaged, missing when
            read-only, or another user's.
    """

    mending = "`umbra restore BACKUP` sets it aside and puts a backup in its place"
    upgrading = "`umbra run` brings it up to date"

    def __init__(self, path: Path, *, readonly: bool = False) -> None:
        self.path = path
        kind = file_system_of(path.parent)
        if kind in NETWORK_FILE_SYSTEMS and not (readonly and _is_one_file(path)):
            raise RefusedError(f"{path}: lies on {kind}; SQLite's WAL wants a local disk")
        try:
            uri = f"{path.resolve().as_uri()}?mode={'ro' if readonly else 'rwc'}"
            self._connection = sqlite3.connect(
                uri, uri=True, timeout=BUSY_MS / 1e3, check_same_thread=False, isolation_level=None
            )
            self._connection.row_factory = sqlite3.Row
            self._connection.execute("PRAGMA foreign_keys=ON")
            if not readonly:
                with _alone(path):
                    self._connection.execute("PRAGMA journal_mode=WAL")
                    self._migrate()
                self._connection.execute("PRAGMA synchronous=FULL")
            self.database = Database(self._connection)
            self._check_version()
        except sqlite3.OperationalError as error:
            if _free_bytes(path) < ROOM_FOR_A_ROW:
                raise _out_of_service(path, error) from error
            raise RefusedError(f"{path}: {error}") from error
        except sqlite3.DatabaseError as error:
            raise RefusedError(self._damaged(error)) from error
        except OSError as error:  # of the file that makes it wait for another process
            full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            raise (NotNowError if full else RefusedError)(f"{path}: {error}") from error

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def select(self, sql: str, values: Sequence[Any] | Mapping[str, Any] = ()) -> list[Row]:
        """All rows that answer a question.

        Raises:
            OutOfServiceError: SQLite could not read.
            RefusedError: the log is damaged.
        """
        with self._told_apart():
            return [dict(row) for row in self._connection.execute(sql, values)]

    @contextmanager
    def _told_apart(self) -> Iterator[None]:
        """SQLite's errors as what they mean for the station: wait, start anew, or refuse."""
        try:
            yield
        except sqlite3.DatabaseError as error:
            code = getattr(
                error, "sqlite_errorcode", None
            )  # text that is no text is told by Python itself, without one
            own = isinstance(error, sqlite3.OperationalError)
            if (code is None and own) or (code or 0) & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
                raise RefusedError(self._damaged(error)) from error
            if isinstance(error, sqlite3.OperationalError):
                raise _out_of_service(self.path, error) from error
            raise

    def _migrate(self) -> None:
        version = self._connection.execute("PRAGMA user_version").fetchone()[0]
        for number, script in enumerate(MIGRATIONS[version:], start=version + 1):
            self._connection.executescript(f"BEGIN IMMEDIATE; {script}; PRAGMA user_version={number}; COMMIT;")

    def _check_version(self) -> None:
        version = self._connection.execute("PRAGMA user_version").fetchone()[0]
        if version != len(MIGRATIONS):
            older = f"; {self.upgrading}" if version < len(MIGRATIONS) else ""
            raise RefusedError(f"{self.path}: schema {version}, this Umbra knows {len(MIGRATIONS)}{older}")

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """One durable transaction: all of it or nothing.

        Raises:
            NotNowError: there is no room, or another process holds the log.
            OutOfServiceError: SQLite could not write.
            RefusedError: the log is damaged.
        """
        # The connection commits what was begun, or rolls it back; a full disk has done that by itself.
        with self._told_apart(), self._connection:
            self._connection.execute("BEGIN IMMEDIATE")
            yield self._connection

    def check(self, *, seconds: float | None = None) -> None:
        """Look for damage.

        Args:
            seconds: how long at most; None: all of the file.

        Raises:
            RefusedError: it is damaged.
        """
        end = None if seconds is None else time.monotonic() + seconds
        self._connection.set_progress_handler(lambda: end is not None and time.monotonic() > end, 10_000)
        try:
            found = [str(row[0]) for row in self._connection.execute("PRAGMA quick_check(5)")]
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode == sqlite3.SQLITE_INTERRUPT:
                return  # as far as time went it is whole
            raise RefusedError(self._damaged(error)) from error
        except sqlite3.DatabaseError as error:
            raise RefusedError(self._damaged(error)) from error
        finally:
            self._connection.set_progress_handler(None, 0)
        if found != ["ok"]:
            raise RefusedError(self._damaged("; ".join(found)))

    def copy_to(self, path: Path) -> None:
        """Copy the log as it is at one moment; whoever writes it goes on."""
        with closing(sqlite3.connect(path)) as copy:
            self._connection.execute("BEGIN")  # without this moment to hold on to, each commit starts the copy anew
            try:
                self._connection.execute("SELECT COUNT(*) FROM sqlite_schema").fetchone()
                self._connection.backup(copy, pages=256, sleep=0.01)
            finally:
                self._connection.execute("COMMIT")
            copy.execute("PRAGMA journal_mode=DELETE")  # one file

    def _damaged(self, detail: object) -> str:
        return f"{self.path}: {detail}; {self.mending}"
