"""A small device that speaks the real protocol over a real broker: retained JSON twin, OTLP measurements."""

from __future__ import annotations

import contextlib
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
from opentelemetry.sdk.metrics import Histogram, MeterProvider
from opentelemetry.sdk.metrics.export import AggregationTemporality, InMemoryMetricReader
from opentelemetry.sdk.metrics.view import ExponentialBucketHistogramAggregation
from opentelemetry.sdk.resources import Resource

from edgewright.artifact.layout import Layout
from edgewright.contract import from_json, to_json
from edgewright.mqtt import BrokerSettings, connect, make_client
from edgewright.telemetry import names
from edgewright.twin import (
    DesiredState,
    DeviceStatus,
    Phase,
    ReleaseReference,
    ReportedState,
    RunningRelease,
    topic,
)


def reference(registry: Path, version: str) -> ReleaseReference:
    descriptor = Layout.open(registry).names()[f"net:{version}"]
    return ReleaseReference(name="net", version=version, digest=descriptor.digest)


def otlp(
    fleet: str,
    device: str,
    release: ReleaseReference,
    latencies_s: list[float],
    *,
    boot: str,
    sequence: int,
    profile: str = "gateway",
) -> bytes:
    """One payload as a device's OpenTelemetry SDK writes it."""
    reader = InMemoryMetricReader(
        preferred_temporality={Histogram: AggregationTemporality.DELTA},
        preferred_aggregation={Histogram: ExponentialBucketHistogramAggregation()},
    )
    who = {names.FLEET: fleet, names.DEVICE: device, names.PROFILE: profile, names.BOOT: boot}
    provider = MeterProvider([reader], Resource(who), shutdown_on_exit=False)
    meter = provider.get_meter("test")
    meter.create_gauge(names.REPORT_SEQUENCE).set(sequence)
    duration = meter.create_histogram(names.INFERENCE_DURATION, "s")
    model = {names.MODEL_NAME: release.name, names.MODEL_VERSION: release.version}
    for latency_s in latencies_s:
        duration.record(latency_s, {**model, names.RELEASE_DIGEST: release.digest})
    data = reader.get_metrics_data()
    provider.shutdown()
    payload: bytes = encode_metrics(data).SerializeToString()
    return payload


class SimulatedDevice:
    """Runs what is desired of it after the real phases; `slow` and `broken` are digests it does badly with.

    `broken` may be `every`, and then nothing new installs.
    """

    def __init__(
        self,
        settings: BrokerSettings,
        fleet: str,
        name: str,
        running: ReleaseReference | None,
        *,
        slow: str = "",
        broken: str = "",
        profile: str = "gateway",
        period_s: float = 0.05,
    ) -> None:
        self.fleet, self.name, self.running, self.slow, self.broken = fleet, name, running, slow, broken
        self.profile = profile
        self.ran: list[str] = []
        self._period_s = period_s
        self._boot, self._sequence, self._payloads = uuid.uuid4().hex[:8], 0, 0
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._wishes: list[DesiredState] = []
        self._phase: Phase = "committed" if running else "idle"
        gone = to_json(DeviceStatus(online=False, boot=self._boot))
        self._client = make_client(settings, f"{fleet}-{name}", will=(topic(fleet, name, "status"), gone))
        self._client.on_connect = self._on_connect
        self._client.on_message = self._on_message
        connect(self._client, settings)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._stop.set()
        self._thread.join(5)
        gone = to_json(DeviceStatus(online=False, boot=self._boot))
        self._client.publish(topic(self.fleet, self.name, "status"), gone, qos=1, retain=True)
        self._client.disconnect()
        self._client.loop_stop()

    def lose_power(self) -> None:
        """Vanish without a word, so that the broker sends the last will."""
        self._stop.set()
        self._thread.join(5)
        self._client.loop_stop()
        sock: Any = self._client.socket()
        sock.close()

    def _on_connect(self, client: Any, *_: Any) -> None:
        client.subscribe(topic(self.fleet, self.name, "desired"), qos=1)
        here = to_json(DeviceStatus(online=True, boot=self._boot))
        client.publish(topic(self.fleet, self.name, "status"), here, qos=1, retain=True)
        self._report(None)

    def _on_message(self, client: Any, userdata: Any, message: Any) -> None:
        if message.payload:
            self._wishes.append(from_json(DesiredState, message.payload, where="desired"))

    def _run(self) -> None:
        while not self._stop.wait(self._period_s):
            if self._wishes:
                self._take(self._wishes.pop())
            if self.running is not None:
                latency_s = 0.05 if self.running.digest == self.slow else 0.005
                self._payloads += 1
                payload = otlp(
                    self.fleet,
                    self.name,
                    self.running,
                    [latency_s] * 20,
                    boot=self._boot,
                    sequence=self._payloads,
                    profile=self.profile,
                )
                self._client.publish(topic(self.fleet, self.name, "metrics"), payload, qos=1)

    def _take(self, wish: DesiredState) -> None:
        if self.running is None or self.running.digest != wish.release.digest:
            for phase in ("downloading", "verifying", "proving"):
                self._phase = phase
                self._report(wish)
                time.sleep(0.01)
            if self.broken in (wish.release.digest, "every"):
                self._phase = "failed"
                self._report(wish, "golden check: outputs differ")
                return
            for phase in ("switching", "watching"):
                self._phase = phase
                self._report(wish)
            self.running = wish.release
            self.ran.append(wish.release.digest)
        self._phase = "committed"
        self._report(wish)

    def _report(self, wish: DesiredState | None, reason: str | None = None) -> None:
        with self._lock:
            self._sequence += 1
            running = None
            if self.running is not None:
                running = RunningRelease(
                    release=self.running, artifact=self.running.digest, runtime="simulated 1"
                )
            report = ReportedState(
                device=self.name,
                profile=self.profile,
                boot=self._boot,
                sequence=self._sequence,
                phase=self._phase,
                running=running,
                target=wish.release if wish else None,
                rollout=wish.rollout if wish else None,
                reason=reason,
            )
            self._client.publish(
                topic(self.fleet, self.name, "reported"), to_json(report), qos=1, retain=True
            )


@contextlib.contextmanager
def simulated_fleet(
    settings: BrokerSettings, fleet: str, size: int, running: ReleaseReference | None, **behaviour: str
) -> Iterator[list[SimulatedDevice]]:
    devices = [SimulatedDevice(settings, fleet, f"d{index}", running, **behaviour) for index in range(size)]
    try:
        yield devices
    finally:
        for device in devices:
            device.close()
