"""`RolloutStore`: the durable record of rollouts, in one SQLite file with a write-ahead log.

SQLite because the state, the decisions, the requests and the lease must change together or not at all, and because
operators' commands come from other processes. A lease keeps two controllers from acting on one rollout: it is
checked by the very transaction that saves a state, and a state is saved before its actions are sent. Only devices
that changed are written.
"""

from __future__ import annotations

import json
import sqlite3
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from edgewright.contract import from_json, from_mapping, to_json
from edgewright.errors import RolloutError, StorageError
from edgewright_fleet.rollout.record import KeptDecision, Summary, Wish, begun_decision
from edgewright_fleet.rollout.spec import RolloutSpec
from edgewright_fleet.rollout.state import (
    ENDED,
    AbortRequested,
    Decision,
    OperatorRequest,
    PauseRequested,
    PromoteRequested,
    RolloutState,
)
from edgewright_fleet.rollout.store_tables import SCHEMA, VERSION, put_devices, read_devices

LEASE_S = 15.0
"""A controller that has not renewed for this long is taken for dead."""
_REQUESTS: dict[str, type[OperatorRequest]] = {
    "abort": AbortRequested,
    "pause": PauseRequested,
    "promote": PromoteRequested,
}


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
            # FULL: a power cut undoes nothing that was acted on.
            for pragma in ("journal_mode = WAL", "synchronous = FULL"):
                self._db.execute(f"PRAGMA {pragma}")
            # One statement each to look and to make: another process may do the same at this moment.
            version, filled = self._db.execute(
                "SELECT user_version, EXISTS (SELECT 1 FROM sqlite_master) FROM pragma_user_version"
            ).fetchone()
            if version != VERSION and filled:
                raise StorageError(
                    f"holds rollouts of another version of Edgewright ({version}, not {VERSION})",
                    where=str(path),
                    remedy="finish them with that version, or name another file with --store",
                )
            self._db.executescript(f"BEGIN IMMEDIATE;{SCHEMA}PRAGMA user_version = {VERSION};COMMIT;")
        except (sqlite3.Error, OSError) as error:
            raise StorageError(
                f"is not a rollout store that can be used ({error})", where=str(path)
            ) from None

    def create(self, spec: RolloutSpec, state: RolloutState, *, by: str | None = None) -> None:
        """Keep a new rollout and who began it. Raises `RolloutError` where the name is taken."""
        with self._transaction() as db:
            if db.execute("SELECT 1 FROM rollout WHERE name = ?", (spec.name,)).fetchone():
                raise RolloutError(f"there is a rollout '{spec.name}' already", remedy="choose another name")
            waves = json.dumps(state.waves)
            db.execute(
                "INSERT INTO rollout (name, fleet, spec, waves, state, started) VALUES (?, ?, ?, ?, ?, ?)",
                (spec.name, spec.fleet, to_json(spec), waves, _header(state), state.since_s),
            )
            put_devices(db, _number(db, spec.name), state.devices)
            if by is not None:
                self._put_decisions(db, spec.name, [begun_decision(state, by)], state.since_s)

    def save(
        self,
        state: RolloutState,
        decisions: Sequence[Decision],
        owner: str,
        now_s: float,
        *,
        taken: Sequence[int] = (),
    ) -> None:
        """Replace the state, append decisions and mark requests as carried out, in one transaction.

        Raises `RolloutError` where the lease is no longer `owner`'s: whoever raises it must not act on.
        """
        with self._transaction() as db:
            row = (_header(state), state.name, owner)
            if db.execute("UPDATE rollout SET state = ? WHERE name = ? AND owner = ?", row).rowcount != 1:
                raise RolloutError(f"another controller has taken over rollout '{state.name}'")
            put_devices(db, _number(db, state.name), state.devices)
            self._put_decisions(db, state.name, decisions, now_s)
            db.executemany("UPDATE request SET taken = 1 WHERE id = ?", [(number,) for number in taken])

    def load(self, name: str) -> tuple[RolloutSpec, RolloutState]:
        """A rollout by name. Raises `RolloutError` that lists the names there are."""
        with self._snapshot():
            query = "SELECT spec, state, waves, id FROM rollout WHERE name = ?"
            row = next(iter(self._rows(query, name)), None)
            if row is None:
                known = ", ".join(self.names()) or "none"
                raise RolloutError(f"no rollout '{name}'; there are: {known}", where=str(self._path))
            where = f"{self._path} ({name})"
            try:
                devices = read_devices(self._rows, row[3])
            except ValidationError:
                raise StorageError("holds a device's record that cannot be read", where=where) from None
        spec = from_json(RolloutSpec, row[0], where=where)
        waves = [
            [sys.intern(device) for device in wave] for wave in json.loads(row[2])
        ]  # as the devices' names
        document = {**json.loads(row[1]), "waves": waves, "devices": devices}
        return spec, from_mapping(RolloutState, document, where=where)

    def names(self) -> list[str]:
        """The names of all rollouts, newest first."""
        return [row[0] for row in self._rows("SELECT name FROM rollout ORDER BY id DESC")]

    def summaries(self, now_s: float) -> list[Summary]:
        """All rollouts, newest first."""
        query = "SELECT name, fleet, state, started, owner, lease_until FROM rollout ORDER BY id DESC"
        return [
            Summary(
                name,
                fleet,
                "{name}:{version}".format(**(state := json.loads(header))["release"]),
                state["phase"],
                state.get("verdict"),
                started,
                owner is not None and until > now_s,
            )
            for name, fleet, header, started, owner, until in self._rows(query)
        ]

    def newest_of(self, fleet: str) -> str | None:
        """The name of a fleet's newest rollout."""
        rows = self._rows("SELECT name FROM rollout WHERE fleet = ? ORDER BY id DESC LIMIT 1", fleet)
        return rows[0][0] if rows else None

    def decisions(self, name: str) -> list[KeptDecision]:
        """The audit log of a rollout, oldest first."""
        rows = self._rows("SELECT at, sentence, evidence, who FROM decision WHERE name = ? ORDER BY id", name)
        return [KeptDecision(at, sentence, json.loads(evidence), who) for at, sentence, evidence, who in rows]

    def request(self, name: str, wish: Wish, now_s: float, *, by: str, why: str | None = None) -> None:
        """Ask whichever controller acts on a rollout, now or next. Raises `RolloutError` where it has ended."""
        # Not by `load`, which would read every device first, and the fleet waits.
        rows = self._rows("SELECT state FROM rollout WHERE name = ?", name)
        phase = json.loads(rows[0][0])["phase"] if rows else self.load(name)[1].phase
        if phase in ENDED:
            raise RolloutError(f"rollout '{name}' has ended already ({phase})")
        with self._transaction() as db:
            db.execute(
                "INSERT INTO request (rollout, at, kind, who, why) "
                "SELECT id, ?, ?, ?, ? FROM rollout WHERE name = ?",
                (now_s, wish, by, why, name),
            )

    def requests(self, name: str) -> list[tuple[int, OperatorRequest]]:
        """What was asked for and not carried out yet, with its number, oldest first."""
        query = (
            "SELECT request.id, kind, who, why FROM request JOIN rollout ON rollout.id = request.rollout "
            "WHERE rollout.name = ? AND NOT taken ORDER BY request.id"
        )
        return [(number, _REQUESTS[kind](who, why)) for number, kind, who, why in self._rows(query, name)]

    def is_held(self, name: str, now_s: float) -> bool:
        """Whether a controller acts on a rollout at this moment."""
        rows = self._rows("SELECT owner, lease_until FROM rollout WHERE name = ?", name)
        return any(owner is not None and until > now_s for owner, until in rows)

    def take_lease(self, name: str, owner: str, now_s: float) -> None:
        """Take the right to act. Raises `RolloutError` while another controller has it."""
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

    def renew_lease(self, name: str, owner: str, now_s: float) -> None:
        """Keep the right. Raises `RolloutError` where another controller had it since, even if it is done."""
        with self._transaction() as db:
            row = (now_s + LEASE_S, name, owner)
            if (
                db.execute("UPDATE rollout SET lease_until = ? WHERE name = ? AND owner = ?", row).rowcount
                != 1
            ):
                raise RolloutError(f"another controller has taken over rollout '{name}'")

    def release_lease(self, name: str, owner: str) -> None:
        """Give the right to act back."""
        with self._transaction() as db:
            db.execute(
                "UPDATE rollout SET owner = NULL, lease_until = 0 WHERE name = ? AND owner = ?", (name, owner)
            )

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def _put_decisions(
        self, db: sqlite3.Connection, name: str, decisions: Sequence[Decision], now_s: float
    ) -> None:
        db.executemany(
            "INSERT INTO decision (name, at, sentence, evidence, who) VALUES (?, ?, ?, ?, ?)",
            [(name, now_s, d.sentence, json.dumps(d.evidence), d.by) for d in decisions],
        )

    def _rows(self, query: str, *values: str | int) -> list[Any]:
        try:
            return self._db.execute(query, values).fetchall()
        except sqlite3.Error as error:
            raise StorageError(f"cannot be read ({error})", where=str(self._path)) from None

    @contextmanager
    def _snapshot(self) -> Iterator[None]:
        """Reads that see one moment, whatever another process writes meanwhile."""
        if self._db.in_transaction:
            yield
            return
        self._rows("BEGIN")
        try:
            yield
        finally:
            self._rows("ROLLBACK")

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


def _number(db: sqlite3.Connection, name: str) -> int:
    return int(db.execute("SELECT id FROM rollout WHERE name = ?", (name,)).fetchone()[0])


def _header(state: RolloutState) -> bytes:
    """The state without what has a place of its own: the devices, and the waves, which never change."""
    return state.model_dump_json(exclude={"devices", "waves"}).encode()
