"""`DeviceView`: a device as its retained messages and its latest measurements show it."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from edgewright.telemetry.reading import Reading
from edgewright.twin import ReleaseReference
from edgewright_fleet.rollout.records import shared
from edgewright_fleet.rollout.state import DeviceEvent, DevicePresence, DeviceReported, WindowArrived
from edgewright_fleet.targets.target import Target

_NO_LABELS: Mapping[str, str] = {}
SETTLE_S = 0.5
"""Retained messages come in a burst after subscribing; this much silence means that it is over."""


@dataclass(frozen=True, slots=True)
class DeviceView:
    """What is known of one device."""

    device: str
    profile: str | None = None
    online: bool = False
    phase: str | None = None
    running: ReleaseReference | None = None
    labels: Mapping[str, str] = field(default_factory=lambda: _NO_LABELS)
    time_zone: str | None = None
    runtime: str | None = None
    reason: str | None = None
    window: Reading | None = None

    @property
    def release(self) -> str | None:
        """What it runs, as NAME:VERSION."""
        return str(self.running) if self.running else None

    def as_document(self) -> dict[str, Any]:
        """The view for a script; durations in seconds, None where nothing was measured while we looked."""
        latency = self.window.latency if self.window and self.window.latency.events else None
        return {
            "device": self.device,
            "profile": self.profile,
            "online": "yes" if self.online else "no",
            "phase": self.phase,
            "release": self.release,
            "digest": self.running.digest if self.running else None,
            "runtime": self.runtime,
            "reason": self.reason,
            "labels": dict(self.labels),
            "time_zone": self.time_zone,
            "inferences": latency.events if latency else None,
            "p50_s": latency.quantile(0.5) if latency else None,
            "p99_s": latency.quantile(0.99) if latency else None,
        }


def fold(views: dict[str, DeviceView], events: Iterable[DeviceEvent]) -> None:
    """Bring the views up to date by events."""
    for event in events:
        if isinstance(event, DevicePresence):
            known = views.get(event.device, DeviceView(event.device))
            views[event.device] = replace(known, online=event.online)
        elif isinstance(event, DeviceReported):
            report = event.report
            name = sys.intern(report.device)
            known = views.get(name, DeviceView(name))
            views[name] = replace(
                known,
                profile=sys.intern(report.profile),
                phase=sys.intern(report.phase),
                running=shared(report.running.release) if report.running else None,
                runtime=sys.intern(report.running.runtime) if report.running else None,
                reason=report.reason,
                labels=report.labels or _NO_LABELS,
                time_zone=report.time_zone,
            )
        else:
            window = event.window
            known = views.get(window.device, DeviceView(window.device))
            views[window.device] = replace(known, profile=window.profile, window=window)


def snapshot(target: Target, wait_s: float = 0.0) -> dict[str, DeviceView]:
    """Every device that has left a retained message, by name; `wait_s` more lets measurements come in."""
    views: dict[str, DeviceView] = {}
    fold(views, target.known())
    start = heard = time.monotonic()
    while time.monotonic() < max(heard + SETTLE_S, start + wait_s):
        for event in target.events(SETTLE_S / 10):
            fold(views, [event])
            # Measurements never pause in a large fleet, so only what is retained is waited for.
            if not isinstance(event, WindowArrived):
                heard = time.monotonic()
    return dict(sorted(views.items()))
