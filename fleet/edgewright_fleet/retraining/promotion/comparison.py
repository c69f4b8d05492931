"""The candidate and the model that serves, both executed as the artifacts that devices get, on the same samples.

Every pair of artifacts runs in one pass over the data, which is streamed: what is held is sums. Who was right is
counted here; what follows from it is `verdict`'s affair.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from statistics import NormalDist

import numpy as np

from edgewright.artifact.comparison import (
    ArtifactComparison,
    ArtifactFigures,
    DataRole,
    GroupComparison,
    LatencyRatio,
    SetComparison,
)
from edgewright.artifact.manifest import Difference, Proportion
from edgewright.artifact.release import Artifact, Release, open_artifact
from edgewright.errors import DataError, RuntimeUnavailableError
from edgewright.latency_benchmark import host_processor, interleaved_seconds
from edgewright.runtime.model import Model, load_artifact
from edgewright_converters.statistics import median_interval
from edgewright_fleet.retraining.promotion.paired import Interval, Tally, mcnemar_p
from edgewright_fleet.retraining.promotion.samples import LabelledSample

MAX_GROUPS = 1000
"""Of one key: what has more, such as the name of a device, makes groups too small to see anything in."""
GROUP_ERROR = 0.05
"""Probability that any interval of all groups of one data set misses its figure."""


def compare(
    serving: Release,
    candidate: Release,
    held_out: Iterable[LabelledSample],
    field_data: Iterable[LabelledSample] = (),
    *,
    latency_s: float = 1.0,
) -> tuple[ArtifactComparison, ...]:
    """Compare two releases for every profile and format that either holds.

    `latency_s` is spent on each model's latency; 0 measures none. Raises `DataError` for samples that the models
    do not take or a label beyond their classes, `ArtifactError`.
    """
    pairs = [
        _Pair.open(key, serving, candidate) for key in sorted({*serving.artifacts, *candidate.artifacts})
    ]
    running = [pair for pair in pairs if pair.models is not None]
    for role, samples in (("held-out", held_out), ("field", field_data)):
        _run(running, role, samples)  # type: ignore[arg-type]
    return tuple(pair.result(latency_s) for pair in pairs)


@dataclass
class _Tallies:
    """Samples as they come, and weighted: which of the two counts is known at the end."""

    plain: Tally = field(default_factory=Tally)
    weighted: Tally = field(default_factory=Tally)

    def add(self, serving: bool, candidate: bool, weight: float) -> None:
        self.plain.add(serving, candidate)
        self.weighted.add(serving, candidate, weight)

    def chosen(self, weighted: bool) -> Tally:
        return self.weighted if weighted else self.plain


@dataclass
class _Set:
    """One data set as one pair sees it: all of it, and each group."""

    whole: _Tallies = field(default_factory=_Tallies)
    groups: dict[str, dict[str, _Tallies]] = field(default_factory=dict)
    left_out: set[str] = field(default_factory=set)
    probabilities: set[float | None] = field(default_factory=set)
    """Two of them at most: whether they differ, and whether any is unknown, is all that matters."""

    def add(self, sample: LabelledSample, class_name: str, serving: bool, candidate: bool) -> None:
        if len(self.probabilities) < 2 or sample.probability is None:
            self.probabilities.add(sample.probability)
        weight = 1.0 / (sample.probability or 1.0)
        self.whole.add(serving, candidate, weight)
        for by, group in (("class", class_name), *sample.groups.items()):
            tallies = self.groups.setdefault(by, {})
            if by not in self.left_out:
                tallies.setdefault(group, _Tallies()).add(serving, candidate, weight)
            if len(tallies) > MAX_GROUPS:
                self.left_out.add(by)
                tallies.clear()

    def result(self, data: DataRole) -> SetComparison:
        weighted = len(self.probabilities) > 1 and None not in self.probabilities
        whole = self.whole.chosen(weighted)
        looked_at = {by: tallies for by, tallies in self.groups.items() if tallies}
        confidence = {
            by: 1 - GROUP_ERROR / len(looked_at) / len(tallies) for by, tallies in looked_at.items()
        }
        return SetComparison(
            data=data,
            weighted=weighted,
            serving=_proportion(whole.serving(), whole),
            candidate=_proportion(whole.candidate(), whole),
            change=_difference(whole),
            unweighted=_difference(self.whole.plain) if weighted else None,
            mcnemar_p=mcnemar_p(whole.lost, whole.gained),
            group_confidence=confidence,
            groups=tuple(
                _group(by, group, tallied.chosen(weighted), NormalDist().inv_cdf((1 + confidence[by]) / 2))
                for by, tallies in looked_at.items()
                for group, tallied in sorted(tallies.items(), key=lambda item: _natural(item[0]))
            ),
            left_out=tuple(sorted(self.left_out)),
        )


@dataclass
class _Pair:
    """The two artifacts for one profile and format, loaded where they can be compared."""

    profile: str
    format: str
    serving: Artifact | None
    candidate: Artifact | None
    models: tuple[Model, Model] | None = None
    why_not: str | None = None
    sets: dict[DataRole, _Set] = field(default_factory=dict)

    @staticmethod
    def open(key: tuple[str, str], serving: Release, candidate: Release) -> _Pair:
        old, new = (
            open_artifact(release.layout, release.artifacts[key]) if key in release.artifacts else None
            for release in (serving, candidate)
        )
        pair = _Pair(*key, old, new)
        pair.why_not = _incomparable(old, new)
        if pair.why_not is None:
            assert old is not None and new is not None
            try:
                pair.models = load_artifact(old), load_artifact(new)
            except RuntimeUnavailableError as error:
                pair.why_not = f"cannot be executed here: {error}"
        return pair

    def add(self, role: DataRole, sample: LabelledSample, classes: dict[str, int]) -> None:
        assert self.models is not None
        old, new = (_class_of(model, sample, role, classes) for model in self.models)
        manifest = self.models[1].manifest
        names = manifest.labels if manifest is not None else None
        name = names[sample.label] if names else str(sample.label)
        self.sets.setdefault(role, _Set()).add(sample, name, old == sample.label, new == sample.label)

    def result(self, latency_s: float) -> ArtifactComparison:
        old, new = self.models or (None, None)
        return ArtifactComparison.model_validate(
            {
                "profile": self.profile,
                "format": self.format,
                "serving": _figures(self.serving, old),
                "candidate": _figures(self.candidate, new),
                "sets": tuple(one.result(role) for role, one in self.sets.items()),
                "latency": _latency(old, new, latency_s) if old and new and latency_s > 0 else None,
                "why_not": self.why_not,
            }
        )


def _run(pairs: list[_Pair], role: DataRole, samples: Iterable[LabelledSample]) -> None:
    for index, sample in enumerate(samples):
        if sample.probability is not None and not 0 < sample.probability <= 1:
            problem = f"probability {sample.probability:g} is not above 0 and at most 1"
            raise DataError(problem, where=f"sample {index} of the {role} data")
        classes: dict[str, int] = {}  # a model file that several profiles share runs once
        for pair in pairs:
            try:
                pair.add(role, sample, classes)
            except DataError as error:
                raise DataError(str(error), where=f"sample {index} of the {role} data") from None


def _incomparable(old: Artifact | None, new: Artifact | None) -> str | None:
    if old is None:
        return "nothing serves there yet, so that there is nothing to compare with"
    if new is None:
        return "the candidate holds no artifact for it"
    scores = [artifact.manifest.postprocessing for artifact in (old, new)]
    if None in scores:
        return (
            "it is not a classifier, and no other metric of quality is known: SQNR says how close an artifact is "
            "to its own float model, not which of two models is right more often"
        )
    if old.manifest.labels != new.manifest.labels:
        return "the two name their classes differently, so that a label does not mean the same to both"
    return None


def _class_of(model: Model, sample: LabelledSample, role: DataRole, classes: dict[str, int]) -> int:
    manifest = model.manifest
    assert manifest is not None and manifest.postprocessing is not None
    if manifest.model_digest not in classes:
        output = manifest.postprocessing.output
        scores = model.run(sample.inputs)[output].reshape(-1)
        if not 0 <= sample.label < scores.size:
            raise DataError(f"label {sample.label} is out of range: the model scores {scores.size} classes")
        # No class where a score is not a number: such an answer is wrong, whatever the label.
        classes[manifest.model_digest] = int(scores.argmax()) if np.isfinite(scores).all() else -1
    return classes[manifest.model_digest]


def _latency(old: Model, new: Model, seconds: float) -> LatencyRatio:
    times = interleaved_seconds([old, new], seconds=seconds)
    ratios = [after / before for before, after in zip(*times, strict=True)]
    ratio, low, high = median_interval(ratios)
    return LatencyRatio(where=host_processor(), ratio=ratio, low=low, high=high, pairs=len(ratios))


def _figures(artifact: Artifact | None, model: Model | None) -> ArtifactFigures | None:
    if artifact is None:
        return None
    manifest = artifact.manifest
    return ArtifactFigures(
        digest=artifact.digest,
        precision=manifest.precision,
        model_bytes=manifest.model_bytes,
        runtime=model.runtime if model else "",
    )


def _proportion(share: Interval, tally: Tally) -> Proportion:
    return Proportion(value=share.value, low=share.low, high=share.high, samples=tally.samples)


def _difference(tally: Tally) -> Difference:
    change = tally.change()
    return Difference(
        value=change.value,
        low=change.low,
        high=change.high,
        samples=tally.samples,
        lost=tally.lost,
        gained=tally.gained,
    )


def _group(by: str, group: str, tally: Tally, z: float) -> GroupComparison:
    change = tally.change(z)
    return GroupComparison(
        by=by,
        group=group,
        samples=tally.samples,
        serving=tally.serving().value,
        candidate=tally.candidate().value,
        change=change.value,
        low=change.low,
        high=change.high,
    )


def _natural(name: str) -> tuple[int, int, str]:
    return (0, int(name), "") if name.isdecimal() else (1, 0, name)
