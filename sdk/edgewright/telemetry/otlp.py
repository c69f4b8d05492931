"""OTLP metrics as bytes and back: the protobuf and the JSON encoding, attributes, and what a data point holds.

What the metrics mean is `window.py`; here is only how OTLP writes them. A payload says by its first byte which
encoding it is, as neither `{` nor `x` can open a protobuf `MetricsData`: `{` is JSON (64-bit integers are strings,
enumerations numbers: OpenTelemetry protocol specification 1.x, "JSON Protobuf Encoding"), `x` is protobuf in the
zlib format (RFC 1950), and anything else is bare protobuf, as other senders write it. A device sends protobuf
deflated with `DICTIONARY`: 1.4 kB become 0.7 kB, of which a fleet pays for every one each minute.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable, Mapping
from typing import Any

from google.protobuf.message import DecodeError
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.metrics.v1.metrics_pb2 import (
    ExponentialHistogramDataPoint,
    MetricsData,
    NumberDataPoint,
)

from edgewright.errors import DataError
from edgewright.telemetry.histogram import ExponentialHistogram
from edgewright.telemetry.names import Encoding

Value = str | bool
Attributes = Mapping[str, Value]

DICTIONARY = (
    b"postprocessing queue {inference}{error}{report}By1rad/s V W edgewright.drift.samples edgewright.drift.sketch"
    b'{"classes":[0,0,0,0],"confidence":[0,0,0,0],"inputs":{"x":[{"level":{"mean":0.1,"std":0.1},"spread":{"mean":0.'
    b'1}}]},"samples":1200}'
    b"edgewright.drift.figure class_psi class_distance confidence_psi input_shift"
    b"edgewright.energy.estimated.above_idle edgewright.throttled.time "
    b"system.cpu.frequency Hz cpu.logical_number 0"
    b"system.filesystem.utilization system.memory.linux.available process.memory.usage process.cpu.time"
    b"Cel hw.temperature hw.power ina3221 VDD_IN rapl package pmic rails "
    b"edgewright.sensor.period edgewright.power.idle"
    b"edgewright.energy.uncertainty edgewright.energy.above_idle.uncertainty hw.energy hw.id error.type "
    b"edgewright.report.dropped edgewright.inference.errors edgewright.throttled preprocessing run "
    b"edgewright.stage edgewright.inference.duration edgewright.report.sequence edgewright.release.digest sha256:"
    b"edgewright.model.version edgewright.model.name service.instance.id edgewright.profile host.name "
    b"edgewright.fleet edgewright-agent service.name"
)
"""Text that payloads are full of, for zlib to refer back to, the likeliest last (RFC 1950, FDICT). It is part of
the contract: payloads lie in spools for weeks, so that it never changes."""
LARGEST = 1 << 22
"""Bytes that a payload may have once inflated; a device's has some thousand, and a bomb has no end."""


def to_bytes(message: MetricsData, encoding: Encoding) -> bytes:
    """One payload."""
    if encoding == "protobuf":
        deflate = zlib.compressobj(9, zdict=DICTIONARY)
        return deflate.compress(message.SerializeToString()) + deflate.flush()
    from google.protobuf import json_format  # 1.5 MB of memory, which a device that sends protobuf saves

    document = json_format.MessageToDict(message, use_integers_for_enums=True)
    return json.dumps(document, separators=(",", ":")).encode()


def from_bytes(payload: bytes) -> MetricsData:
    """The message in a payload of either encoding. Raises `DataError` for anything else."""
    try:
        if payload[:1] == b"{":
            return _from_json(payload)
        message = MetricsData()
        message.ParseFromString(protobuf_in(payload))
        return message
    # json_format lets errors of the json module, of UTF-8 and of deep nesting through.
    except (DecodeError, zlib.error, ValueError, TypeError, RecursionError) as error:
        problem = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"a telemetry payload cannot be read ({problem})") from None


def _from_json(payload: bytes) -> MetricsData:
    from google.protobuf import json_format  # see above

    message = MetricsData()
    try:
        json_format.Parse(payload, message, ignore_unknown_fields=True)
    except json_format.ParseError as error:
        raise ValueError(str(error)) from None
    return message


def protobuf_in(payload: bytes) -> bytes:
    """The protobuf message in a payload that is not JSON, as bytes. Raises `zlib.error` or `ValueError`."""
    if payload[:1] != b"x":
        return payload
    has_dictionary = len(payload) > 1 and payload[1] & 0x20  # FDICT
    inflate = zlib.decompressobj(zdict=DICTIONARY) if has_dictionary else zlib.decompressobj()
    data = inflate.decompress(payload, LARGEST)
    if not inflate.eof:
        raise ValueError("it is cut short or too large")
    return data


def key_values(attributes: Attributes) -> list[KeyValue]:
    """Attributes as OTLP has them."""
    return [
        KeyValue(
            key=key,
            value=AnyValue(bool_value=value) if isinstance(value, bool) else AnyValue(string_value=value),
        )
        for key, value in attributes.items()
    ]


def read_attributes(pairs: Iterable[Any]) -> dict[str, Value]:
    """Attributes whose value is a text or a truth value; others are not ours."""
    found: dict[str, Value] = {}
    for pair in pairs:
        value = pair.value
        # Text that is not empty needs no question which kind it is, and is nearly all there is.
        if text := value.string_value:
            found[pair.key] = text
        elif (kind := value.WhichOneof("value")) in ("string_value", "bool_value"):
            found[pair.key] = getattr(value, kind)
    return found


def read_number(point: NumberDataPoint) -> float:
    """The value of a data point of a counter or gauge, whichever of its two forms it has."""
    return point.as_int if point.WhichOneof("value") == "as_int" else point.as_double


def read_histogram(point: ExponentialHistogramDataPoint) -> ExponentialHistogram:
    """The values of a data point. Raises pydantic's `ValidationError`."""
    offset = point.positive.offset
    return ExponentialHistogram(
        scale=point.scale,
        zero_count=point.zero_count,
        buckets={offset + i: int(n) for i, n in enumerate(point.positive.bucket_counts) if n},
        total=point.sum,
    )
