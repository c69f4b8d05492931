"""`RolloutStore`: the durable record of rollouts, in one SQLite file with a write-ahead log.

SQLite because the state, the decisions and the lease must change together or not at all, and because
`status` and `abort` come from other processes. A lease keeps two controllers from acting on one rollout: it is
checked by the very transaction that saves a state, and a state is saved before its actions are sent.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgewright.contract import from_json, to_json
from edgewright.errors import RolloutError, StorageError
from edgewright_fleet.rollout.spec import RolloutSpec
from edgewright_fleet.rollout.state import ENDED, Decision, RolloutState

LEASE_S = 15.0
"""A controller that has not renewed for this long is taken for dead."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS rollout (
  name TEXT PRIMARY KEY, spec BLOB NOT NULL, state BLOB NOT NULL, abort INTEGER NOT NULL DEFAULT 0,
  owner TEXT, lease_until REAL NOT NULL DEFAULT 0, started REAL NOT NULL
);
CREATE TABLE IF NOT EXISTS decision (
  id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL, at REAL NOT NULL, sentence TEXT NOT NULL,
  evidence TEXT NOT NULL
);
CREATE TRIGGER IF NOT EXISTS decisions_are_kept BEFORE UPDATE ON decision
  BEGIN SELECT RAISE(ABORT, 'the log is append-only'); END;
CREATE TRIGGER IF NOT EXISTS decisions_are_not_lost BEFORE DELETE ON decision
  BEGIN SELECT RAISE(ABORT, 'the log is append-only'); END;
"""


@dataclass(frozen=True)
class KeptDecision:
    """One line of a rollout's audit log."""

    at_s: float
    sentence: str
    evidence: dict[str, Any]


class RolloutStore:
    """Rollouts in the file at `path`. Raises `StorageError`.

    A missing file is made there; with `create` false it reads as an empty store and none is made.
    """

    lease_s = LEASE_S

    def __init__(self, path: Path, *, create: bool = True) -> None:
        self._path = path
        try:
            if create:
                path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(
                path if create or path.is_file() else ":memory:", timeout=10.0, isolation_level=None
            )
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=FULL")
            self._db.executescript(_SCHEMA)
        except (sqlite3.Error, OSError) as error:
            raise StorageError(
                f"is not a rollout store that can be used ({error})", where=str(path)
            ) from None

    def create(self, spec: RolloutSpec, state: RolloutState) -> None:
        """Keep a new rollout. Raises `RolloutError` where the name is taken."""
        with self._transaction() as db:
            if db.execute("SELECT 1 FROM rollout WHERE name = ?", (spec.name,)).fetchone():
                raise RolloutError(f"there is a rollout '{spec.name}' already", remedy="choose another name")
            db.execute(
                "INSERT INTO rollout (name, spec, state, started) VALUES (?, ?, ?, ?)",
                (spec.name, to_json(spec), to_json(state), state.since_s),
            )

    def save(self, state: RolloutState, decisions: list[Decision], owner: str, now_s: float) -> None:
        """Replace the state and append decisions, in one transaction.

        Raises `RolloutError` where the lease is no longer `owner`'s: whoever raises it must not act on.
        """
        with self._transaction() as db:
            row = (to_json(state), state.name, owner)
            if db.execute("UPDATE rollout SET state = ? WHERE name = ? AND owner = ?", row).rowcount != 1:
                raise RolloutError(f"another controller has taken over rollout '{state.name}'")
            db.executemany(
                "INSERT INTO decision (name, at, sentence, evidence) VALUES (?, ?, ?, ?)",
                [(state.name, now_s, d.sentence, json.dumps(d.evidence)) for d in decisions],
            )

    def load(self, name: str) -> tuple[RolloutSpec, RolloutState]:
        """A rollout by name. Raises `RolloutError` that lists the names there are."""
        row = next(iter(self._rows("SELECT spec, state FROM rollout WHERE name = ?", name)), None)
        if row is None:
            known = ", ".join(self.names()) or "none"
            raise RolloutError(f"no rollout '{name}'; there are: {known}", where=str(self._path))
        where = f"{self._path} ({name})"
        return from_json(RolloutSpec, row[0], where=where), from_json(RolloutState, row[1], where=where)

    def names(self) -> list[str]:
        """The names of all rollouts, newest first."""
        return [row[0] for row in self._rows("SELECT name FROM rollout ORDER BY rowid DESC")]

    def newest_of(self, fleet: str) -> str | None:
        """The name of a fleet's newest rollout."""
        names = (name for name in self.names() if self.load(name)[0].fleet == fleet)
        return next(names, None)

    def decisions(self, name: str) -> list[KeptDecision]:
        """The audit log of a rollout, oldest first."""
        rows = self._rows("SELECT at, sentence, evidence FROM decision WHERE name = ? ORDER BY id", name)
        return [KeptDecision(at, sentence, json.loads(evidence)) for at, sentence, evidence in rows]

    def request_abort(self, name: str) -> None:
        """Ask whichever controller acts on a rollout to stop it. Raises `RolloutError` where it has ended."""
        if (phase := self.load(name)[1].phase) in ENDED:
            raise RolloutError(f"rollout '{name}' has ended already ({phase})")
        with self._transaction() as db:
            db.execute("UPDATE rollout SET abort = 1 WHERE name = ?", (name,))

    def abort_requested(self, name: str) -> bool:
        """Whether an operator asked for an abort."""
        return any(row[0] for row in self._rows("SELECT abort FROM rollout WHERE name = ?", name))

    def is_held(self, name: str, now_s: float) -> bool:
        """Whether a controller acts on a rollout at this moment."""
        rows = self._rows("SELECT owner, lease_until FROM rollout WHERE name = ?", name)
        return any(owner is not None and until > now_s for owner, until in rows)

    def hold_lease(self, name: str, owner: str, now_s: float) -> None:
        """Take or renew the right to act. Raises `RolloutError` while another controller holds it."""
        with self._transaction() as db:
            row = db.execute("SELECT owner, lease_until FROM rollout WHERE name = ?", (name,)).fetchone()
            if row is not None and row[0] not in (None, owner) and row[1] > now_s:
                raise RolloutError(
                    f"another controller acts on rollout '{name}'",
                    remedy=f"if it died, try again in {row[1] - now_s:.0f} s",
                )
            db.execute(
                "UPDATE rollout SET owner = ?, lease_until = ? WHERE name = ?", (owner, now_s + LEASE_S, name)
            )

    def release_lease(self, name: str, owner: str) -> None:
        """Give the right to act back."""
        with self._transaction() as db:
            db.execute(
                "UPDATE rollout SET owner = NULL, lease_until = 0 WHERE name = ? AND owner = ?", (name, owner)
            )

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def _rows(self, query: str, *values: str) -> list[Any]:
        try:
            return self._db.execute(query, values).fetchall()
        except sqlite3.Error as error:
            raise StorageError(f"cannot be read ({error})", where=str(self._path)) from None

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        try:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")
        except sqlite3.Error as error:
            raise StorageError(f"cannot be written ({error})", where=str(self._path)) from None
