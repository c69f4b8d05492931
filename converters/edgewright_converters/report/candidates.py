"""Every candidate that was tried, and what came of it: accuracy against latency and against size."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from html import escape
from string import ascii_lowercase
from typing import Literal

from edgewright.artifact.manifest import ArtifactManifest
from edgewright.figures import seconds, size
from edgewright_converters.ascent import Attempt
from edgewright_converters.precision_choice import Tried
from edgewright_converters.report.scatter import Point, scatter
from edgewright_converters.trial import Trial

NOISELESS_DB = 100.0
"""What is better differs from float by the order of its sums alone."""
Kind = Literal["kept", "open", "float", "final"]


@dataclass(frozen=True)
class Candidate:
    """A model that was executed on this host; over `NOISELESS_DB` its decibels are infinite."""

    label: str
    what: str
    kind: Kind
    sqnr_db: float
    agreement: float | None
    """Share of samples with float's top class; None for a model that is no classifier."""
    seconds: float
    bytes: int
    data: str


def candidates(
    attempts: Sequence[Attempt], choices: Sequence[Tried], manifests: Sequence[ArtifactManifest], samples: str
) -> str:
    """The pictures, and the same as a table; `samples` is what the candidates were tried on, in words."""
    found = [*tried(attempts, choices, manifests, samples), *made(manifests)]
    if not found:
        return ""
    pictures = _pictures(found, "signal to noise, dB", [one.sqnr_db for one in found])
    kept = [one.agreement for one in found if one.agreement is not None]
    if len(kept) == len(found):
        pictures += _pictures(found, "same top class as float, % of samples", [100 * share for share in kept])
    rows = "".join(
        f"<tr><td>{escape(one.label)}<td>{escape(one.what)}<td>"
        f"{f'{one.sqnr_db:.1f} dB' if math.isfinite(one.sqnr_db) else f'over {NOISELESS_DB:.0f} dB'}"
        f"<td>{'–' if one.agreement is None else f'{one.agreement:.1%}'}<td>{seconds(one.seconds)}"
        f"<td>{size(one.bytes)}<td>{escape(one.data)}"
        for one in found
    )
    return (
        "<p class=note>Up and to the left is better. Circles are the candidates, of the ladder by number and of "
        "the choice of precision by letter, filled where kept, and squares are float: on "
        f"{samples}, latency measured on this host for a moment. The dashed line is their Pareto front: what no "
        "other beats in both. Diamonds are the artifacts that came of it: measured on other samples, so that "
        "they are no part of the front.</p>"
        f"<div class='cards wide'>{pictures}</div><div class=scroll><table><tr><th>#<th>candidate"
        "<th>signal to noise<th>same top class<th>latency here<th>size<th>figures are</tr>"
        f"{rows}</table></div>"
    )


def tried(
    attempts: Sequence[Attempt], choices: Sequence[Tried], manifests: Sequence[ArtifactManifest], samples: str
) -> list[Candidate]:
    """The ladder's candidates by number, the precisions tried after it by letter, and float beside them."""
    found = [
        _candidate(str(number), attempt.rung, attempt.trial, attempt.kept, samples)
        for number, attempt in enumerate(attempts, 1)
    ]
    found += [
        _candidate(letter, f"precision: {one.name}", one.trial, one.taken, samples)
        for letter, one in zip(ascii_lowercase, choices, strict=False)
    ]
    floats = {m.format: m.float_bytes for m in manifests if m.float_bytes}
    timed = {trial.format: trial for trial in (*(a.trial for a in attempts), *(c.trial for c in choices))}
    for model_format, trial in timed.items():
        weight = floats.get(model_format)
        if weight is not None:
            agreement = None if trial.changed is None else 1.0
            what, seconds_ = f"float, {model_format}", trial.float_seconds
            found.append(
                Candidate("float", what, "float", math.inf, agreement, seconds_, weight, "by definition")
            )
    return found


def _candidate(label: str, what: str, trial: Trial, kept: bool, samples: str) -> Candidate:
    return Candidate(
        label,
        f"{what}, {trial.format} {trial.precision}{'' if kept else ', not kept'}",
        "kept" if kept else "open",
        _decibels(trial.sqnr_db),
        None if trial.changed_share is None else 1 - trial.changed_share,
        trial.seconds,
        trial.model_bytes,
        f"on {trial.samples} {samples}",
    )


def made(manifests: Sequence[ArtifactManifest]) -> list[Candidate]:
    """The artifacts, one a model file."""
    found: dict[str, Candidate] = {}
    for manifest in manifests:
        if (before := found.get(manifest.model_digest)) is not None:
            found[manifest.model_digest] = replace(before, what=f"{before.what}, {manifest.profile}")
            continue
        latency = next(
            (
                figure.p50_s
                for figure in manifest.latencies
                if figure.how == "measured on host" and figure.precision == manifest.precision
            ),
            None,
        )
        if latency is None:
            continue
        accuracy = manifest.accuracy
        found[manifest.model_digest] = Candidate(
            manifest.format,
            f"artifact, {manifest.format} {manifest.precision}, for {manifest.profile}",
            "final",
            _decibels(min(accuracy.sqnr_db.values())),
            accuracy.agreement.value if accuracy.agreement else None,
            latency,
            manifest.model_bytes,
            f"on {accuracy.samples} {accuracy.data} samples",
        )
    return list(found.values())


def front(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The (cost, worth) that no other point beats in both, from the cheapest on."""
    best: list[tuple[float, float]] = []
    for cost, worth in sorted(points, key=lambda point: (point[0], -point[1])):
        if not best or worth > best[-1][1]:
            best.append((cost, worth))
    return best


def _decibels(value: float) -> float:
    return math.inf if value > NOISELESS_DB else value


def _pictures(found: Sequence[Candidate], label: str, worth: Sequence[float]) -> str:
    pictures = []
    for cost, cost_label, text in (
        ([one.seconds for one in found], "latency of an inference on this host", seconds),
        ([one.bytes for one in found], "size of the file", size),
    ):
        points = [
            Point(x, y, one.kind, one.label, one.what) for x, y, one in zip(cost, worth, found, strict=True)
        ]
        trials = [(x, y) for x, y, one in zip(cost, worth, found, strict=True) if one.kind != "final"]
        pictures.append(
            scatter(
                points,
                front(trials),
                x_label=cost_label,
                y_label=label,
                x_text=text,
                beyond_text=f">{NOISELESS_DB:.0f}",
            )
        )
    return "".join(pictures)
