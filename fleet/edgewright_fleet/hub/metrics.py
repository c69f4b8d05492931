"""The fleet as Prometheus reads it: text exposition format 0.0.4, labelled by fleet, profile and release
alone.

Never a label a device unless it is asked for: 10,000 devices times ten series is what fills a Prometheus.
Durations are a classic histogram whose bounds are powers of 2^(1/4), which are bounds of every exponential
histogram of scale 2 or finer: they are brought there without error, and add up over hubs. Coarser ones are
counted at their upper bound. Written by hand: the format is a few lines, and a registry of metric objects
would hold everything twice.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator

from edgewright.telemetry.histogram import ExponentialHistogram
from edgewright_fleet.hub.rollouts import RolloutSummary
from edgewright_fleet.hub.view import Device, FleetView

SCALE = 2
LOWEST, HIGHEST = -14 << SCALE, 6 << SCALE
"""Bounds from 61 µs to 64 s; a line a bound, profile and release."""
QUANTILES = (0.5, 0.9, 0.99)
SILENT_S = 300.0
"""An online device that sent no telemetry for this long, five reports by default, is silent."""

Labels = dict[str, str]
Sample = tuple[str, Labels, float]
"""(suffix of the name, labels, value)"""


def exposition(
    view: FleetView,
    now_s: float,
    *,
    hub: dict[str, float],
    rollouts: Iterable[RolloutSummary] = (),
    per_device: bool = False,
) -> str:
    """All the metrics. `hub` are those of the hub itself by name; the caller holds the view's lock."""
    families = [*_groups(view, now_s), *_devices(view, now_s), *_rollouts(view.fleet, rollouts)]
    families += [
        (
            name,
            "counter" if name.endswith("_total") else "gauge",
            _HUB_HELP[name],
            [("", {"fleet": view.fleet}, value)],
        )
        for name, value in hub.items()
    ]
    results = (("counted", view.counted), ("repeated", view.repeated), ("refused", view.refused))
    families.append((
        "edgewright_hub_payloads_total", "counter", "Messages by what became of them.",
        [("", {"fleet": view.fleet, "result": result}, float(n)) for result, n in results],
    ))  # fmt: skip
    if per_device:
        families += _each_device(view)
    return "".join(_family(*family) for family in families)


_HUB_HELP = {
    "edgewright_hub_connected": "Whether the hub is connected to its broker.",
    "edgewright_hub_store_bytes": "Bytes that the store holds.",
    "edgewright_hub_forwarded_total": "Payloads that the collector took.",
    "edgewright_hub_forward_dropped_total": "Payloads that the collector refused, or too many to keep for it.",
    "edgewright_hub_forward_queued": "Payloads that wait for the collector.",
}
Family = tuple[str, str, str, list[Sample]]


def _groups(view: FleetView, now_s: float) -> Iterator[Family]:
    sums = [(_labels(view.fleet, g.profile, g.release), g.since_start()) for g in view.groups.values()]
    lately = [(_labels(view.fleet, g.profile, g.release), g.recent(now_s)) for g in view.groups.values()]
    yield (
        "edgewright_inference_duration_seconds", "histogram",
        "Inferences that succeeded on devices that were not throttled, in the runtime.",
        [sample for labels, tally in sums for sample in _histogram(labels, tally.latency())],
    )  # fmt: skip
    for name, text, attribute in _COUNTERS:
        yield (
            name,
            "counter",
            text,
            [("", labels, float(getattr(tally, attribute))) for labels, tally in sums],
        )
    yield (
        "edgewright_inference_duration_recent_seconds", "gauge",
        "Quantiles over the fleet's last minutes, merged from exponential histograms (error at most 1.1 %).",
        [
            ("", labels | {"quantile": f"{share:g}"}, tally.latency().quantile(share))
            for labels, tally in lately if tally.latency().count for share in QUANTILES
        ],
    )  # fmt: skip
    yield (
        "edgewright_energy_per_inference_joules", "gauge",
        "Measured energy above idle of one inference, over the last minutes and the devices that can measure it.",
        [
            ("", labels, joules)
            for labels, tally in lately if (joules := tally.energy_per_inference_j()) is not None
        ],
    )  # fmt: skip


_COUNTERS = (
    ("edgewright_inference_errors_total", "Inferences that ended in an error.", "errors"),
    ("edgewright_throttled_inferences_total", "Inferences that succeeded while throttled.", "throttled"),
    ("edgewright_throttled_seconds_total", "Time in which devices were throttled.", "throttled_s"),
    ("edgewright_energy_joules_total", "Energy that sensors measured, of whole devices.", "energy_j"),
    ("edgewright_estimated_energy_joules_total", "Energy from profiles, not measured.", "estimated_energy_j"),
)


def _histogram(labels: Labels, histogram: ExponentialHistogram) -> Iterator[Sample]:
    counts: Counter[int] = Counter()
    shift = histogram.scale - SCALE
    for index, count in histogram.buckets.items():
        # Bucket i ends at base^(i+1), so that the bound k, 2^(k/4), closes bucket k-1 of scale 2.
        bound = (index >> shift) + 1 if shift >= 0 else (index + 1) << -shift
        counts[max(LOWEST, min(bound, HIGHEST + 1))] += count
    seen = histogram.zero_count
    for bound in range(LOWEST, HIGHEST + 1):
        seen += counts[bound]
        yield "_bucket", labels | {"le": f"{2.0 ** (bound / (1 << SCALE)):.6g}"}, float(seen)
    yield "_bucket", labels | {"le": "+Inf"}, float(histogram.count)
    yield "_sum", labels, histogram.total
    yield "_count", labels, float(histogram.count)


def _devices(view: FleetView, now_s: float) -> Iterator[Family]:
    counts: Counter[tuple[str, str, str, bool]] = Counter()
    silent: Counter[tuple[str, str]] = Counter()
    hottest: dict[tuple[str, str], list[float]] = {}
    drifts: dict[tuple[str, str], list[float]] = {}
    dropped: Counter[tuple[str, str]] = Counter()
    for device in view.devices.values():
        key = (device.profile, device.release)
        counts[(*key, device.phase, device.online)] += 1
        silent[key] += device.online and now_s - device.quiet_since_s > SILENT_S
        dropped[key] += device.dropped
        if device.temperature_c is not None:
            hottest.setdefault(key, []).append(device.temperature_c)
        if device.drift is not None:
            drifts.setdefault(key, []).append(device.drift)
    yield "edgewright_devices", "gauge", "Devices by what they run, the phase of their update, and presence.", [
        ("", _labels(view.fleet, p, r) | {"phase": phase, "online": "true" if online else "false"}, float(n))
        for (p, r, phase, online), n in counts.items()
    ]  # fmt: skip
    yield (
        "edgewright_devices_silent",
        "gauge",
        "Online devices without telemetry for five minutes.",
        [("", _labels(view.fleet, *key), float(n)) for key, n in silent.items()],
    )
    yield (
        "edgewright_reports_dropped",
        "gauge",
        "Payloads that devices lost to a full spool since they booted.",
        [("", _labels(view.fleet, *key), float(n)) for key, n in dropped.items()],
    )
    yield (
        "edgewright_temperature_celsius",
        "gauge",
        "Hottest zone of each device, over the devices.",
        list(_over_devices(view.fleet, hottest)),
    )
    yield (
        "edgewright_drift_psi",
        "gauge",
        "Population stability index of the classes, over the devices.",
        list(_over_devices(view.fleet, drifts)),
    )


def _over_devices(fleet: str, values: dict[tuple[str, str], list[float]]) -> Iterator[Sample]:
    for key, found in values.items():
        found.sort()
        for share in (0.5, 0.95, 1.0):
            place = math.ceil(share * len(found)) - 1
            yield "", _labels(fleet, *key) | {"quantile": f"{share:g}"}, found[max(place, 0)]


def _each_device(view: FleetView) -> Iterator[Family]:
    def samples(value: dict[str, float | None]) -> list[Sample]:
        return [("", {"fleet": view.fleet, "device": n}, v) for n, v in value.items() if v is not None]

    devices: dict[str, Device] = view.devices
    yield (
        "edgewright_device_online",
        "gauge",
        "Whether a device is connected.",
        samples({n: float(d.online) for n, d in devices.items()}),
    )
    yield (
        "edgewright_device_inference_p99_seconds",
        "gauge",
        "Of a device's newest window.",
        samples({n: d.quantile(0.99) for n, d in devices.items()}),
    )
    yield (
        "edgewright_device_temperature_celsius",
        "gauge",
        "Hottest zone of a device.",
        samples({n: d.temperature_c for n, d in devices.items()}),
    )


def _rollouts(fleet: str, rollouts: Iterable[RolloutSummary]) -> Iterator[Family]:
    known = list(rollouts)
    yield (
        "edgewright_rollout_info",
        "gauge",
        "Rollouts by the phase that they are in.",
        [
            ("", {"fleet": fleet, "rollout": r.name, "release": r.release, "phase": r.phase}, 1.0)
            for r in known
        ],
    )
    for name, text, attribute in (
        ("edgewright_rollout_devices", "Devices that a rollout is for.", "devices"),
        ("edgewright_rollout_exposed_devices", "Devices that were told to run the release.", "exposed"),
        ("edgewright_rollout_failed_devices", "Devices that refused the release or left it.", "failed"),
    ):
        yield (
            name,
            "gauge",
            text,
            [
                ("", {"fleet": fleet, "rollout": r.name, "release": r.release}, float(getattr(r, attribute)))
                for r in known
            ],
        )


def _labels(fleet: str, profile: str, release: str) -> Labels:
    return {"fleet": fleet, "profile": profile, "release": release}


def _family(name: str, kind: str, text: str, samples: list[Sample]) -> str:
    if not samples:
        return ""
    lines = [f"# HELP {name} {text}\n# TYPE {name} {kind}\n"]
    for suffix, labels, value in samples:
        inside = ",".join(f'{key}="{_escaped(said)}"' for key, said in labels.items())
        lines.append(f"{name}{suffix}{{{inside}}} {_number(value)}\n")
    return "".join(lines)


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')


def _number(value: float) -> str:
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    return f"{value:.0f}" if value == int(value) and abs(value) < 1e15 else repr(value)
