"""A result as Markdown: one table a model, and under each where ours is behind."""

from __future__ import annotations

from benchmarks.converters.comparison import accuracy_verdict, behind, speed_verdict
from benchmarks.converters.results import ModelResult, Ratio, Result, Row
from benchmarks.converters.tools import OURS
from edgewright.figures import percent, points, seconds, size

COLUMNS = (
    "tool",
    "runtime",
    "takes",
    "accuracy",
    "change, points",
    "agreement",
    "SQNR",
    "latency",
    "speed-up",
    "size",
    "converted in",
    "peak memory",
    "ours against it: accuracy",
    "ours against it: speed",
)
LEGEND = """\
Every artifact was executed on all evaluation samples by the runtime it is for, on one thread. Intervals are 95 %;
changes are paired, on the same samples. Latency is the median from raw input to raw output; speed-up is over the
float model in the same runtime, with the lowest and highest round; all models of a table took turns of eight
inferences after one that is not counted, as it finds the caches full of the others. Ours takes integers, which a
camera gives; a peer that takes float32 quantises inside. A peer's conversion starts from the float export; ours
starts from PyTorch, makes both formats at once (its time and memory are of both) and includes the export and the
execution of the results. Ours is *behind* where the interval of the paired difference lies below nought, or every
round was slower and the median by more than 3 %; *ahead* is the reverse, *level* is where neither can be said."""


def markdown(result: Result, picture: str) -> str:
    """The whole document; `picture` is the file name of the plot beside it."""
    versions = ", ".join(f"{name} {version}" for name, version in result.versions.items())
    lines = [
        f"# Converters against other quantisers, {result.date}",
        "",
        f"Measured on host: {result.processor}, {result.cores} cores, Python {result.python}. {versions}.",
    ]
    if result.quick:
        lines += ["", "**A quick run: models hardly trained and few samples. Its figures mean nothing.**"]
    lines += ["", LEGEND, "", f"![accuracy against speed]({picture})"]
    for model in result.models:
        lines += ["", *_model(model)]
    return "\n".join(lines) + "\n"


def _model(model: ModelResult) -> list[str]:
    floats = ", ".join(
        f"{runtime} {seconds(latency)} ({size(model.float_bytes[runtime])})"
        for runtime, latency in model.float_latency_s.items()
    )
    judged = percent(model.float_accuracy) if model.float_accuracy else "no labels: judged by agreement"
    return [
        f"## {model.title}",
        "",
        f"Float: accuracy {judged}; {floats}. {model.calibration_samples} calibration samples, "
        f"{model.evaluation_samples:,} evaluation samples.",
        "",
        _line(COLUMNS),
        _line(["---"] * len(COLUMNS)),
        *(_line(_cells(row)) for row in model.rows),
        "",
        *_verdict(model),
    ]


def _cells(row: Row) -> list[str]:
    name = f"**{row.name}**" if row.tool == OURS else row.name
    if row.failure is not None:
        reason = row.failure.replace("|", "\\|")
        return [name, f"failed: {reason}", *[""] * (len(COLUMNS) - 2)]
    against = row.against_ours
    return [
        name,
        row.runtime or "",
        row.takes or "",
        percent(row.accuracy) if row.accuracy else "–",
        points(row.change) if row.change else "–",
        percent(row.agreement),
        "–" if row.sqnr_db is None else f"{row.sqnr_db:.1f} dB",
        seconds(row.latency_s),
        _times(row.speed_up),
        size(row.artifact_bytes),
        seconds(row.convert_seconds),
        size(row.peak_rss_bytes),
        f"{accuracy_verdict(against.accuracy)}, {points(against.accuracy)}" if against else "",
        f"{speed_verdict(against.time)}, {_times(against.time)} its time" if against else "",
    ]


def _verdict(model: ModelResult) -> list[str]:
    """What a reader must not have to find in the table: where ours loses, to a peer or to float itself."""
    lines = [
        f"**{row.name} is slower than the float model in its own runtime: {_times(row.speed_up)}.**"
        for row in model.rows
        if row.tool == OURS and row.speed_up is not None and row.speed_up.high < 1
    ]
    peers = [row for row in model.rows if row.against_ours is not None]
    losses = behind(model)
    if not peers:
        lines.append("Ours was compared with no peer here.")
    elif losses:
        named = "; ".join(f"{row.name} in {' and '.join(where)}" for row, where in losses)
        lines.append(f"Ours is behind: {named}.")
    else:
        lines.append(f"Ours is behind none of the {len(peers)} that ran.")
    lower = [
        f"{row.name} {row.against_ours.accuracy.value * 100:+.2f}"
        for row in peers
        if row.against_ours
        and row.against_ours.accuracy.value < 0
        and accuracy_verdict(row.against_ours.accuracy) == "level"
    ]
    if lower:
        lines.append(f"Lower, but within the interval, points: {', '.join(lower)}.")
    return [part for line in lines for part in (line, "")][:-1]


def _times(ratio: Ratio | None) -> str:
    return "–" if ratio is None else f"{ratio.value:.2f}× ({ratio.low:.2f}–{ratio.high:.2f})"


def _line(cells: list[str] | tuple[str, ...]) -> str:
    return "| " + " | ".join(cells) + " |"
