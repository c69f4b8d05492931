"""`DeviceView`: a device as its retained messages and its latest measurements show it."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, replace

from edgewright.telemetry.window import TelemetryWindow
from edgewright.twin import ReleaseReference
from edgewright_fleet.rollout.engine import DevicePresence, DeviceReported
from edgewright_fleet.targets.mqtt import DeviceEvent, MqttTarget

SETTLE_S = 0.5
"""Retained messages come in a burst after subscribing, which is over well within this time."""


@dataclass(frozen=True)
class DeviceView:
    """What is known of one device."""

    device: str
    profile: str | None = None
    online: bool = False
    phase: str | None = None
    running: ReleaseReference | None = None
    runtime: str | None = None
    reason: str | None = None
    window: TelemetryWindow | None = None


def fold(views: dict[str, DeviceView], events: Iterable[DeviceEvent]) -> None:
    """Bring the views up to date by events."""
    for event in events:
        if isinstance(event, DevicePresence):
            known = views.get(event.device, DeviceView(event.device))
            views[event.device] = replace(known, online=event.online)
        elif isinstance(event, DeviceReported):
            report = event.report
            known = views.get(report.device, DeviceView(report.device))
            views[report.device] = replace(
                known,
                profile=report.profile,
                phase=report.phase,
                running=report.running.release if report.running else None,
                runtime=report.running.runtime if report.running else None,
                reason=report.reason,
            )
        else:
            window = event.window
            known = views.get(window.device, DeviceView(window.device))
            views[window.device] = replace(known, profile=window.profile, window=window)


def snapshot(target: MqttTarget, wait_s: float = 0.0) -> dict[str, DeviceView]:
    """Every device that has left a retained message; `wait_s` more gives measurements time to come."""
    views: dict[str, DeviceView] = {}
    fold(views, target.known())
    end = time.monotonic() + max(wait_s, SETTLE_S)
    while True:
        before = len(views)
        # Measurements never stop coming; that no further device turns up is what ends the wait.
        fold(views, target.events(SETTLE_S))
        if len(views) == before and time.monotonic() >= end:
            return dict(sorted(views.items()))
