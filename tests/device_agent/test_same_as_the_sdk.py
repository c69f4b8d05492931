"""The agent records without the OpenTelemetry SDK: what it sends is what the SDK would have sent."""

from __future__ import annotations

import math

from hypothesis import assume, given, settings
from hypothesis import strategies as st
from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric

from benchmarks.agent.opentelemetry_sdk import STAGES, SdkHistograms, Stages
from edgewright.telemetry.otlp import from_bytes
from edgewright.twin import ReleaseReference
from edgewright_agent.exporter import SCALE, Exporter, model_attributes

MODEL = model_attributes(ReleaseReference(name="sorter", version="1.0.0", digest=f"sha256:{'1' * 64}"))


def on_a_bound(seconds: float) -> bool:
    """Whether rounding decides in which bucket a value falls; of powers of two none does."""
    place = math.log2(seconds) * (1 << SCALE)
    return abs(place - round(place)) < 1e-9 and math.frexp(seconds)[0] != 0.5


DURATIONS = st.one_of(st.just(0.0), st.floats(1e-9, 1e5), st.integers(-30, 10).map(lambda n: 2.0**n))


def ours(inferences: list[Stages]) -> Metric:
    exporter = Exporter(fleet="plant", device="line-3", profile="p", boot="b0")
    for run, queue, before, after in inferences:
        exporter.record(MODEL, run, queue_s=queue, preprocessing_s=before, postprocessing_s=after)
    (resource,) = from_bytes(exporter.collect()).resource_metrics
    (metric,) = (m for scope in resource.scope_metrics for m in scope.metrics if m.unit == "s")
    return metric


def the_sdks(inferences: list[Stages]) -> Metric:
    sdk = SdkHistograms()
    for stages in inferences:
        sdk.by_attribute(stages)
    (resource,) = sdk.message().resource_metrics
    ((metric,),) = (scope.metrics for scope in resource.scope_metrics)
    return metric


@settings(deadline=None, max_examples=200)
@given(st.lists(st.tuples(*[DURATIONS] * len(STAGES)), min_size=1, max_size=60))
def test_the_same_recordings_make_the_same_data_points_bucket_for_bucket(inferences: list[Stages]) -> None:
    assume(not any(seconds and on_a_bound(seconds) for stages in inferences for seconds in stages))
    one, other = ours(inferences), the_sdks(inferences)
    assert (one.name, one.unit) == (other.name, other.unit)
    one_data, other_data = one.exponential_histogram, other.exponential_histogram
    assert one_data.aggregation_temporality == other_data.aggregation_temporality
    points = {point.attributes[0].value.string_value: point for point in one_data.data_points}
    expected = {point.attributes[0].value.string_value: point for point in other_data.data_points}
    assert set(points) == set(expected) == set(STAGES)
    for stage, point in points.items():
        theirs = expected[stage]
        assert list(point.attributes) == list(theirs.attributes)
        assert (point.count, point.zero_count) == (theirs.count, theirs.zero_count)
        assert math.isclose(point.sum, theirs.sum, rel_tol=1e-9)
        assert not any((*point.negative.bucket_counts, *theirs.negative.bucket_counts))
        if (
            point.count > point.zero_count
        ):  # of nothing but noughts the SDK sends an empty bucket, at any scale
            assert point.scale == theirs.scale
            assert point.positive.offset == theirs.positive.offset
            counts, their_counts = list(point.positive.bucket_counts), list(theirs.positive.bucket_counts)
            assert counts == their_counts[: len(counts)]
            assert not any(their_counts[len(counts) :])  # the SDK sends the room that it has grown to
