"""`HubStore`: recent windows, events and devices in one SQLite file with a write-ahead log, and their
retention.

SQLite and not DuckDB: the hub writes a few rows many times a second and reads one device at a time, which is
what row storage is for, pages read while it writes, a commit of twenty rows costs microseconds of processor
time, and it is in Python, where DuckDB is 60 MB more on a small machine. What is asked of the whole fleet
never scans the file: it is merged as it arrives (`groups.py`).

A window is named by (device, boot, sequence, release), which is the key of its table, so that what a broker
delivers twice is there once, also after a crash. `synchronous=NORMAL`: a power cut may cost the last commits,
and never the file.
"""

from __future__ import annotations

import sqlite3
import threading
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from edgewright.errors import StorageError
from edgewright.telemetry.sequences import Ranges, received
from edgewright_fleet.hub import sketches
from edgewright_fleet.hub.sketches import Columns, KeptSketch
from edgewright_fleet.hub.view import Change, Device, DeviceChanged, DeviceForgotten, NewWindow

_SCHEMA = """
CREATE TABLE IF NOT EXISTS hub (id TEXT NOT NULL, fleet TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS device (
  id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, profile TEXT NOT NULL, release TEXT NOT NULL,
  digest TEXT NOT NULL, online INTEGER NOT NULL, phase TEXT NOT NULL, reason TEXT NOT NULL, rollout TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS window (
  device INTEGER NOT NULL, boot TEXT NOT NULL, sequence INTEGER NOT NULL, release TEXT NOT NULL, at REAL NOT NULL,
  end REAL NOT NULL, latency BLOB NOT NULL, errors INTEGER NOT NULL, throttled INTEGER NOT NULL, energy REAL,
  temperature REAL, PRIMARY KEY (device, boot, sequence, release)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS window_at ON window (at);
CREATE TABLE IF NOT EXISTS event (
  id INTEGER PRIMARY KEY, device INTEGER NOT NULL, at REAL NOT NULL, words TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS event_device ON event (device, id);
CREATE TABLE IF NOT EXISTS label (
  device INTEGER NOT NULL, name TEXT NOT NULL, value TEXT NOT NULL, PRIMARY KEY (device, name)
) WITHOUT ROWID;
"""
CHUNK = 5000
"""Rows that one transaction removes, so that retention never holds up what arrives for long."""


@dataclass(frozen=True, slots=True)
class KeptWindow:
    """A window of a device as the store has it; the times are Unix seconds, `end_s` by the device's clock."""

    at_s: float
    end_s: float
    release: str
    latency: bytes
    errors: int
    throttled: int
    energy_per_inference_j: float | None
    temperature_c: float | None


@dataclass(frozen=True, slots=True)
class KeptEvent:
    """Something that a device reported."""

    at_s: float
    words: str


class HubStore:
    """The store at `path`, for any thread; `read_only` opens one that another process or thread writes.

    Without a `fleet`, for reading alone, it is of whichever fleet it says.

    Raises `StorageError`.
    """

    def __init__(self, path: Path, fleet: str | None, *, read_only: bool = False) -> None:
        self._path = path
        self._lock = threading.RLock()
        if read_only and not path.is_file():
            raise StorageError(
                "does not exist", where=str(path), remedy="'edgewright fleet hub --store ...' keeps one"
            )
        try:
            if read_only:
                address = f"{path.absolute().as_uri()}?mode=ro"
                self._db = sqlite3.connect(address, uri=True, timeout=10.0, isolation_level=None)
            else:
                path.parent.mkdir(parents=True, exist_ok=True)
                self._db = sqlite3.connect(path, timeout=10.0, isolation_level=None, check_same_thread=False)
                # Before the first table, or the file could never shrink.
                self._db.execute("PRAGMA auto_vacuum=INCREMENTAL")
                self._db.execute("PRAGMA journal_mode=WAL")
                self._db.execute("PRAGMA synchronous=NORMAL")
                self._db.executescript(_SCHEMA + sketches.SCHEMA)
                if self._db.execute("SELECT 1 FROM hub").fetchone() is None:
                    self._db.execute("INSERT INTO hub VALUES (?, ?)", (uuid.uuid4().hex[:12], fleet))
            self.id, self.fleet = self._db.execute("SELECT id, fleet FROM hub").fetchone()
            # What whoever writes must know; pages open the store again and again to read.
            self._ids, self._labelled = dict[str, int](), set[int]()
            if not read_only:
                self._ids = dict(self._db.execute("SELECT name, id FROM device"))
                self._labelled = {n for (n,) in self._db.execute("SELECT DISTINCT device FROM label")}
        except (sqlite3.Error, OSError) as error:
            raise StorageError(f"is not a hub's store that can be used ({error})", where=str(path)) from None
        if fleet is not None and self.fleet != fleet:
            self._db.close()
            raise StorageError(f"is the store of fleet '{self.fleet}', not of '{fleet}'", where=str(path))

    def keep(self, changes: Sequence[Change]) -> None:
        """All the changes in one transaction; a window that is there already is left as it is."""
        with self._errors(), self._db:
            self._db.execute("BEGIN IMMEDIATE")
            windows, sketched, told = [], list[tuple[object, ...]](), list[DeviceChanged]()
            for change in changes:
                if isinstance(change, NewWindow):
                    windows.append(row := self._row(change))
                    if change.sketch is not None:
                        sketched.append((row[0], change.at_s, *row[2:4], change.sketch))
                elif isinstance(change, DeviceChanged):
                    told.append(change)
                else:
                    self._keep_devices(told)
                    told.clear()
                    self._forget(change)
            self._keep_devices(told)
            self._db.executemany(
                "INSERT OR IGNORE INTO window VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", windows
            )
            sketches.insert(self._db, sketched)

    def devices(self) -> list[Device]:
        """Every device as it was last kept."""
        with self._errors():
            rows = self._db.execute(
                "SELECT name, profile, release, digest, online, phase, reason, rollout FROM device"
            ).fetchall()
            labels: dict[str, list[tuple[str, str]]] = {}
            for device, name, value in self._db.execute(
                "SELECT device.name, label.name, value FROM label JOIN device ON device.id = device ORDER BY 1, 2"
            ):
                labels.setdefault(device, []).append((name, value))
        return [
            Device(n, p, r, d, bool(online), phase, reason, rollout, labels=tuple(labels.get(n, ())))
            for n, p, r, d, online, phase, reason, rollout in rows
        ]

    def seen(self, device: str, boot: str) -> Ranges:
        """The sequences of a boot that are kept."""
        ranges: Ranges = ()
        if (number := self._ids.get(device)) is not None:
            with self._errors():
                rows = self._db.execute(
                    "SELECT sequence FROM window WHERE device = ? AND boot = ? ORDER BY sequence",
                    (number, boot),
                )
                for (sequence,) in rows:
                    ranges = received(ranges, sequence)
        return ranges

    def windows(self, device: str, since_s: float, limit: int = 3000) -> list[KeptWindow]:
        """The newest windows of a device that arrived since then, oldest first."""
        with self._errors():
            rows = self._db.execute(
                "SELECT at, end, window.release, latency, errors, throttled, energy, temperature FROM window "
                "JOIN device ON device.id = window.device WHERE name = ? AND at >= ? ORDER BY at DESC LIMIT ?",
                (device, since_s, limit),
            ).fetchall()
        return [KeptWindow(*row) for row in reversed(rows)]

    def events(self, device: str, limit: int = 100) -> list[KeptEvent]:
        """What a device reported, newest first."""
        with self._errors():
            rows = self._db.execute(
                "SELECT at, words FROM event WHERE device = (SELECT id FROM device WHERE name = ?) "
                "ORDER BY id DESC LIMIT ?",
                (device, limit),
            ).fetchall()
        return [KeptEvent(*row) for row in rows]

    def sketches(self, device: str | None = None) -> Iterator[tuple[str, KeptSketch]]:
        """(Device, sketch) of every device or one, by device and time."""
        with self._errors():
            yield from sketches.read(self._db, device)

    def sketch_columns(self, device: str | None = None) -> Iterator[tuple[str, Columns]]:
        """(Device, its sketches on the release that it runs) of every device or one."""
        with self._errors():
            yield from sketches.read_columns(self._db, device)

    def thin_sketches(self, now_s: float, *, every_device: bool = False) -> None:
        """Merge old sketches; to be called every minute, each time for some of the devices."""
        with self._errors(), self._db:
            self._db.execute("BEGIN IMMEDIATE")
            sketches.thin(self._db, now_s, every_device=every_device)

    def retain(self, oldest_s: float, max_bytes: int) -> int:
        """Remove what arrived before `oldest_s`, and the oldest beyond `max_bytes`; gives how many went."""
        removed = self._remove_before(oldest_s)
        while self.size() > max_bytes:
            with self._errors():
                row = self._db.execute(
                    "SELECT at FROM window ORDER BY at LIMIT 1 OFFSET ?", (CHUNK,)
                ).fetchone()
            gone = self._remove_before(row[0] if row else float("inf"))
            removed += gone
            if not gone and not self._remove_sketches():
                break
        return removed

    def size(self) -> int:
        """Bytes of the file that hold something; what was removed is given back to the disk."""
        with self._errors():
            ask = self._db.execute
            pages, free = (ask(f"PRAGMA {p}").fetchone()[0] for p in ("page_count", "freelist_count"))
            return int((pages - free) * ask("PRAGMA page_size").fetchone()[0])

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def _remove_before(self, at_s: float) -> int:
        removed, gone = 0, 1
        with self._errors():
            while gone:
                with self._db:
                    self._db.execute("BEGIN IMMEDIATE")
                    gone = self._db.execute(
                        "DELETE FROM window WHERE (device, boot, sequence, release) IN (SELECT device, boot, "
                        "sequence, release FROM window WHERE at < ? ORDER BY at LIMIT ?)",
                        (at_s, CHUNK),
                    ).rowcount
                removed += gone
            self._db.execute("DELETE FROM event WHERE at < ?", (at_s,))
            if removed:
                # As a script, since a statement without columns is stepped once, which frees one page.
                self._db.executescript("PRAGMA incremental_vacuum")
                # Only a checkpoint makes the file itself shorter.
                self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        return removed

    def _remove_sketches(self) -> int:
        with self._errors(), self._db:
            self._db.execute("BEGIN IMMEDIATE")
            gone = self._db.execute(
                "DELETE FROM sketch WHERE (device, at, sequence, release) IN "
                "(SELECT device, at, sequence, release FROM sketch ORDER BY at LIMIT ?)",
                (CHUNK,),
            ).rowcount
        self._db.executescript("PRAGMA incremental_vacuum")
        return gone

    def _row(self, new: NewWindow) -> tuple[object, ...]:
        w = new.window
        return (
            self._number(new.device, w.profile), w.boot, w.sequence, f"{w.model}:{w.version}", new.at_s,
            w.end_ns / 1e9, new.latency, w.errors, w.throttled, w.energy_per_inference_j, w.temperature_c,
        )  # fmt: skip

    def _number(self, name: str, profile: str = "unknown") -> int:
        number = self._ids.get(name)
        if number is None:
            row = (name, profile)
            cursor = self._db.execute(
                "INSERT INTO device (name, profile, release, digest, online, phase, reason, rollout) "
                "VALUES (?, ?, 'nothing', '', 0, 'unknown', '', '')",
                row,
            )
            number = self._ids[name] = int(cursor.lastrowid or 0)
        return number

    def _keep_devices(self, changes: Sequence[DeviceChanged]) -> None:
        """Each device once, as it is by now, and all that happened."""
        devices = {self._number(change.device.name): change.device for change in changes}
        self._db.executemany(
            "UPDATE device SET profile=?, release=?, digest=?, online=?, phase=?, reason=?, rollout=? WHERE id=?",
            [
                (d.profile, d.release, d.digest, d.online, d.phase, d.reason, d.rollout, number)
                for number, d in devices.items()
            ],
        )
        for number, device in devices.items():
            if device.labels or number in self._labelled:
                self._labelled.add(number)
                self._db.execute("DELETE FROM label WHERE device = ?", (number,))
                rows = [(number, name, value) for name, value in device.labels]
                self._db.executemany("INSERT INTO label VALUES (?, ?, ?)", rows)
        events = [(self._ids[c.device.name], c.at_s, c.event) for c in changes if c.event is not None]
        self._db.executemany("INSERT INTO event (device, at, words) VALUES (?, ?, ?)", events)

    def _forget(self, change: DeviceForgotten) -> None:
        number = self._ids.pop(change.device, None)
        for table in ("window", "event", "sketch", "label", "device"):
            column = "id" if table == "device" else "device"
            self._db.execute(f"DELETE FROM {table} WHERE {column} = ?", (number,))  # noqa: S608

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            with self._lock:
                yield
        except sqlite3.Error as error:
            raise StorageError(f"cannot be used ({error})", where=str(self._path)) from None
