"""`look`: what is known of each group of devices now, and whether it is a reason to train again.

The evidence comes from where it is kept: drift from the hub's store, labels and new samples from the store of
samples, the last training and the last trigger from the runs.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from edgewright.contract import to_json
from edgewright.field_sample import FieldSample
from edgewright.object_store import open_store
from edgewright_fleet.retraining.field_data.catalogue import Found, find_samples
from edgewright_fleet.retraining.field_data.labels import class_index, read_labels
from edgewright_fleet.retraining.releases import class_names, serving_release
from edgewright_fleet.retraining.run import Run, begin, names
from edgewright_fleet.retraining.spec import RetrainingSpec, check_files
from edgewright_fleet.retraining.triggers.decide import decide
from edgewright_fleet.retraining.triggers.drift_test import DriftTest
from edgewright_fleet.retraining.triggers.groups import GroupDrift, group_drift
from edgewright_fleet.retraining.triggers.observe import drift_in_store
from edgewright_fleet.retraining.triggers.trigger import GroupEvidence, LabelledAnswers, NotFired, Trigger

NO_LABEL = "–"
"""The group of devices without the label, as `group_drift` has it."""


@dataclass(frozen=True)
class _Samples:
    """Of one group since the last training."""

    new: int = 0
    labelled: int = 0
    correct: int = 0


def look(spec: RetrainingSpec, now: datetime) -> list[Trigger | NotFired]:
    """The decision on each group of devices; of the whole fleet as one where no store tells groups apart.

    Raises `ConfigError`, `DataError`, `StorageError`.
    """
    trained, triggered = _before(spec)
    serving = serving_release(spec)
    drifts = _drifts(spec)
    samples = _samples(spec, trained)
    found = []
    for group in sorted({*drifts, *samples}) or ["all"]:
        seen = samples.get(group, _Samples())
        found.append(
            decide(
                spec.triggers,
                GroupEvidence(
                    fleet=spec.fleet,
                    model=spec.release,
                    release=f"{serving.name}:{serving.version}" if serving else f"{spec.release}:none",
                    by=spec.by,
                    group=group,
                    at_s=now.timestamp(),
                    drift=drifts.get(group),
                    labels=LabelledAnswers(labelled=seen.labelled, correct=seen.correct)
                    if seen.labelled
                    else None,
                    new_samples=seen.new,
                    inferences_per_day=spec.inferences_per_day,
                    last_trained_s=trained,
                    last_trigger_s=triggered,
                ),
            )
        )
    return found


def begin_run(spec: RetrainingSpec, trigger: Trigger, at: datetime) -> Run:
    """A run for a trigger, whose evidence is its first link. Raises as `by_hand` does."""
    check_files(spec)
    evidence = {"trigger": trigger.model_dump(mode="json", by_alias=True, exclude_none=True)}
    return begin(
        spec.runs, spec.name, to_json(spec).decode(), f"{trigger.kind}: {trigger.says}", evidence, at
    )


def under_way(spec: RetrainingSpec) -> list[Run]:
    """The runs that go on by themselves: whoever watches takes them in hand."""
    runs = [Run(spec.runs / name) for name in names(spec.runs, spec.name)]
    return [run for run in runs if run.standing == "under way"]


def _before(spec: RetrainingSpec) -> tuple[float | None, float | None]:
    """When a model was trained last, and when a run began last, in Unix seconds.

    A run by hand that came to no training cost nothing: what a person mistyped puts no trigger off.
    """
    trained = triggered = None
    for name in names(spec.runs, spec.name):
        chain = Run(spec.runs / name).chain
        training, link = chain.last("training"), chain.last("trigger")
        if link is not None and (training is not None or link.evidence.get("kind") != "by hand"):
            triggered = link.at.timestamp()
        if training is not None:
            trained = training.at.timestamp()
    return trained, triggered


def _drifts(spec: RetrainingSpec) -> dict[str, GroupDrift]:
    if spec.hub is None:
        return {}
    test = spec.triggers.drift.test if spec.triggers.drift else DriftTest()
    _, devices = drift_in_store(spec.hub, test, fleet=spec.fleet)
    return {group.group: group for group, _ in group_drift(devices, spec.by) if group.model == spec.release}


def _samples(spec: RetrainingSpec, trained_s: float | None) -> dict[str, _Samples]:
    """By group: new samples, and of those chosen by chance alone, how often the model was right."""
    if spec.data.samples is None:
        return {}
    labels_file = Path(spec.data.labels) if spec.data.labels else None
    labels = read_labels(labels_file) if labels_file and labels_file.is_file() else {}
    classes = class_names(serving_release(spec))
    store = open_store(spec.data.samples, credentials_file=spec.data.credentials_file)
    found: dict[str, _Samples] = {}
    for one in find_samples(store, fleet=spec.fleet):
        if not isinstance(one, Found) or one.sample.model != spec.release:
            continue
        if trained_s is not None and one.sample.captured.timestamp() <= trained_s:
            continue
        group = _group(one.sample, spec.by)
        seen = found.get(group, _Samples())
        seen = replace(seen, new=seen.new + 1)
        label = labels.get(one.digest)
        if label is not None and one.sample.reason == "uniform" and one.sample.top is not None:
            right = class_index(label, one.sample.classes, classes) == one.sample.top
            seen = replace(seen, labelled=seen.labelled + 1, correct=seen.correct + right)
        found[group] = seen
    return found


def _group(sample: FieldSample, by: str) -> str:
    """The group of a sample's device, named as in `group_drift`."""
    if by == "release":
        return f"{sample.model}:{sample.version}"
    return sample.profile if by == "profile" else sample.labels.get(by, NO_LABEL)
