from __future__ import annotations

import json
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.metrics.v1.metrics_pb2 import ExponentialHistogramDataPoint, MetricsData

from edgewright.errors import DataError
from edgewright.telemetry.histogram import ExponentialHistogram
from edgewright.telemetry.names import Encoding
from edgewright.telemetry.otlp import (
    DICTIONARY,
    LARGEST,
    from_bytes,
    key_values,
    read_attributes,
    read_histogram,
    to_bytes,
)
from edgewright.telemetry.window import decode_otlp

encodings = st.sampled_from(["protobuf", "json"])
attributes = st.dictionaries(st.text(max_size=9), st.text(max_size=9) | st.booleans(), max_size=4)
histograms = st.builds(
    ExponentialHistogram,
    scale=st.integers(-10, 20),
    zero_count=st.integers(0, 2**40),
    buckets=st.dictionaries(st.integers(-900, 900), st.integers(1, 2**40), max_size=9),
    total=st.floats(0, 1e9),
)


def message(about: dict[str, str | bool], histogram: ExponentialHistogram) -> MetricsData:
    data = MetricsData()
    part = data.resource_metrics.add()
    part.resource.attributes.extend(key_values(about))
    metric = part.scope_metrics.add().metrics.add(name="m")
    metric.exponential_histogram.aggregation_temporality = 1
    point = metric.exponential_histogram.data_points.add(
        time_unix_nano=2**62,
        scale=histogram.scale,
        count=histogram.count,
        zero_count=histogram.zero_count,
        sum=histogram.total,
    )
    if histogram.buckets:
        low, high = min(histogram.buckets), max(histogram.buckets)
        point.positive.offset = low
        point.positive.bucket_counts.extend(histogram.buckets.get(i, 0) for i in range(low, high + 1))
    return data


@given(encodings, attributes, histograms)
def test_what_is_written_is_read_back(
    encoding: Encoding, about: dict[str, str | bool], histogram: ExponentialHistogram
) -> None:
    written = message(about, histogram)
    read = from_bytes(to_bytes(written, encoding))
    assert read == written
    (part,) = read.resource_metrics
    assert read_attributes(part.resource.attributes) == about
    (point,) = part.scope_metrics[0].metrics[0].exponential_histogram.data_points
    assert read_histogram(point) == histogram
    assert point.count == histogram.count


def test_bare_protobuf_and_plain_zlib_of_other_senders_are_read_too() -> None:
    written = message({"a": "b"}, ExponentialHistogram(scale=3))
    assert from_bytes(written.SerializeToString()) == written
    assert from_bytes(zlib.compress(written.SerializeToString())) == written


def test_the_dictionary_never_changes_as_payloads_lie_in_spools() -> None:
    assert zlib.adler32(DICTIONARY) == 0xE1099397


def test_json_is_as_the_otlp_specification_writes_it() -> None:
    document = json.loads(to_bytes(message({}, ExponentialHistogram(scale=3, buckets={-4: 7})), "json"))
    metric = document["resourceMetrics"][0]["scopeMetrics"][0]["metrics"][0]
    histogram = metric["exponentialHistogram"]
    assert histogram["aggregationTemporality"] == 1  # enumerations are numbers
    point = histogram["dataPoints"][0]
    assert (point["timeUnixNano"], point["count"]) == (str(2**62), "7")  # 64-bit integers are strings
    assert point["positive"] == {"offset": -4, "bucketCounts": ["7"]}


@settings(deadline=None)
@given(encodings, st.integers(0, 10**6), st.binary(max_size=3))
def test_a_damaged_payload_is_telemetry_or_a_data_error(
    encoding: Encoding, place: int, change: bytes
) -> None:
    payload = to_bytes(message({"a": "b"}, ExponentialHistogram(scale=3, buckets={-4: 7, 9: 1})), encoding)
    place %= len(payload)
    try:
        decode_otlp(payload[:place] + change + payload[place + len(change) :])
    except DataError as error:
        assert "\n" not in str(error)


@pytest.mark.parametrize(
    "payload",
    [
        b"{",
        b"{}}",
        b'{"resourceMetrics": 3}',
        b'{"resourceMetrics": [{"scopeMetrics": [{"metrics": [{"sum": {"dataPoints": [{"asInt": "x"}]}}]}]}]}',
        b'{"resourceMetrics":' + b"[" * 100_000,
        b'{"\xff": 1}',
        b"x",
        b"x\x9c",
        zlib.compress(b"no protobuf"),
        zlib.compress(bytes(LARGEST + 1)),
    ],
)
def test_what_is_no_telemetry_is_a_data_error_in_one_line(payload: bytes) -> None:
    with pytest.raises(DataError) as caught:
        decode_otlp(payload)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


@given(histograms, st.integers(2, 200))
def test_a_fitted_histogram_holds_every_value_in_few_buckets(
    histogram: ExponentialHistogram, most: int
) -> None:
    # Ten steps are coarse enough for every float; a scale below -10 is no valid one.
    histogram = histogram.model_copy(update={"scale": max(histogram.scale, 2)})
    fitted = histogram.fitted(most)
    assert fitted.count == histogram.count
    if fitted.buckets:
        assert max(fitted.buckets) - min(fitted.buckets) < most
    if fitted.scale < histogram.scale:  # one step finer would not have done
        finer = histogram.rescaled(fitted.scale + 1)
        assert max(finer.buckets) - min(finer.buckets) >= most


def test_a_point_without_buckets_is_an_empty_histogram() -> None:
    assert read_histogram(ExponentialHistogramDataPoint(scale=3)).count == 0
