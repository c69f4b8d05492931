"""The stage `data`: labelled samples from the field, frozen, beside the training and evaluation data there are."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path

from pydantic import JsonValue

from edgewright.artifact.layout import digest_of_file
from edgewright.object_store import open_store
from edgewright_fleet.retraining.field_data.collect import Progress, collect
from edgewright_fleet.retraining.field_data.data_set import SplitRule
from edgewright_fleet.retraining.field_data.reading import open_data_set
from edgewright_fleet.retraining.promotion.samples import LabelledSample
from edgewright_fleet.retraining.releases import class_names, serving_release
from edgewright_fleet.retraining.run import Run
from edgewright_fleet.retraining.spec import RetrainingSpec
from edgewright_fleet.retraining.stages.step import Step, Tools
from edgewright_fleet.retraining.triggers.trigger import Trigger


def gather(run: Run, spec: RetrainingSpec, tools: Tools) -> Step:
    # Of an attempt that was cut short; what is not asked for now must not be trained on.
    folder = run.folder / "field"
    if folder.exists():
        shutil.rmtree(folder)
    (run.folder / "field.npz").unlink(missing_ok=True)
    evidence: dict[str, JsonValue] = {
        "training": data_digest(spec.data.training),
        "evaluation": data_digest(spec.data.evaluation),
    }
    labels = spec.data.labels
    if spec.data.samples is None or labels is None:
        return Step("no data from the field was asked for", evidence)
    if not Path(labels).is_file():
        return Step(f"no data from the field: there are no labels in {labels} yet", evidence)
    since = max(tools.now() - timedelta(days=spec.data.recent_days), _drifted_at(run))
    manifest, digest = collect(
        open_store(spec.data.samples, credentials_file=spec.data.credentials_file),
        Path(labels),
        folder,
        SplitRule(held_out_share=spec.data.held_out_share, recent_since=since),
        fleet=spec.fleet,
        model=spec.release,
        names=class_names(serving_release(spec)),
        progress=_each_percent(tools),
    )
    counts = {part: manifest.counts.get(part, 0) for part in ("training", "evaluation", "held-out")}
    if counts["training"]:
        open_data_set(folder).write_npz("training", run.folder / "field.npz")
    return Step(
        f"{counts['training']} labelled samples from the field to train on, {counts['evaluation']} to judge by",
        evidence | {"field": digest, "field_counts": dict(counts), "labels": manifest.labels_digest},
    )


def _each_percent(tools: Tools) -> Progress:
    """Tells how far collecting is, a hundred times at most."""
    began, told = None, 0

    def tell(done: int, of: int) -> None:
        nonlocal began, told
        began = began or tools.now()  # the store was listed before, which takes its own time
        if told != (told := 100 * done // of):
            left_s = (tools.now() - began).total_seconds() / done * (of - done)
            tools.show(done - 1, of, "collecting samples from the field", left_s)

    return tell


def _drifted_at(run: Run) -> datetime:
    """When the data changed that the run is for: what is older says nothing of it. The year 1: not for drift."""
    link = run.chain.last("trigger")
    document = link.evidence.get("trigger") if link else None
    if not isinstance(document, dict):
        return datetime.min.replace(tzinfo=timezone.utc)
    trigger = Trigger.model_validate(document)
    since_s = trigger.evidence.drift.since_s if trigger.kind == "drift" and trigger.evidence.drift else None
    return datetime.fromtimestamp(since_s or 0.0, timezone.utc)


def field_samples(run: Run) -> Iterator[LabelledSample]:
    """The recent labelled samples that were never trained on."""
    if not (run.folder / "field").is_dir():
        return
    for sample in open_data_set(run.folder / "field").read("evaluation"):
        entry = sample.entry
        groups = {"profile": entry.profile, "device": entry.device, **entry.device_labels}
        yield LabelledSample(
            {name: array[None] for name, array in sample.inputs.items()},
            sample.label,
            groups,
            entry.inclusion_probability,
        )


def data_digest(data: str) -> str | None:
    """Of a data set that is a file; a folder, a URL or a function has none that would hold."""
    return digest_of_file(Path(data)) if Path(data).is_file() else None
