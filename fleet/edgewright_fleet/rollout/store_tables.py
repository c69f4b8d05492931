"""The tables of `RolloutStore`, and the version that tells them from earlier ones."""

from __future__ import annotations

VERSION = 2
SCHEMA = """
CREATE TABLE IF NOT EXISTS rollout (
  id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL UNIQUE, fleet TEXT NOT NULL, spec BLOB NOT NULL,
  waves TEXT NOT NULL, state BLOB NOT NULL, owner TEXT, lease_until REAL NOT NULL DEFAULT 0, started REAL NOT NULL
);
CREATE TABLE IF NOT EXISTS device (
  rollout INTEGER NOT NULL, name TEXT NOT NULL, record BLOB NOT NULL, PRIMARY KEY (rollout, name)
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
