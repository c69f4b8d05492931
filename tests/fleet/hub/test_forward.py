"""Telemetry on to a collector: a real HTTP server that reads OTLP as collectors do, and is away at times."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from conftest import until
from edgewright.errors import ConfigError
from edgewright.mqtt import BrokerSettings
from edgewright_fleet.hub import forward
from edgewright_fleet.hub.forward import Forwarder
from fleet.hub.conftest import Crowd, Payloads, running_hub


class Collector:
    """Takes OTLP/HTTP; `answers` are the statuses of its next answers, 200 after them."""

    def __init__(self) -> None:
        self.answers: list[int] = []
        self.paths: list[str] = []
        self.devices: list[str] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = gzip.decompress(self.rfile.read(int(self.headers["Content-Length"])))
                status = outer.answers.pop(0) if outer.answers else 200
                if status == 200:
                    outer.paths.append(self.path)
                    request = ExportMetricsServiceRequest.FromString(body)
                    for part in request.resource_metrics:
                        outer.devices += [
                            pair.value.string_value
                            for pair in part.resource.attributes
                            if pair.key == "host.name"
                        ]
                self.send_response(status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def collector() -> Iterator[Collector]:
    with closing(Collector()) as found:
        yield found


def test_a_collector_gets_every_payload_once_though_it_was_away(collector: Collector) -> None:
    collector.answers = [503, 429]
    with closing(Forwarder(collector.url)) as forwarder:
        for number in range(50):
            forwarder.put(Payloads("f", f"d{number}").window([0.01]))
        assert until(lambda: forwarder.sent == 50)
    assert sorted(collector.devices) == sorted(f"d{number}" for number in range(50))
    assert set(collector.paths) == {"/v1/metrics"}
    assert forwarder.dropped == 0


def test_what_a_collector_refuses_for_good_is_counted_and_does_not_block_the_rest(
    collector: Collector,
) -> None:
    collector.answers = [400]
    with closing(Forwarder(f"{collector.url}/custom/path")) as forwarder:
        forwarder.put(Payloads("f", "d0").window([0.01]))
        assert until(lambda: forwarder.dropped == 1)
        forwarder.put(Payloads("f", "d1").window([0.01]))
        assert until(lambda: forwarder.sent == 1)
    assert collector.devices == ["d1"] and collector.paths == ["/custom/path"]


def test_what_waits_is_bounded_and_the_oldest_goes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forward, "MAX_QUEUED_BYTES", 5000)
    with closing(Forwarder("http://127.0.0.1:9")) as forwarder:
        for number in range(100):
            forwarder.put(Payloads("f", f"d{number}").window([0.01]))
        assert forwarder.dropped > 80
        assert forwarder.queued + forwarder.dropped <= 100


def test_a_hub_passes_on_what_it_counts(
    mosquitto: BrokerSettings, fleet: str, crowd: Crowd, collector: Collector, tmp_path: Path
) -> None:
    with running_hub(mosquitto, fleet, tmp_path, "--forward", collector.url) as hub:
        crowd.join("d0")
        payload = crowd.measure("d0")
        crowd.send("d0", "metrics", payload)
        hub.until("/metrics", lambda text: f'edgewright_hub_forwarded_total{{fleet="{fleet}"}} 1' in text)
    assert collector.devices == ["d0"], "what the broker delivers twice goes on once"


@pytest.mark.parametrize("url", ["collector", "ftp://host/x", "http://"])
def test_what_is_no_endpoint_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="no OTLP endpoint"):
        Forwarder(url)
