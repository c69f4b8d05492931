"""Exponential histograms as bytes: how the hub keeps one a window, in memory and in its store.

A header (scale, zero count, sum, first bucket), then the counts as 32-bit integers: 4 bytes a bucket, written and
read at the speed of a copy.
"""

from __future__ import annotations

import struct
from array import array

from edgewright.telemetry.histogram import ExponentialHistogram
from edgewright.telemetry.reading import Durations

_HEADER = struct.Struct("<bQdi")


def to_bytes(durations: Durations) -> bytes:
    """Durations as bytes. Raises `OverflowError` for a count that no device reaches in a window."""
    header = _HEADER.pack(durations.scale, durations.zero_count, durations.total, durations.offset)
    return header + array("I", durations.counts).tobytes()


def from_bytes(data: bytes) -> ExponentialHistogram:
    """What `to_bytes` wrote."""
    scale, zeros, total, offset = _HEADER.unpack_from(data)
    counts = array("I")
    counts.frombytes(data[_HEADER.size :])
    return Durations(scale, zeros, offset, tuple(counts), total, zeros + sum(counts)).histogram()
