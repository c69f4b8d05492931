"""What a reader of a model card is told, in which order: sections of sentences and tables, in no markup yet."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from edgewright.artifact.comparison import ArtifactComparison, Comparison, SetComparison, alike
from edgewright.artifact.model_card import DataSummary, Lineage, ModelCard, Training
from edgewright.figures import percent, points, size

INDEPENDENCE = "Intervals take the samples as independent of each other; many of one moment tell less."


@dataclass(frozen=True)
class Section:
    """A heading, what is said below it, a table (none without columns), and data sets whose groups are drawn."""

    title: str
    lines: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()
    drawn: tuple[tuple[str, SetComparison], ...] = ()


def title(card: ModelCard) -> str:
    """Of the whole card."""
    return f"Model card of {card.name}:{card.version}"


def sections(card: ModelCard) -> tuple[Section, ...]:
    """The card from the decision to its grounds."""
    return (
        Section("Decision", tuple(_decided(card))),
        Section("Use", (f"For: {card.intended_use or 'not said'}", f"Limits: {card.limits or 'not said'}")),
        *(_compared(card.comparison) if card.comparison else ()),
        Section(
            "The converter's gate",
            columns=("profile", "format", "verdict", "size", "what it says"),
            rows=tuple(
                (
                    artifact.profile,
                    artifact.format,
                    artifact.gate.verdict if artifact.gate else "not judged",
                    size(artifact.model_bytes),
                    "; ".join(check.says for check in artifact.gate.checks) if artifact.gate else "–",
                )
                for artifact in card.artifacts
            ),
        ),
        Section(
            "Data",
            columns=("used for", "samples", "labelled", "from", "to", "lineage", "privacy", "digest"),
            rows=tuple(map(_data, card.data)),
        ),
        Section("Lineage", tuple(_lineage(card.lineage))),
    )


def _decided(card: ModelCard) -> Iterator[str]:
    decided = card.decision
    if decided.by == "hand":
        yield f"Promoted by hand, by {decided.who or 'somebody'}: {decided.why}"
    else:
        yield "Promoted by its comparison with the model that served."
    if card.comparison is None:
        yield "Compared with nothing: no model served before."
    else:
        yield f"Compared with {card.comparison.serving}: {card.comparison.verdict}. {card.comparison.says}"
    yield f"Made {card.made_at:%Y-%m-%d %H:%M} UTC."


def _compared(comparison: Comparison) -> Iterator[Section]:
    yield Section(
        "Checks",
        columns=("check", "verdict", "what was seen", "what to do"),
        rows=tuple(
            (check.name, check.verdict, f"{check.says} [{check.how}]", check.remedy or "")
            for check in comparison.checks
        ),
    )
    yield Section(
        "Quality, paired, measured on host",
        lines=(
            INDEPENDENCE,
            *(w for where, found in alike(comparison.artifacts) for w in _weighted(where, found)),
            *(w for found in comparison.artifacts for w in _beside(found)),
        ),
        columns=(
            "profile",
            "format",
            "data",
            "samples",
            "serving",
            "candidate",
            "change, points",
            "McNemar p",
        ),
        rows=tuple(
            (
                found.profile,
                found.format,
                one.data + (", weighted" if one.weighted else ""),
                f"{one.change.samples} ({one.change.lost} lost, {one.change.gained} gained)",
                percent(one.serving),
                percent(one.candidate),
                points(one.change),
                f"{one.mcnemar_p:.2g}",
            )
            for found in comparison.artifacts
            for one in found.sets
        ),
    )
    drawn = tuple((where, one) for where, found in alike(comparison.artifacts) for one in found.sets)
    if drawn:
        yield Section("Groups: change of accuracy, points", drawn=drawn)


def _weighted(where: str, found: ArtifactComparison) -> Iterator[str]:
    for one in found.sets:
        if one.unweighted is not None:
            yield (
                f"{where}, {one.data}: each sample counts with one over its probability of having been selected; "
                f"as they come the change is {points(one.unweighted)} points."
            )


def _beside(found: ArtifactComparison) -> Iterator[str]:
    where = f"{found.profile} {found.format}"
    if found.why_not is not None:
        yield f"{where}: {found.why_not}."
    if found.serving and found.candidate:
        before, after = size(found.serving.model_bytes), size(found.candidate.model_bytes)
        yield f"{where}: {before} → {after}, executed by {found.candidate.runtime or 'nothing here'}."
    if (latency := found.latency) is not None:
        yield (
            f"{where}: {latency.ratio:.2f} ({latency.low:.2f} to {latency.high:.2f}) times the latency on "
            f"{latency.where}, which is not the device."
        )


def _data(data: DataSummary) -> tuple[str, ...]:
    return (
        data.used_for,
        "unknown" if data.samples is None else f"{data.samples}",
        "unknown" if data.labelled is None else f"{data.labelled}",
        f"{data.first_at:%Y-%m-%d %H:%M}" if data.first_at else "–",
        f"{data.last_at:%Y-%m-%d %H:%M}" if data.last_at else "–",
        data.lineage or "–",
        data.privacy or "–",
        short(data.digest),
    )


def _lineage(lineage: Lineage) -> Iterator[str]:
    if lineage.base is not None:
        yield f"Follows {lineage.base} ({lineage.base.digest})"
    if lineage.trigger:
        yield f"Trained because: {lineage.trigger}"
    if lineage.training is not None:
        yield from _training(lineage.training)
    yield f"Record of the retraining up to: {lineage.chain_head or 'none was kept'}"


def _training(training: Training) -> Iterator[str]:
    yield f"Trained by {training.function}, seed {training.seed}, {training.ranks} ranks"
    if training.code_digest:
        yield f"Code: {training.code_digest}"
    if training.parameters:
        yield "Parameters: " + ", ".join(f"{name} = {value}" for name, value in training.parameters.items())
    if training.weights_digest:
        yield f"Weights: {training.weights_digest}"
    if training.tools:
        yield "With " + ", ".join(f"{name} {version}" for name, version in training.tools.items())


def short(digest: str | None) -> str:
    """A digest's first characters, as `inspect` shows them."""
    return digest[7:19] if digest else "–"
