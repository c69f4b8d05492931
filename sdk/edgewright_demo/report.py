"""The demo's page: what was seen, as pictures and tables, in one HTML file that needs nothing else."""

from __future__ import annotations

import html
import io
from collections.abc import Sequence

import matplotlib

matplotlib.use("svg")
from matplotlib.figure import Figure

from edgewright.artifact.manifest import ArtifactManifest
from edgewright.figures import MANIFEST_COLUMNS, manifest_row
from edgewright_demo.walk import DEVICES, Story

_STYLE = """
:root { color-scheme: light; } body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 72rem;
padding: 0 1rem; color: #1c2430; } h1 { font-size: 1.7rem; } h2 { margin-top: 2.2rem; font-size: 1.2rem; }
table { border-collapse: collapse; font-size: 13px; display: block; overflow-x: auto; }
th, td { padding: .3rem .7rem;
border-bottom: 1px solid #d7dde5; text-align: left; white-space: nowrap; } th { background: #f2f5f9; }
td.words { white-space: normal; } svg { max-width: 100%; height: auto; } .note { color: #566273; }
.good { color: #14713d; font-weight: 600; } .bad { color: #a5281b; font-weight: 600; }
"""
_FLOAT, _INT8, _PREDICTED = "#8a97a8", "#1f6feb", "#d9822b"
_COLOURS = ("#1f6feb", "#14713d", "#a5281b", "#8e44ad", "#d9822b")


def report_page(story: Story) -> str:
    """The whole page."""
    sections = [
        "<h1>Edgewright: the whole loop, once</h1>",
        "<p class=note>Everything on this page was measured on this host in one run, but for latencies that say "
        "<em>predicted</em>. Devices are processes on this host with the artifacts of their profile.</p>",
        "<h2>What happened</h2>",
        _table(("step", "seconds"), [[title, f"{seconds:.1f}"] for title, seconds in story.steps]),
        "<h2>Converted models</h2>",
        _table(
            ("release", *MANIFEST_COLUMNS),
            [[f"{m.name}:{m.version}", *manifest_row(m)] for m in story.manifests],
        ),
        "<p class=note>Accuracy is on 1,500 digits that were not trained on, with 95 % intervals; "
        "EfficientNet-Lite0 has no labels here, so agreement of the top class with the float model stands for "
        "it, on crops of few photos, where a difference of a few points is noise. Float and INT8 latency: "
        "measured on host, interleaved, one thread.</p>",
        "<h2>Float against INT8, measured on host</h2>",
        _svg(_latency_figure(story.manifests)),
        "<h2>Predicted on the profile</h2>",
        "<p class=note>An uncalibrated roofline; the bar is the middle estimate, the line its bounds.</p>",
        _svg(_predicted_figure(story.manifests)),
        "<h2>Accuracy with its 95 % interval</h2>",
        _svg(_accuracy_figure(story.manifests)),
        "<h2>What the devices reported</h2>",
        "<p class=note>Median latency of each reporting period as it came over MQTT; a change of line style is a "
        "change of release. Energy: "
        + (
            ", ".join(sorted({w.energy_sensor for w in story.windows if w.energy_sensor}))
            or "no sensor on this host"
        )
        + ".</p>",
        _svg(_telemetry_figure(story)),
        "<h2>Where each device was</h2>",
        _svg(_phase_figure(story)),
    ]
    for state, decisions in story.rollouts:
        word = "good" if state.phase == "succeeded" else "bad"
        sections += [
            f"<h2>Rollout of {html.escape(str(state.release))}: <span class={word}>{state.phase}</span></h2>",
            f"<p>{html.escape(state.verdict or '')}</p>",
            "<table><tr><th>s</th><th>decision</th></tr>",
            *(
                f"<tr><td>{decision.at_s - decisions[0].at_s:.1f}</td>"
                f"<td class=words>{html.escape(decision.sentence)}</td></tr>"
                for decision in decisions
            ),
            "</table>",
        ]
    body = "\n".join(sections)
    return (
        "<!doctype html><html lang=en><head><meta charset=utf-8><title>Edgewright demo</title>"
        '<meta name=viewport content="width=device-width,initial-scale=1">'
        f"<style>{_STYLE}</style></head><body>{body}</body></html>\n"
    )


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{html.escape(column)}</th>" for column in columns)
    body = "".join(
        "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows
    )
    return f"<table><tr>{head}</tr>{body}</table>"


def _svg(figure: Figure) -> str:
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", bbox_inches="tight")
    return buffer.getvalue()[buffer.getvalue().index("<svg") :]


def _host_manifests(manifests: Sequence[ArtifactManifest]) -> list[ArtifactManifest]:
    """One a model and format: profiles that share a quantisation share what was measured on this host."""
    unique = {(m.name, m.version, m.format): m for m in manifests}
    return list(unique.values())


def _latency_figure(manifests: Sequence[ArtifactManifest]) -> Figure:
    rows = _host_manifests(manifests)
    figure = Figure(figsize=(10, 0.55 * len(rows) + 1))
    axes = figure.subplots()
    for offset, precision, colour in ((-0.2, "float32", _FLOAT), (0.2, "int8", _INT8)):
        figures = [
            next(f for f in m.latencies if f.how == "measured on host" and f.precision == precision)
            for m in rows
        ]
        places = [i + offset for i in range(len(rows))]
        p50 = [f.p50_s * 1e3 for f in figures]
        axes.barh(places, p50, 0.38, color=colour, label=f"{precision}, p50 (line to p99)")
        p99 = [(f.p99_s or f.p50_s) * 1e3 for f in figures]
        axes.hlines(places, p50, p99, color="#1c2430", linewidth=1)
    axes.set_yticks(range(len(rows)), [f"{m.name}:{m.version} {m.format}" for m in rows])
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.set_xlabel("milliseconds an inference, one thread, logarithmic")
    axes.legend(loc="lower right", fontsize=8)
    return figure


def _predicted_figure(manifests: Sequence[ArtifactManifest]) -> Figure:
    rows = [m for m in manifests if m.format == "onnx"]
    figure = Figure(figsize=(10, 0.4 * len(rows) + 1))
    axes = figure.subplots()
    for i, manifest in enumerate(rows):
        found = next((f for f in manifest.latencies if f.how == "predicted" and f.precision == "int8"), None)
        if found is None:
            continue
        axes.barh(i, found.p50_s * 1e3, 0.5, color=_PREDICTED)
        axes.hlines(
            i, (found.low_s or found.p50_s) * 1e3, (found.high_s or found.p50_s) * 1e3, color="#1c2430"
        )
    axes.set_yticks(range(len(rows)), [f"{m.name}:{m.version} on {m.profile}" for m in rows])
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.set_xlabel("predicted milliseconds an INT8 inference, one thread, logarithmic")
    return figure


def _accuracy_figure(manifests: Sequence[ArtifactManifest]) -> Figure:
    rows = [
        m for m in _host_manifests(manifests) if m.accuracy.float_accuracy and m.accuracy.artifact_accuracy
    ]
    figure = Figure(figsize=(10, 0.5 * len(rows) + 1))
    axes = figure.subplots()
    for i, manifest in enumerate(rows):
        shares = (
            (manifest.accuracy.float_accuracy, _FLOAT, "float"),
            (manifest.accuracy.artifact_accuracy, _INT8, "INT8"),
        )
        for offset, (share, colour, label) in zip((-0.15, 0.15), shares, strict=True):
            assert share is not None
            error = [[(share.value - share.low) * 100], [(share.high - share.value) * 100]]
            axes.errorbar(
                share.value * 100,
                i + offset,
                xerr=error,
                fmt="o",
                color=colour,
                label=label if i == 0 else None,
            )
    axes.set_yticks(range(len(rows)), [f"{m.name}:{m.version} {m.format}" for m in rows])
    axes.invert_yaxis()
    axes.set_xlabel("top-1 accuracy, %")
    axes.legend(fontsize=8)
    return figure


def _telemetry_figure(story: Story) -> Figure:
    figure = Figure(figsize=(10, 4))
    axes = figure.subplots()
    windows = [w for w in story.windows if w.latency.events]
    start = min((w.start_ns for w in windows), default=0)
    styles = {"1.0.0": ":", "1.1.0": "-", "1.2.0": "--"}
    for device, colour in zip(DEVICES, _COLOURS, strict=True):
        for version, style in styles.items():
            mine = sorted(
                (w for w in windows if w.device == device and w.version == version), key=lambda w: w.end_ns
            )
            if not mine:
                continue
            axes.plot(
                [(w.end_ns - start) / 1e9 for w in mine],
                [w.latency.quantile(0.5) * 1e3 for w in mine],
                style,
                marker=".",
                color=colour,
                label=f"{device} {version}",
            )
    axes.set_yscale("log")
    axes.set_xlabel("seconds since the first report")
    axes.set_ylabel("median latency, ms, logarithmic")
    axes.legend(fontsize=7, ncols=3)
    return figure


def _phase_figure(story: Story) -> Figure:
    order = (
        "idle",
        "downloading",
        "verifying",
        "proving",
        "switching",
        "watching",
        "committed",
        "rolling-back",
        "failed",
    )
    figure = Figure(figsize=(10, 3.5))
    axes = figure.subplots()
    start = story.phases[0][0] if story.phases else 0.0
    for device, colour in zip(DEVICES, _COLOURS, strict=True):
        points = [(at - start, order.index(phase)) for at, who, phase, _ in story.phases if who == device]
        axes.step(
            [t for t, _ in points],
            [p for _, p in points],
            where="post",
            color=colour,
            marker=".",
            label=device,
        )
    axes.set_yticks(range(len(order)), order)
    axes.set_xlabel("seconds since the first report")
    axes.legend(fontsize=8, ncols=5)
    return figure
