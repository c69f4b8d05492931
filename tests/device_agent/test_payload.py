"""What the agent writes is read as what the SDK's own encoder writes, in fewer bytes."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
from opentelemetry.proto.metrics.v1.metrics_pb2 import MetricsData

from edgewright.telemetry import names
from edgewright.telemetry.otlp import from_bytes, key_values
from edgewright.telemetry.window import decode_otlp
from edgewright.twin import ReleaseReference
from edgewright_agent.exporter import MAX_BUCKETS, SCALE, Exporter, model_attributes
from edgewright_agent.payload import FINEST

MODELS = [
    model_attributes(ReleaseReference(name="net", version=version, digest="sha256:" + version * 64))
    for version in "12"
]
WHO = {"fleet": "plant", "device": "line-3", "profile": "p", "boot": "b0"}
RESOURCE = {names.FLEET: "plant", names.DEVICE: "line-3", names.PROFILE: "p", names.BOOT: "b0"}
DURATIONS = st.one_of(st.just(0.0), st.floats(1e-9, 1e5), st.integers(-30, 10).map(lambda n: 2.0**n))
INFERENCES = st.lists(
    st.tuples(
        st.sampled_from(MODELS), st.booleans(), DURATIONS, DURATIONS | st.none(), DURATIONS | st.none()
    ),
    max_size=60,
)
ERRORS = st.lists(st.tuples(st.sampled_from(MODELS), st.sampled_from([ValueError(), OSError()])), max_size=4)
ENERGY = st.integers(0, 1000) | st.floats(0, 1e6)


def recorded(inferences: list[Any], errors: list[Any], energy_j: float) -> Exporter:
    exporter = Exporter(**WHO)
    for model, throttled, run_s, queue_s, before_s in inferences:
        exporter.set_throttled(throttled)
        exporter.record(model, run_s, queue_s=queue_s, preprocessing_s=before_s)
    for model, error in errors:
        exporter.record_error(model, error)
    exporter.record_energy(energy_j, "rapl package")
    exporter.set(names.TEMPERATURE, "Cel", 51.5, {names.SENSOR: "cpu"})
    exporter.set(names.PROCESS_MEMORY, "By", 80_000_000)
    return exporter


def by_the_sdk(exporter: Exporter) -> bytes:
    exporter.set(names.REPORT_SEQUENCE, "{report}", 0)
    exporter.drain()
    data = vars(exporter)["_reader"].get_metrics_data()
    message = MetricsData.FromString(encode_metrics(data).SerializeToString())
    message.resource_metrics[0].resource.attributes.extend(key_values(RESOURCE))
    for metric in message.resource_metrics[0].scope_metrics[0].metrics:
        for point in metric.exponential_histogram.data_points:
            if point.count == point.zero_count:  # nothing but noughts, which the SDK says at the scale of 1 s
                point.scale = FINEST
    payload: bytes = message.SerializeToString()
    return payload


def said(payload: bytes) -> dict[str, Any]:
    windows = decode_otlp(payload)
    return {window.release: window.model_dump(exclude={"start_ns", "end_ns"}) for window in windows}


@settings(deadline=None, max_examples=200)
@given(INFERENCES, ERRORS, ENERGY)
def test_what_is_written_is_read_as_what_the_sdks_own_encoder_writes(
    inferences: list[Any], errors: list[Any], energy_j: float
) -> None:
    ours = recorded(inferences, errors, energy_j).collect()
    theirs = by_the_sdk(recorded(inferences, errors, energy_j))
    assert said(ours) == said(theirs)
    assert len(said(ours)) == len({one[0] for one in (*inferences, *errors)})


@settings(deadline=None)
@given(INFERENCES)
def test_every_metric_stands_once_in_its_scope_and_no_room_is_sent(inferences: list[Any]) -> None:
    (resource,) = from_bytes(recorded(inferences, [], 1).collect()).resource_metrics
    for scope in resource.scope_metrics:
        metrics = [metric.name for metric in scope.metrics]
        assert len(set(metrics)) == len(metrics)
        for metric in scope.metrics:
            for point in metric.exponential_histogram.data_points:
                counts = point.positive.bucket_counts
                assert len(counts) <= MAX_BUCKETS
                assert not counts or (counts[0] and counts[-1] and point.scale <= SCALE)
                assert not point.HasField("min") and not point.HasField("negative")
