"""How figures are written for people: durations, sizes, shares with their interval, one row an artifact, and the
gate's verdict in plain words."""

from __future__ import annotations

from collections.abc import Sequence

from edgewright.artifact.manifest import (
    ArtifactManifest,
    Difference,
    GateReport,
    LatencyFigure,
    Proportion,
)


def seconds(value: float | None) -> str:
    """A duration in the unit that reads best: 830 µs, 12.4 ms, 3.2 s."""
    if value is None:
        return "–"
    for unit, factor in (("s", 1.0), ("ms", 1e3), ("µs", 1e6)):
        if value * factor >= 1 or unit == "µs":
            return f"{value * factor:.3g} {unit}"
    return ""


def size(count: float | None) -> str:
    """A size in decimal units: 78.1 kB, 4.9 MB."""
    if count is None:
        return "–"
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= factor:
            return f"{count / factor:.3g} {unit}"
    return f"{count:.0f} B"


MAX_FLOAT_OPERATORS = 6
"""How many operators left in float are printed; the manifest holds all."""
MANIFEST_COLUMNS = (
    "profile",
    "format",
    "precision",
    "verdict",
    "size",
    "float accuracy",
    "artifact accuracy",
    "change, points",
    "agreement",
    "SQNR",
    "INT8 share of MACs",
    "float p50 / p99",
    "artifact p50 / p99",
    "predicted on profile",
)


def manifest_row(manifest: ArtifactManifest) -> list[str]:
    """One artifact's figures for `MANIFEST_COLUMNS`."""
    accuracy, gate = manifest.accuracy, manifest.gate
    return [
        manifest.profile,
        manifest.format,
        manifest.precision,
        gate.verdict if gate else "not judged",
        f"{size(manifest.float_bytes)} → {size(manifest.model_bytes)}",
        percent(accuracy.float_accuracy),
        percent(accuracy.artifact_accuracy),
        points(accuracy.change),
        percent(accuracy.agreement),
        ", ".join(f"{value:.1f} dB" for value in accuracy.sqnr_db.values())
        + (" on generated noise" if accuracy.data == "generated" else ""),
        "–" if gate is None or gate.int8_mac_share is None else f"{gate.int8_mac_share:.1%}",
        _latency(_figure(manifest, "measured on host", "float32")),
        _latency(_figure(manifest, "measured on host", manifest.precision)),
        _predicted(_figure(manifest, "predicted", manifest.precision)),
    ]


def gate_lines(manifest: ArtifactManifest) -> list[str]:
    """The gate's verdict on one artifact: what was measured against which limit, and what to do about a miss."""
    gate = manifest.gate
    if gate is None:
        return [f"{manifest.profile} {manifest.format}: not judged, it was made before there was a gate"]
    lines = [f"{manifest.profile} {manifest.format}: {gate.verdict.upper()}"]
    for check in gate.checks:
        remedy = f" → {check.remedy}" if check.remedy and check.verdict != "pass" else ""
        lines.append(f"  {check.verdict:12} {check.name:13} {check.says} [{check.how}]{remedy}")
    lines += [f"  left in float: {line}" for line in left_in_float(gate)]
    return [*lines, f"  {costs(gate)}"]


def left_in_float(gate: GateReport) -> list[str]:
    """The operators that run in float and what they weigh, the heaviest first; of many, the rest together."""
    ordered = sorted(
        gate.float_operators, key=lambda one: (one.time_share or 0, one.mac_share or 0), reverse=True
    )
    lines = [
        f"{one.type} {one.name}: {_shares(one.mac_share, one.time_share, gate)}"
        for one in ordered[:MAX_FLOAT_OPERATORS]
    ]
    if rest := ordered[MAX_FLOAT_OPERATORS:]:
        macs, times = [one.mac_share for one in rest], [one.time_share for one in rest]
        lines.append(f"{len(rest)} more: {_shares(_sum(macs), _sum(times), gate)}; the manifest lists all")
    return lines


def costs(gate: GateReport) -> str:
    """What the artifact takes in memory wherever it runs, and what its conversion took."""
    peak, before = gate.peak_memory_bytes, gate.runtime_memory_bytes
    memory = (
        "peak memory not measured"
        if peak is None or before is None
        else f"peak memory {size(peak)}, {size(peak - before)} of it the model's, measured on host"
    )
    return f"{memory}; converted in {seconds(gate.conversion_s)}"


def percent(share: Proportion | None) -> str:
    """A share with its 95 % interval."""
    if share is None:
        return "not measured"
    return f"{share.value:.2%} ({share.low * 100:.1f}–{share.high * 100:.1f})"


def points(change: Difference | None) -> str:
    """A paired difference in points with its 95 % interval."""
    if change is None:
        return "not measured"
    return f"{change.value * 100:+.2f} ({change.low * 100:+.2f} to {change.high * 100:+.2f})"


def _shares(macs: float | None, time: float | None, gate: GateReport) -> str:
    return f"{_share(macs)} of MACs, {_share(time)} of time ({gate.operator_time})"


def _sum(shares: Sequence[float | None]) -> float | None:
    return None if None in shares else sum(share for share in shares if share is not None)


def _share(value: float | None) -> str:
    return "unknown share" if value is None else f"{value:.1%}"


def _figure(manifest: ArtifactManifest, how: str, precision: str) -> LatencyFigure | None:
    found = (f for f in manifest.latencies if f.how == how and f.precision == precision)
    return next(found, None)


def _latency(figure: LatencyFigure | None) -> str:
    return "–" if figure is None else f"{seconds(figure.p50_s)} / {seconds(figure.p99_s)}"


def _predicted(figure: LatencyFigure | None) -> str:
    if figure is None:
        return "–"
    return f"predicted {seconds(figure.p50_s)} ({seconds(figure.low_s)}–{seconds(figure.high_s)})"
