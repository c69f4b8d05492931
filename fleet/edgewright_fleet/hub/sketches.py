"""Devices' data sketches in the hub's store: kept for two months, in ever longer spans, some 30 kB a device.

A change of a device's data is found by comparing what came before it with what came since (`retraining/triggers`),
for which the recent past is needed sketch by sketch, and the distant one as a sum. So the last hours are kept as
they came, the last days by the hour, and what is older by the day. By the hub's clock, as all it keeps.
"""

from __future__ import annotations

import sqlite3
import struct
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from edgewright.telemetry.sketch import ChannelSketch, DataSketch, Moments, merged

SCHEMA = """
CREATE TABLE IF NOT EXISTS sketch (
  device INTEGER NOT NULL, at REAL NOT NULL, sequence INTEGER NOT NULL, release TEXT NOT NULL,
  span INTEGER NOT NULL, data BLOB NOT NULL, PRIMARY KEY (device, at, sequence, release)
) WITHOUT ROWID;
"""
HOUR_S, DAY_S = 3600, 86400
SPANS = ((HOUR_S, 3 * HOUR_S), (DAY_S, 2 * DAY_S))
"""(Length of a merged span, age from which sketches are merged to it), in seconds."""
KEPT_S = 60 * DAY_S
"""After which a day is forgotten."""
TURNS = 60
"""A call merges one in so many devices, so that no minute has the work of an hour."""
MOST = 1e35
"""Of a moment; a device cuts its elements off at 1e30."""
MOST_BYTES = 8192
"""Of a sketch; a hundred inputs fit."""
_ALL = "SELECT name, at, sketch.release, data FROM sketch JOIN device ON id = device ORDER BY device, at, sequence"
_ONE = (
    "SELECT name, at, sketch.release, data FROM sketch JOIN device ON id = device WHERE name = ? "
    "ORDER BY at, sequence"
)
_HEADER = struct.Struct("<IBBB")


@dataclass(frozen=True, slots=True)
class KeptSketch:
    """A device's data up to `at_s`, Unix seconds by the hub's clock."""

    at_s: float
    release: str
    sketch: DataSketch


def to_bytes(sketch: DataSketch) -> bytes:
    """A sketch in about 200 bytes; moments with seven digits, as the device wrote them.

    Raises `OverflowError`, `ValueError` or `struct.error` for what no device sketches.
    """
    parts = [_HEADER.pack(sketch.samples, len(sketch.classes), len(sketch.confidence), len(sketch.inputs))]
    parts.append(array("I", (*sketch.classes, *sketch.confidence)).tobytes())
    for name, channels in sketch.inputs.items():
        said = name.encode()[:255]
        parts += [bytes((len(said), len(channels))), said]
        moments = [x for c in channels for x in (c.level.mean, c.level.std, c.spread.mean, c.spread.std)]
        if any(abs(x) > MOST for x in moments):
            raise OverflowError("a moment is too great")
        parts.append(array("f", moments).tobytes())
    data = b"".join(parts)
    if len(data) > MOST_BYTES:
        raise OverflowError("a sketch is too large")
    return data


def from_bytes(data: bytes) -> DataSketch:
    """What `to_bytes` wrote."""
    samples, classes, bins, inputs = _HEADER.unpack_from(data)
    counts = array("I")
    at = _HEADER.size + 4 * (classes + bins)
    counts.frombytes(data[_HEADER.size : at])
    found: dict[str, tuple[ChannelSketch, ...]] = {}
    for _ in range(inputs):
        length, channels = data[at : at + 2]
        name, at = data[at + 2 : at + 2 + length].decode(errors="replace"), at + 2 + length
        moments = array("f")
        moments.frombytes(data[at : at + 16 * channels])
        at += 16 * channels
        found[name] = tuple(_channel(*moments[i : i + 4]) for i in range(0, 4 * channels, 4))
    # Not validated again: it was when it arrived.
    return DataSketch.model_construct(
        samples=samples, classes=tuple(counts[:classes]), confidence=tuple(counts[classes:]), inputs=found
    )


def insert(db: sqlite3.Connection, rows: Sequence[tuple[object, ...]]) -> None:
    """Sketches as they came: (device, time, sequence, release, bytes)."""
    db.executemany("INSERT OR IGNORE INTO sketch VALUES (?, ?, ?, ?, 0, ?)", rows)


def thin(db: sqlite3.Connection, now_s: float, *, every_device: bool = False) -> None:
    """Merge what is old and forget what is oldest, of the devices whose turn it is. In a transaction."""
    turn = int(now_s // 60) % TURNS
    chosen = db.execute("SELECT id FROM device WHERE ? OR id % ? = ?", (every_device, TURNS, turn))
    for (device,) in chosen.fetchall():
        db.execute("DELETE FROM sketch WHERE device = ? AND at < ?", (device, now_s - KEPT_S))
        for span, age_s in SPANS:
            _merge(db, device, span, (now_s - age_s) // span * span)


def read(db: sqlite3.Connection, device: str | None = None) -> Iterator[tuple[str, KeptSketch]]:
    """(Device, sketch) of every device or one, by device and time."""
    rows = db.execute(_ALL if device is None else _ONE, () if device is None else (device,))
    for name, at, release, data in rows:
        yield name, KeptSketch(at, release, from_bytes(data))


def _merge(db: sqlite3.Connection, device: int, span: int, before_s: float) -> None:
    rows = db.execute(
        "SELECT at, sequence, release, data FROM sketch WHERE device = ? AND at < ? AND span < ? ORDER BY at",
        (device, before_s, span),
    ).fetchall()
    spans: dict[object, tuple[float, int, str, DataSketch]] = {}
    for at, sequence, release, data in rows:
        sketch = from_bytes(data)
        shape = tuple((name, len(channels)) for name, channels in sketch.inputs.items())
        key = (release, at // span, len(sketch.classes), len(sketch.confidence), shape)
        if key in spans:
            sketch = merged(spans[key][3], sketch)
        spans[key] = (at, sequence, release, sketch)
    if rows:
        db.execute("DELETE FROM sketch WHERE device = ? AND at < ? AND span < ?", (device, before_s, span))
        db.executemany(
            "INSERT OR IGNORE INTO sketch VALUES (?, ?, ?, ?, ?, ?)",
            [
                (device, at, sequence, release, span, to_bytes(s))
                for at, sequence, release, s in spans.values()
            ],
        )


def _channel(level: float, level_std: float, spread: float, spread_std: float) -> ChannelSketch:
    return ChannelSketch.model_construct(
        level=Moments.model_construct(mean=level, std=level_std),
        spread=Moments.model_construct(mean=spread, std=spread_std),
    )
