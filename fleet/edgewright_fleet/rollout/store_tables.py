"""The tables of `RolloutStore`, the version that tells them from earlier ones, and the rows of its devices.

What a device measured is apart from its record, a row for each of its sums: a window of telemetry then costs one
short row, and a step of an update another one.
"""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import Callable
from typing import Any

from edgewright_fleet.rollout.measured import SUMS, Measured
from edgewright_fleet.rollout.records import MEASUREMENTS, RECORD, DeviceRecord, Devices, changed, sharing

VERSION = 3
SCHEMA = """
CREATE TABLE IF NOT EXISTS rollout (
  id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL UNIQUE, fleet TEXT NOT NULL, spec BLOB NOT NULL,
  waves TEXT NOT NULL, state BLOB NOT NULL, owner TEXT, lease_until REAL NOT NULL DEFAULT 0, started REAL NOT NULL
);
CREATE TABLE IF NOT EXISTS device (
  rollout INTEGER NOT NULL, name TEXT NOT NULL, record BLOB NOT NULL, PRIMARY KEY (rollout, name)
);
CREATE TABLE IF NOT EXISTS measured (
  rollout INTEGER NOT NULL, name TEXT NOT NULL, field TEXT NOT NULL, sums BLOB NOT NULL,
  PRIMARY KEY (rollout, name, field)
);
CREATE TABLE IF NOT EXISTS request (
  id INTEGER PRIMARY KEY AUTOINCREMENT, rollout INTEGER NOT NULL, at REAL NOT NULL, kind TEXT NOT NULL,
  who TEXT NOT NULL, why TEXT, taken INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE IF NOT EXISTS decision (
  id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL, at REAL NOT NULL, sentence TEXT NOT NULL,
  evidence TEXT NOT NULL, who TEXT
);
CREATE TRIGGER IF NOT EXISTS decisions_are_kept BEFORE UPDATE ON decision
  BEGIN SELECT RAISE(ABORT, 'the log is append-only'); END;
CREATE TRIGGER IF NOT EXISTS decisions_are_not_lost BEFORE DELETE ON decision
  BEGIN SELECT RAISE(ABORT, 'the log is append-only'); END;
"""
_APART = set(MEASUREMENTS)


def put_devices(db: sqlite3.Connection, rollout: int, devices: Devices) -> None:
    """Write what is not stored yet."""
    # In the order of the file, as neighbours share a page; and in place, so that the index stays as it is.
    db.executemany(
        "INSERT INTO device VALUES (?, ?, ?) ON CONFLICT (rollout, name) DO UPDATE SET record = excluded.record",
        (
            (rollout, name, RECORD.dump_json(devices[name], exclude_none=True, exclude=_APART))
            for name in sorted(devices.unsaved)
        ),
    )
    db.executemany(
        "INSERT INTO measured VALUES (?, ?, ?, ?) "
        "ON CONFLICT (rollout, name, field) DO UPDATE SET sums = excluded.sums",
        (
            (rollout, name, field, SUMS.dump_json(getattr(devices[name], field), exclude_none=True))
            for name, field in sorted(devices.unsaved_sums)
        ),
    )


def read_devices(rows: Callable[..., list[Any]], rollout: int) -> Devices:
    """All devices of a rollout; `rows` answers a query. Raises pydantic's `ValidationError`."""
    sums: dict[str, dict[str, Measured | None]] = {}
    for name, field, data in rows("SELECT name, field, sums FROM measured WHERE rollout = ?", rollout):
        sums.setdefault(name, {})[field] = SUMS.validate_json(data)
    found: dict[str, DeviceRecord] = {
        sys.intern(name): sharing(changed(RECORD.validate_json(record), **sums.get(name, {})))
        for name, record in rows("SELECT name, record FROM device WHERE rollout = ?", rollout)
    }
    return Devices.of(found).saved()
