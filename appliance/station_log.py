"""Limits, bundles, events and cursors of a station, as umbra.db holds them beside verdicts and labels."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from appliance.log_file import LogFile
from appliance.verdict import Row, now_utc


class StationLog(LogFile):
    """What the station was told, and what happened to it; as LogFile."""

    # --- cursors: how far each reader of the log has come ----------------------------------------------------------

    def cursor(self, name: str) -> int:
        """The last seq that a reader has dealt with; 0 where it never came."""
        return self.find_cursor(name) or 0

    def find_cursor(self, name: str) -> int | None:
        """The last seq that a reader has dealt with; None where it never came."""
        rows = self.select("SELECT seq FROM cursors WHERE name = ?", (name,))
        return int(rows[0]["seq"]) if rows else None

    def set_cursor(self, name: str, seq: int) -> None:
        """Remember how far a reader has come."""
        with self.transaction() as db:
            db.execute(
                "INSERT INTO cursors VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET seq = excluded.seq", (name, seq)
            )

    # --- specs, bundles, events ---------------------------------------------------------------------------

    def spec_for(self, product: str, default: float) -> float:
        """The limit in force: the product's newest, else the newest for all products, else `default`."""
        rows = self.select(
            "SELECT spec FROM specs WHERE product = ? OR product IS NULL ORDER BY product IS NULL, id DESC LIMIT 1",
            (product,),
        )
        return float(rows[0]["spec"]) if rows else default

    def set_spec(self, product: str | None, spec: float, *, who: str, note: str | None = None) -> int:
        """Append a limit; None for all products that have none of their own."""
        with self.transaction() as db:
            values = (product, spec, who, now_utc(), note)
            return int(
                db.execute("INSERT INTO specs (product, spec, who, at, note) VALUES (?, ?, ?, ?, ?)", values).lastrowid
                or 0
            )

    def add_bundle(self, identity: str, folder: str, *, who: str) -> int:
        """Append an activation; its number."""
        with self.transaction() as db:
            sql = "INSERT INTO bundles (identity, folder, who, at) VALUES (?, ?, ?, ?)"
            return int(db.execute(sql, (identity, folder, who, now_utc())).lastrowid or 0)

    def refuse_bundle(
        self, activation: int, identity: str, folder: str, kind: str, detail: Mapping[str, Any]
    ) -> int | None:
        """Append that an activation was refused, and, where it is still the newest, the bundle that is active instead of it.

        Args:
            activation: number of the refused one.
            identity: of the bundle that is active again.
            folder: of it.
            kind: of the event.
            detail: of the event.

        Returns:
            Number of the activation that was appended; None where a newer one holds.
        """
        with self.transaction() as db:
            db.execute("INSERT INTO events (at, kind, detail) VALUES (?, ?, ?)", (now_utc(), kind, json.dumps(detail)))
            sql = """INSERT INTO bundles (identity, folder, who, at)
                SELECT ?, ?, 'the screener: the one before was refused', ? WHERE ? = (SELECT MAX(id) FROM bundles)"""
            done = db.execute(sql, (identity, folder, now_utc(), activation))
            return int(done.lastrowid or 0) if done.rowcount else None

    def activation(self) -> Row | None:
        """The newest activation: id, identity, folder, who, at."""
        rows = self.select("SELECT * FROM bundles ORDER BY id DESC LIMIT 1", ())
        return rows[0] if rows else None

    def activation_before(self) -> Row | None:
        """The newest activation of another bundle than the active one that no screener refused."""
        rows = self.select("""
            SELECT * FROM bundles WHERE identity <> (SELECT identity FROM bundles ORDER BY id DESC LIMIT 1) AND id NOT IN (
                SELECT json_extract(detail, '$.activation') FROM events
                WHERE kind = 'bundle.refused' AND json_extract(detail, '$.activation') IS NOT NULL
            ) ORDER BY id DESC LIMIT 1
        """)
        return rows[0] if rows else None

    def active_bundle(self) -> str | None:
        """Folder of the bundle activated last."""
        newest = self.activation()
        return str(newest["folder"]) if newest else None

    def add_event(self, kind: str, **detail: object) -> None:
        """Append what happened to the station."""
        with self.transaction() as db:
            db.execute("INSERT INTO events (at, kind, detail) VALUES (?, ?, ?)", (now_utc(), kind, json.dumps(detail)))

    def events(self, kind: str) -> list[Row]:
        """All events of a kind, oldest first, their details read."""
        rows = self.select("SELECT * FROM events WHERE kind = ? ORDER BY id", (kind,))
        return [row | {"detail": json.loads(row["detail"])} for row in rows]

    def newest_event(self, *kinds: str) -> Row | None:
        """The newest event of these kinds, its detail read."""
        some = ", ".join("?" * len(kinds))
        sql = f"SELECT * FROM events WHERE id = (SELECT MAX(id) FROM events WHERE kind IN ({some}))"  # noqa: S608
        rows = self.select(sql, kinds)
        return rows[0] | {"detail": json.loads(rows[0]["detail"])} if rows else None

    def table(self, name: str, *, limit: int = 1000) -> list[Row]:
        """The newest rows of specs, labels, bundles or events, newest first."""
        with self._told_apart():
            return list(self.database[name].rows_where(order_by="id desc", limit=limit))
