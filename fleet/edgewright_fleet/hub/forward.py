"""`Forwarder`: telemetry on to an OpenTelemetry collector over OTLP/HTTP, retried and bounded.

Payloads go on as devices wrote them: `MetricsData` and `ExportMetricsServiceRequest` have the same one field,
and protobuf messages that are written one after the other are one message with all their parts (OpenTelemetry
protocol 1.x, "OTLP/HTTP"; Protocol Buffers encoding, "Last One Wins"). What a collector cannot take now is
kept in memory up to a bound, then the oldest is dropped and counted: the hub's own store is what keeps, not
this.
"""

from __future__ import annotations

import gzip
import logging
import random
import threading
import urllib.error
import urllib.request
from collections import deque
from urllib.parse import urlsplit

from edgewright.errors import ConfigError
from edgewright.telemetry.otlp import from_bytes

log = logging.getLogger("edgewright.hub")
MAX_QUEUED_BYTES = 64 << 20
"""Half an hour of 10,000 devices that send 0.7 kB each minute, deflated once more."""
MAX_REQUEST_BYTES = 1 << 20
"""Below the 4 MB that collectors take by default."""
TIMEOUT_S = 10.0
LONGEST_WAIT_S = 60.0
RETRIED = frozenset({429, 502, 503, 504})
"""OpenTelemetry protocol 1.x, "Retryable Response Codes"; any other refusal would be the same the next time."""


class Forwarder:
    """Sends what it is given to `url` from a thread of its own. Raises `ConfigError` for what is no URL."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError(f"'{url}' is no OTLP endpoint", remedy="write http://HOST:4318/v1/metrics")
        # As OTEL_EXPORTER_OTLP_ENDPOINT does, a base alone means the standard path.
        self.url = url if parts.path.strip("/") else f"{url.rstrip('/')}/v1/metrics"
        self.sent = self.dropped = 0
        self._queue: deque[bytes] = deque()
        self._bytes = 0
        self._changed = threading.Condition()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="otlp-forward", daemon=True)
        self._thread.start()

    def put(self, payload: bytes) -> None:
        """One device's payload, to be sent soon; never waits."""
        message: bytes = from_bytes(payload).SerializeToString()
        with self._changed:
            self._queue.append(message)
            self._bytes += len(message)
            while self._bytes > MAX_QUEUED_BYTES:
                self._bytes -= len(self._queue.popleft())
                self.dropped += 1
            self._changed.notify()

    @property
    def queued(self) -> int:
        """Payloads that wait."""
        return len(self._queue)

    def close(self) -> None:
        """Send what waits once, and end."""
        self._stopping.set()
        with self._changed:
            self._changed.notify()
        self._thread.join(TIMEOUT_S + 1)

    def _run(self) -> None:
        failures = 0
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._queue or self._stopping.is_set())
                if not self._queue:
                    return
                batch = self._next_batch()
            wait_s = self._send(b"".join(batch), failures)
            if wait_s is None:
                failures, self.sent = 0, self.sent + len(batch)
            elif wait_s < 0:
                self.dropped += len(batch)
            else:
                failures += 1
                with self._changed:
                    self._queue.extendleft(reversed(batch))
                    self._bytes += sum(map(len, batch))
                if self._stopping.wait(wait_s):
                    return

    def _next_batch(self) -> list[bytes]:
        batch = [self._queue.popleft()]
        size = len(batch[0])
        while self._queue and size + len(self._queue[0]) <= MAX_REQUEST_BYTES:
            batch.append(self._queue.popleft())
            size += len(batch[-1])
        self._bytes -= size
        return batch

    def _send(self, body: bytes, failures: int) -> float | None:
        """None: taken. Negative: refused for good. Otherwise seconds after which to try again."""
        headers = {"Content-Type": "application/x-protobuf", "Content-Encoding": "gzip"}
        request = urllib.request.Request(  # noqa: S310 - the scheme was checked
            self.url, gzip.compress(body, 1), headers, method="POST"
        )
        backoff_s = min(LONGEST_WAIT_S, 2.0**failures) * (0.5 + random.random() / 2)  # noqa: S311 - jitter
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT_S):  # noqa: S310
                return None
        except urllib.error.HTTPError as error:
            log.warning("%s answers %s", self.url, error.code)
            if error.code not in RETRIED:
                return -1.0
            after = error.headers.get("Retry-After", "")
            return max(backoff_s, min(float(after), 600.0)) if after.isdecimal() else backoff_s
        except (OSError, ValueError) as error:
            log.warning("%s cannot be reached (%s)", self.url, error)
            return backoff_s
