"""Exponential histograms as bytes: how the hub keeps one a window, in memory and in its store.

A header (scale, zero count, sum), then the indices as 32-bit and the counts as 32-bit integers: 8 bytes a
bucket however far apart the buckets lie, written and read at the speed of a copy.
"""

from __future__ import annotations

import struct
from array import array

from edgewright.telemetry.histogram import ExponentialHistogram

_HEADER = struct.Struct("<bQd")


def to_bytes(histogram: ExponentialHistogram) -> bytes:
    """A histogram as bytes. Raises `OverflowError` or `struct.error` for one that no device measures."""
    header = _HEADER.pack(histogram.scale, histogram.zero_count, histogram.total)
    buckets = histogram.buckets
    return header + array("i", buckets.keys()).tobytes() + array("I", buckets.values()).tobytes()


def from_bytes(data: bytes) -> ExponentialHistogram:
    """What `to_bytes` wrote."""
    scale, zeros, total = _HEADER.unpack_from(data)
    half = (len(data) - _HEADER.size) // 2
    indices, counts = array("i"), array("I")
    indices.frombytes(data[_HEADER.size : _HEADER.size + half])
    counts.frombytes(data[_HEADER.size + half :])
    buckets = dict(zip(indices, counts, strict=True))
    return ExponentialHistogram.model_construct(scale=scale, zero_count=zeros, buckets=buckets, total=total)
