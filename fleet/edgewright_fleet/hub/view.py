"""`FleetView`: every device and group as the messages so far show them. Pure: no socket, no file.

It decides what a message changes; `ingest.py` brings messages, `store.py` keeps what must survive. A message
that is not well-formed raises `DataError` and changes nothing.
"""

from __future__ import annotations

import re
import struct
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from edgewright.contract import from_json
from edgewright.errors import DataError
from edgewright.telemetry.reading import Reading, read_otlp
from edgewright.telemetry.sequences import Ranges, received
from edgewright.twin import DeviceStatus, ReportedState
from edgewright_fleet.hub import compact, sketches
from edgewright_fleet.hub.groups import Group
from edgewright_fleet.reports import read_report

MAX_GROUPS = 500
"""Releases times profiles that are told apart; what comes beyond is `other`, so that no device fills a
Prometheus with labels."""
MAX_REASON = 400
"""Characters kept of what a device gives as its reason."""
KEPT_BOOTS = 4
"""Past boots of a device that repeats are told by; older ones are looked up in the store."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")

Seen = Callable[[str, str], Ranges]
"""The sequences of a (device, boot) that the store holds."""


@dataclass(slots=True)
class Device:
    """One device as it is now; times are Unix seconds by the hub's clock.

    `quiet_since_s`: since when telemetry is waited for, the last of its telemetry, its coming online, our start.
    """

    name: str
    profile: str = "unknown"
    release: str = "nothing"
    digest: str = ""
    online: bool = False
    phase: str = "unknown"
    reason: str = ""
    rollout: str = ""
    seen: dict[str, Ranges] = field(default_factory=dict)
    heard_s: float = 0.0
    quiet_since_s: float = 0.0
    latency: bytes = b""
    errors: int = 0
    temperature_c: float | None = None
    energy_per_inference_j: float | None = None
    drift: float | None = None
    dropped: int = 0
    labels: tuple[tuple[str, str], ...] = ()

    def quantile(self, share: float) -> float | None:
        """Latency of the newest window, in seconds."""
        histogram = compact.from_bytes(self.latency) if self.latency else None
        return histogram.quantile(share) if histogram is not None and histogram.count else None


@dataclass(frozen=True, slots=True)
class NewWindow:
    """A window to be kept."""

    device: str
    at_s: float
    latency: bytes
    window: Reading
    sketch: bytes | None


@dataclass(frozen=True, slots=True)
class DeviceChanged:
    """A device to be kept anew, with what happened in words where an operator would want to read it."""

    device: Device
    at_s: float
    event: str | None


@dataclass(frozen=True, slots=True)
class DeviceForgotten:
    """A device whose retained report was taken away: it belongs to the fleet no longer."""

    device: str


Change = NewWindow | DeviceChanged | DeviceForgotten


class FleetView:
    """The devices of one fleet. One thread changes it; others read under the same lock as that thread."""

    def __init__(self, fleet: str, seen: Seen) -> None:
        self.fleet = fleet
        self.devices: dict[str, Device] = {}
        self.groups: dict[tuple[str, str], Group] = {}
        self.counted = self.repeated = self.refused = 0
        self._seen = seen

    def take(self, device: str, leaf: str, payload: bytes, now_s: float) -> list[Change]:
        """What one message changes, which is done here and to be kept by the caller. Raises `DataError`."""
        if device not in self.devices and not _NAME.fullmatch(device):
            raise DataError("is no name of a device")
        if leaf == "metrics":
            return self._metrics(device, payload, now_s)
        if not payload:
            gone = leaf == "reported" and self.devices.pop(device, None) is not None
            return [DeviceForgotten(device)] if gone else []
        if leaf == "reported":
            return self._reported(device, read_report(payload), now_s)
        if leaf == "status":
            return self._status(device, from_json(DeviceStatus, payload, where="", error=DataError), now_s)
        return []

    def restore(self, devices: Iterable[Device], now_s: float) -> None:
        """What a store knows of the devices."""
        for device in devices:
            device.quiet_since_s = now_s
            self.devices[device.name] = device

    def _device(self, name: str, now_s: float) -> Device:
        device = self.devices.get(name)
        if device is None:
            device = self.devices[name] = Device(name, quiet_since_s=now_s)
        return device

    def _metrics(self, name: str, payload: bytes, now_s: float) -> list[Change]:
        windows = read_otlp(payload)
        kept: list[tuple[Reading, bytes, bytes | None]] = []
        for window in windows:
            if window.device != name or window.fleet != self.fleet:
                raise DataError(f"speaks for another device, '{window.fleet}/{window.device}'")
            # A coarser one would coarsen the whole group's; no device of ours writes below 0.
            if window.latency.scale < 0:
                raise DataError("a histogram is coarser than a bucket for each doubling")
            try:
                sketch = sketches.to_bytes(window.sketch) if window.sketch else None
                kept.append((window, compact.to_bytes(window.latency), sketch))
            except (OverflowError, ValueError, struct.error):
                raise DataError("a histogram or a sketch holds what no device measures") from None
        if not windows:
            return []
        device, boot = self._device(name, now_s), windows[0].boot
        had = device.seen.get(boot)
        if had is None:
            had = self._seen(name, boot)
        has = received(had, windows[0].sequence)
        device.seen.pop(boot, None)
        device.seen[boot] = has
        if len(device.seen) > KEPT_BOOTS:
            del device.seen[next(iter(device.seen))]  # the one not heard of for longest
        if has is had:
            self.repeated += 1
            return []
        self.counted += 1
        device.heard_s = device.quiet_since_s = now_s
        device.profile = sys.intern(windows[0].profile)
        for window, latency, _ in kept:
            self._group(window).add(window, now_s)
            device.latency, device.errors = latency, window.errors
            device.temperature_c = window.temperature_c
            device.energy_per_inference_j = window.energy_per_inference_j
            device.dropped = window.dropped
            if window.class_psi is not None:
                device.drift = window.class_psi
        return [NewWindow(name, now_s, latency, window, sketch) for window, latency, sketch in kept]

    def _group(self, window: Reading) -> Group:
        key = (window.profile, f"{window.model}:{window.version}")
        group = self.groups.get(key)
        if group is None:
            if len(self.groups) >= MAX_GROUPS:
                key = ("other", "other")
            group = self.groups.get(key) or self.groups.setdefault(key, Group(*map(sys.intern, key)))
        return group

    def _reported(self, name: str, report: ReportedState, now_s: float) -> list[Change]:
        if report.device != name:
            raise DataError(f"speaks for another device, '{report.device}'")
        device, running = self._device(name, now_s), report.running
        before = _told(device)
        device.profile, device.phase = sys.intern(report.profile), sys.intern(report.phase)
        device.release = sys.intern(str(running.release)) if running else "nothing"
        device.digest = sys.intern(running.release.digest) if running else ""
        device.reason = sys.intern((report.reason or "")[:MAX_REASON])
        device.rollout = sys.intern(report.rollout or "")
        device.labels = tuple(sorted((sys.intern(k), sys.intern(v)) for k, v in report.labels.items()))
        if before == _told(device):
            return []
        words = f"{report.phase}: runs {device.release}"
        if report.target is not None and str(report.target) != device.release:
            words += f", asked for {report.target}"
        words += f" ({device.rollout})" if device.rollout else ""
        words += f": {device.reason}" if device.reason else ""
        return [DeviceChanged(device, now_s, words)]

    def _status(self, name: str, status: DeviceStatus, now_s: float) -> list[Change]:
        known, device = name in self.devices, self._device(name, now_s)
        if known and device.online == status.online:
            return []
        device.online, device.quiet_since_s = status.online, now_s
        return [DeviceChanged(device, now_s, "online" if status.online else "offline")]


def _told(device: Device) -> tuple[object, ...]:
    return (
        device.phase, device.release, device.digest, device.reason, device.rollout, device.profile, device.labels,
    )  # fmt: skip
