from __future__ import annotations

import gc
import math
import random
import threading
import time
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgewright.telemetry.histogram import merged
from edgewright.telemetry.names import PROCESS_MEMORY, Encoding
from edgewright.telemetry.otlp import from_bytes
from edgewright.telemetry.window import TelemetryWindow, decode_otlp
from edgewright.twin import ReleaseReference
from edgewright_agent.exporter import BUFFERED, Exporter, model_attributes
from edgewright_agent.vitals import Vitals

OLD = ReleaseReference(name="sorter", version="1.0.0", digest=f"sha256:{'1' * 64}")
NEW = ReleaseReference(name="sorter", version="1.1.0", digest=f"sha256:{'2' * 64}")


@pytest.fixture
def exporter() -> Exporter:
    return Exporter(fleet="plant", device="line-3", profile="x86-64-gateway", boot="b0")


def only(windows: tuple[TelemetryWindow, ...]) -> TelemetryWindow:
    (window,) = windows
    return window


def test_a_window_says_who_measured_what(exporter: Exporter) -> None:
    exporter.record(model_attributes(OLD), 0.002)
    exporter.record_error(model_attributes(OLD), RuntimeError("out of range"))
    exporter.record_error(model_attributes(OLD), ValueError("odd"))
    exporter.record_energy(1.5, "rapl package")
    exporter.record_energy(0.5, "rapl package")
    window = only(decode_otlp(exporter.collect()))
    assert (window.fleet, window.device, window.profile) == ("plant", "line-3", "x86-64-gateway")
    assert (window.boot, window.sequence) == ("b0", 0)
    assert (window.model, window.version, window.release) == (OLD.name, OLD.version, OLD.digest)
    assert (window.latency.count, window.errors) == (1, 2)
    assert window.errors_by_kind == {"RuntimeError": 1, "ValueError": 1}
    assert (window.energy_j, window.energy_sensor) == (2.0, "rapl package")
    assert 0 < window.start_ns <= window.end_ns


def test_without_a_sensor_the_energy_is_absent(exporter: Exporter) -> None:
    exporter.record(model_attributes(OLD), 0.002)
    assert only(decode_otlp(exporter.collect())).energy_j is None


def test_a_release_that_only_fails_has_a_window_too(exporter: Exporter) -> None:
    exporter.record_error(model_attributes(OLD), RuntimeError())
    window = only(decode_otlp(exporter.collect()))
    assert (window.latency.count, window.errors) == (0, 1)


def test_each_payload_holds_its_own_period_only_and_the_sequence_grows(exporter: Exporter) -> None:
    counts = []
    for inferences in (3, 0, 2):
        for _ in range(inferences):
            exporter.record(model_attributes(OLD), 0.001)
        counts.append([(w.sequence, w.latency.count) for w in decode_otlp(exporter.collect())])
    assert counts == [[(0, 3)], [], [(2, 2)]]


def test_a_payload_that_spans_a_switch_gives_a_window_for_each_release(exporter: Exporter) -> None:
    exporter.record(model_attributes(OLD), 0.001)
    exporter.record(model_attributes(NEW), 0.002)
    exporter.record(model_attributes(NEW), 0.002)
    windows = decode_otlp(exporter.collect())
    assert {w.version: w.latency.count for w in windows} == {"1.0.0": 1, "1.1.0": 2}


def test_the_stages_of_an_inference_are_told_apart(exporter: Exporter) -> None:
    for _ in range(3):
        exporter.record(
            model_attributes(OLD), 0.008, queue_s=0.0, preprocessing_s=0.002, postprocessing_s=0.001
        )
    exporter.record(model_attributes(OLD), 0.008)
    window = only(decode_otlp(exporter.collect()))
    assert (window.latency.count, window.latency.total) == (4, pytest.approx(0.032))
    assert (window.queue.count, window.queue.zero_count) == (3, 3)
    assert (window.preprocessing.count, window.preprocessing.total) == (3, pytest.approx(0.006))
    assert (window.postprocessing.count, window.postprocessing.total) == (3, pytest.approx(0.003))


def test_latency_while_throttled_is_kept_apart(exporter: Exporter) -> None:
    exporter.record(model_attributes(OLD), 0.010)
    exporter.set_throttled(True)
    exporter.record(model_attributes(OLD), 0.030)
    exporter.record(model_attributes(OLD), 0.030)
    exporter.set_throttled(False)
    exporter.record(model_attributes(OLD), 0.010)
    window = only(decode_otlp(exporter.collect()))
    assert (window.latency.count, window.throttled.count) == (2, 2)
    assert window.latency.quantile(1.0) == pytest.approx(0.010, rel=0.02)
    assert window.throttled.quantile(0.0) == pytest.approx(0.030, rel=0.02)


def test_a_gauge_is_sent_once_and_a_counter_holds_its_own_period(exporter: Exporter) -> None:
    def sent(name: str) -> list[float]:
        (resource,) = from_bytes(exporter.collect()).resource_metrics
        found = [m for scope in resource.scope_metrics for m in scope.metrics if m.name == name]
        data = [getattr(metric, metric.WhichOneof("data")) for metric in found]
        return [getattr(p, p.WhichOneof("value")) for one in data for p in one.data_points]

    exporter.set("hw.temperature", "Cel", 50.0, {"hw.id": "cpu"})
    exporter.set("hw.temperature", "Cel", 51.5, {"hw.id": "cpu"})
    assert sent("hw.temperature") == [51.5]
    assert sent("hw.temperature") == []
    exporter.set(PROCESS_MEMORY, "By", 1)
    exporter.set(PROCESS_MEMORY, "By", 2)
    assert sent(PROCESS_MEMORY) == [2]
    assert sent(PROCESS_MEMORY) == []
    exporter.add("tries", "{try}", 2)
    exporter.add("tries", "{try}", 3)
    assert sent("tries") == [5]
    assert sent("tries") == []


def test_nothing_is_lost_between_threads(exporter: Exporter) -> None:
    def work() -> None:
        for _ in range(2000):
            exporter.record(model_attributes(OLD), 0.001)
            exporter.record_error(model_attributes(OLD), ValueError())

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    windows = []
    while any(thread.is_alive() for thread in threads):
        windows += decode_otlp(exporter.collect())
    windows += decode_otlp(exporter.collect())
    assert sum(window.latency.count for window in windows) == 8000
    assert sum(window.errors for window in windows) == 8000


def test_what_no_thread_drains_waits_in_a_bounded_buffer_and_is_not_lost(exporter: Exporter) -> None:
    for _ in range(3 * BUFFERED):
        exporter.record(model_attributes(OLD), 0.001)
    assert len(vars(exporter)["_waiting"]) == BUFFERED
    assert only(decode_otlp(exporter.collect())).latency.count == 3 * BUFFERED


def test_what_is_drained_meanwhile_is_in_the_window_with_what_still_waits(exporter: Exporter) -> None:
    stopping = threading.Event()
    thread = threading.Thread(target=exporter.run, args=(stopping,))
    thread.start()
    counts = []
    for _ in range(4):
        for _ in range(BUFFERED // 2):
            exporter.record(model_attributes(OLD), 0.001, queue_s=0.0)
        counts.append(only(decode_otlp(exporter.collect())).latency.count)
    exporter.record(model_attributes(OLD), 0.001, queue_s=0.0)
    limit = time.monotonic() + 60
    while vars(exporter)["_waiting"] and time.monotonic() < limit:
        time.sleep(0.01)
    stopping.set()
    thread.join()
    assert not vars(exporter)["_waiting"]
    last = only(decode_otlp(exporter.collect()))
    assert sum(counts) + last.latency.count == 2 * BUFFERED + 1


def test_a_thousand_releases_leave_no_series_behind(exporter: Exporter) -> None:
    def serve(number: int) -> None:
        release = OLD.model_copy(update={"digest": f"sha256:{number:064}"})
        exporter.record(model_attributes(release), 0.001, queue_s=0.001)
        exporter.record_error(model_attributes(release), ValueError())
        exporter.set("figure", "1", 0.5, model=model_attributes(release))
        exporter.collect()

    for number in range(100):
        serve(number)
    tracemalloc.start()
    try:
        gc.collect()
        before = tracemalloc.get_traced_memory()[0]
        for number in range(100, 1100):
            serve(number)
        gc.collect()
        grown = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert (
        grown < 100_000
    )  # a hundred bytes each; with what the SDK keeps of one it would be some ten thousand


def test_a_clock_that_is_set_back_leaves_a_window_its_length(
    exporter: Exporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    exporter.record(model_attributes(OLD), 0.001)
    monkeypatch.setattr(time, "time_ns", lambda: 10**18)  # 2001
    window = only(decode_otlp(exporter.collect()))
    assert window.end_ns == 10**18
    assert 0 <= window.end_ns - window.start_ns < 60 * 10**9


@pytest.mark.parametrize("inferences", [60, 6000])
def test_a_minute_of_a_device_is_within_its_budget_of_bytes(inferences: int, tmp_path: Path) -> None:
    """1,000 bytes a payload make 60 kB an hour; a third of it is left to power, heat and drift."""
    chance = random.Random(0)
    exporter = Exporter(
        fleet="plant-north",
        device="line-3-camera-12",
        profile="raspberry-pi-5",
        boot=chance.randbytes(16).hex(),
    )
    release = OLD.model_copy(update={"digest": f"sha256:{chance.randbytes(32).hex()}"})
    exporter.payloads = 40_000
    for _ in range(inferences):
        run_s = chance.lognormvariate(-4, 0.1) * (5 if chance.random() < 0.005 else 1)
        exporter.record(
            model_attributes(release),
            run_s,
            queue_s=chance.expovariate(1000),
            preprocessing_s=chance.lognormvariate(-6, 0.1),
            postprocessing_s=chance.lognormvariate(-8, 0.1),
        )
    exporter.record_error(model_attributes(release), ValueError())
    exporter.record_energy(123.456, "rapl package")
    Vitals(tmp_path).record(exporter)
    assert len(exporter.collect()) < 800


def test_vitals_are_named_and_typed_as_opentelemetry_says(exporter: Exporter, tmp_path: Path) -> None:
    Vitals(tmp_path).record(exporter)
    (resource,) = from_bytes(exporter.collect()).resource_metrics
    metrics = {m.name: m for scope in resource.scope_metrics for m in scope.metrics}
    memory = metrics["process.memory.usage"]
    assert (memory.unit, memory.sum.is_monotonic, memory.sum.aggregation_temporality) == ("By", False, 2)
    assert 5e6 < memory.sum.data_points[0].as_int < 5e9
    cpu = metrics["process.cpu.time"]
    assert (cpu.unit, cpu.sum.is_monotonic, cpu.sum.aggregation_temporality) == ("s", True, 1)
    assert metrics["system.memory.linux.available"].sum.data_points[0].as_int > 1e6
    assert 0 <= metrics["system.filesystem.utilization"].gauge.data_points[0].as_double <= 1


def test_vitals_that_cannot_be_read_are_absent(exporter: Exporter, tmp_path: Path) -> None:
    Vitals(tmp_path / "gone", root=tmp_path).record(exporter)
    (resource,) = from_bytes(exporter.collect()).resource_metrics
    names = {m.name for scope in resource.scope_metrics for m in scope.metrics}
    assert names == {"process.cpu.time", "edgewright.report.sequence"}


@pytest.mark.parametrize("encoding", ["protobuf", "json"])
def test_either_encoding_says_the_same(encoding: Encoding) -> None:
    exporter = Exporter(fleet="plant", device="line-3", profile="p", boot="b0", encoding=encoding)
    exporter.record(model_attributes(OLD), 0.002, queue_s=0.001)
    exporter.set_throttled(True)
    exporter.record(model_attributes(OLD), 0.004)
    exporter.record_error(model_attributes(OLD), ValueError())
    exporter.record_energy(2, "rapl package")
    payload = exporter.collect()
    assert payload[:1] == {"protobuf": b"x", "json": b"{"}[encoding]
    window = only(decode_otlp(payload))
    assert (window.latency.count, window.queue.count, window.throttled.count) == (1, 1, 1)
    assert (window.errors, window.energy_j, window.sequence) == (1, 2.0, 0)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.lists(st.floats(1e-6, 1e3), min_size=1, max_size=40), min_size=1, max_size=4))
def test_durations_come_out_as_they_went_in_within_the_error_of_a_bucket(periods: list[list[float]]) -> None:
    exporter = Exporter(fleet="plant", device="line-3", profile="x86-64-gateway", boot="b0")
    attributes = model_attributes(OLD)
    parts = []
    for durations in periods:
        for seconds in durations:
            exporter.record(attributes, seconds)
        window = only(decode_otlp(exporter.collect()))
        assert window.latency.count == len(durations)
        assert window.latency.total == pytest.approx(sum(durations))
        parts.append(window.latency)
    recorded = sorted(seconds for durations in periods for seconds in durations)
    whole = merged(parts)
    assert whole.count == len(recorded)
    largest_error = 2.0 ** (2.0**-whole.scale) - 1
    for share in (0.0, 0.5, 0.9, 1.0):
        exact = recorded[math.floor(share * (len(recorded) - 1))]
        assert whole.quantile(share) == pytest.approx(exact, rel=largest_error)
