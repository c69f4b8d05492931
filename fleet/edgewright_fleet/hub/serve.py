"""`run_hub`: the parts of a hub joined, until it is told to stop."""

from __future__ import annotations

import contextlib
import gc
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from edgewright.errors import ConfigError
from edgewright.mqtt import BrokerSettings
from edgewright_fleet.hub.forward import Forwarder
from edgewright_fleet.hub.ingest import Ingest
from edgewright_fleet.hub.metrics import exposition
from edgewright_fleet.hub.pages import Pages
from edgewright_fleet.hub.rollouts import Rollouts
from edgewright_fleet.hub.site import Site
from edgewright_fleet.hub.store import HubStore
from edgewright_fleet.hub.tokens import Tokens
from edgewright_fleet.hub.view import FleetView
from edgewright_fleet.hub.web import serving
from edgewright_fleet.rollout.record import Record

log = logging.getLogger("edgewright.hub")
RETAIN_EVERY_S = 60.0
LOOPBACK = frozenset({"127.0.0.1", "localhost"})


@dataclass(frozen=True)
class HubSettings:
    """What a hub is told."""

    fleet: str
    broker: BrokerSettings
    store: Path
    host: str = "127.0.0.1"
    port: int = 9464
    """9464 is what OpenTelemetry's Prometheus exporters listen on."""
    retention_s: float = 86400.0
    """A day: longer history is Prometheus's or the collector's."""
    retention_bytes: int = 2_000_000_000
    """Of windows and events, beyond which the oldest go before their time."""
    rollouts: Callable[[], Record] | None = None
    """Opens the record that the controllers write. None: no rollouts are shown."""
    tokens: Path | None = None
    """None: nobody can log in, and so nothing can be changed."""
    private: bool = False
    """Whether reading needs a token as well."""
    origins: tuple[str, ...] = ()
    """Addresses at which browsers reach the hub; where it listens on loopback, those are known."""
    forward: str | None = None
    """An OTLP/HTTP endpoint that gets all telemetry too."""
    per_device: bool = False
    """Whether /metrics has series of single devices."""


def run_hub(settings: HubSettings, stopping: threading.Event, on_ready: Callable[[str], None]) -> None:
    """Receive, keep and show until `stopping` is set. `on_ready` gets the page's address.

    Raises `EdgewrightError` where it cannot start, or can no longer write its store.
    """
    if settings.private and settings.tokens is None:
        raise ConfigError("a private hub without tokens shows nothing to anybody", remedy="give --tokens")
    if settings.host not in LOOPBACK and not settings.origins:
        raise ConfigError(
            f"listens on {settings.host}, and does not know at which address browsers reach it",
            remedy="give --origin, such as --origin https://hub.example",
        )
    # A hub keeps many small objects for long, and makes few cycles: looking at all of them as often as Python does
    # by itself is one part in twenty of its processor time.
    gc.set_threshold(50_000, 50, 1000)
    tokens = Tokens(settings.tokens) if settings.tokens else None
    rollouts = Rollouts(settings.rollouts, settings.fleet) if settings.rollouts else None
    lock = threading.Lock()
    with contextlib.ExitStack() as stack:
        store = HubStore(settings.store, settings.fleet)
        stack.callback(store.close)
        view = FleetView(settings.fleet, store.seen)
        view.restore(store.devices(), time.time())
        forwarder = None
        if settings.forward:
            forwarder = Forwarder(settings.forward)
            stack.callback(forwarder.close)
        put = forwarder.put if forwarder else None
        ingest = Ingest(settings.broker, view, store, lock, forward=put)
        stack.callback(ingest.close)
        size = store.size()

        def metrics() -> str:
            hub = {
                "edgewright_hub_connected": float(ingest.connected),
                "edgewright_hub_store_bytes": float(size),
            }
            if forwarder is not None:
                hub |= {
                    "edgewright_hub_forwarded_total": float(forwarder.sent),
                    "edgewright_hub_forward_dropped_total": float(forwarder.dropped),
                    "edgewright_hub_forward_queued": float(forwarder.queued),
                }
            known = rollouts.readable() if rollouts else []
            with lock:
                return exposition(view, time.time(), hub=hub, rollouts=known, per_device=settings.per_device)

        site = Site(
            Pages(view, lock, settings.store, rollouts),
            metrics=metrics,
            healthy=lambda: ingest.connected,
            clock=time.time,
            origins=_origins(settings),
            rollouts=rollouts,
            tokens=tokens,
            private=settings.private,
        )
        port = stack.enter_context(serving(site, settings.host, settings.port))
        on_ready(f"http://{settings.host}:{port}/")
        retained_s = 0.0
        while not stopping.wait(0.5):
            if ingest.failure is not None:
                raise ingest.failure
            if time.monotonic() - retained_s > RETAIN_EVERY_S:
                store.retain(time.time() - settings.retention_s, settings.retention_bytes)
                store.thin_sketches(time.time())
                retained_s, size = time.monotonic(), store.size()


def _origins(settings: HubSettings) -> frozenset[str]:
    own = {f"http://{host}:{settings.port}" for host in LOOPBACK} if settings.host in LOOPBACK else set()
    return frozenset(own | {origin.rstrip("/") for origin in settings.origins})
