"""Devices' data sketches in the hub's store: kept for two months, in ever longer spans, some 30 kB a device.

A change of a device's data is found by comparing what came before it with what came since (`retraining/triggers`),
for which the recent past is needed sketch by sketch, and the distant one as a sum. So the last hours are kept as
they came, the last days by the hour, and what is older by the day. By the hub's clock, as all it keeps.
"""

from __future__ import annotations

import itertools
import operator
import sqlite3
import struct
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgewright.telemetry.sketch import ChannelSketch, DataSketch, Moments, merged

Array = NDArray[Any]
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
_ALL = "SELECT device, at, release, data FROM sketch ORDER BY device, at, sequence"
_ONE = "SELECT device, at, release, data FROM sketch WHERE device = ? ORDER BY at, sequence"
_HEADER = struct.Struct("<IBBB")


@dataclass(frozen=True, slots=True)
class KeptSketch:
    """A device's data up to `at_s`, Unix seconds by the hub's clock."""

    at_s: float
    release: str
    sketch: DataSketch


@dataclass(frozen=True)
class Columns:
    """A device's sketches on the release that it runs, by time: a row each."""

    release: str
    at_s: Array
    samples: Array
    classes: Array
    confidence: Array
    inputs: tuple[tuple[str, int], ...]
    """Name and channels of each input, in the order of `moments`."""
    moments: Array
    """[sketch, channel, four]: mean and deviation of the level, mean and deviation of the spread."""


def columns(rows: Sequence[tuple[float, str, bytes]]) -> Columns:
    """(Time, release, bytes) by time: of the newest, and those before it on its release and of its figures."""
    release, newest = rows[-1][1:]
    first = len(rows) - 1
    while first > 0 and rows[first - 1][1] == release and len(rows[first - 1][2]) == len(newest):
        first -= 1
    _, classes, bins, inputs = _HEADER.unpack_from(newest)
    counts_end = _HEADER.size + 4 * (classes + bins)
    data = np.frombuffer(b"".join(row[2] for row in rows[first:]), np.uint8).reshape(-1, len(newest))
    # What is no figure is the same in all: how many classes, bins and inputs, and the inputs' names.
    fixed = [np.arange(4, _HEADER.size)]
    named, figures, at = [], [], counts_end
    for _ in range(inputs):
        length, channels = newest[at : at + 2]
        begins = at + 2 + length
        named.append((newest[at + 2 : begins].decode(errors="replace"), channels))
        fixed.append(np.arange(at, begins))
        at = begins + 16 * channels
        figures.append(data[:, begins:at])
    alike = (data[:, np.concatenate(fixed)] == data[-1, np.concatenate(fixed)]).all(axis=1)
    start = len(alike) - int(alike[::-1].argmin()) if not alike.all() else 0
    counts = _numbers(data[start:, _HEADER.size : counts_end], "<u4")
    moments = _numbers(np.concatenate(figures, axis=1)[start:] if figures else data[start:, :0], "<f4")
    return Columns(
        release=release,
        at_s=np.array([row[0] for row in rows[first + start :]]),
        samples=_numbers(data[start:, :4], "<u4")[:, 0],
        classes=counts[:, :classes],
        confidence=counts[:, classes:],
        inputs=tuple(named),
        moments=moments.reshape(len(moments), -1, 4),
    )


def _numbers(data: NDArray[np.uint8], kind: str) -> Array:
    return np.ascontiguousarray(data).view(kind).astype(float)


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
    for name, rows in _by_device(db, device):
        for at, release, data in rows:
            yield name, KeptSketch(at, release, from_bytes(data))


def read_columns(db: sqlite3.Connection, device: str | None = None) -> Iterator[tuple[str, Columns]]:
    """Every device or one, as `columns` has it. Some ten times as fast as sketch by sketch."""
    for name, rows in _by_device(db, device):
        yield name, columns(rows)


def _by_device(
    db: sqlite3.Connection, device: str | None
) -> Iterator[tuple[str, list[tuple[float, str, bytes]]]]:
    names = dict(db.execute("SELECT id, name FROM device WHERE ? IN (name, '')", (device or "",)))
    rows = db.execute(_ALL) if device is None else db.execute(_ONE, (next(iter(names), -1),))
    for number, group in itertools.groupby(rows, key=operator.itemgetter(0)):
        if number in names:
            yield names[number], [row[1:] for row in group]


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
