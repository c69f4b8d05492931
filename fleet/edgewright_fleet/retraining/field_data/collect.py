"""From a store and a file of labels to a frozen data set. It appears whole or not at all."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from edgewright.artifact.layout import digest_of, digest_of_file
from edgewright.contract import to_json
from edgewright.durable_file import storage_error, sync_folder, write_durably
from edgewright.errors import DataError
from edgewright.field_sample import SUFFIX, FieldSample
from edgewright.object_store import ObjectStore
from edgewright_fleet.retraining.field_data.catalogue import Found, Unreadable, fetch, find_samples
from edgewright_fleet.retraining.field_data.data_set import (
    ENTRIES,
    MANIFEST,
    SAMPLES,
    DataSetEntry,
    DataSetManifest,
    InputShape,
    SplitRule,
    part_of,
)
from edgewright_fleet.retraining.field_data.labels import Label, check_known, class_index, read_labels

Progress = Callable[[int, int], None]
"""Told how many samples of how many are done."""


def collect(
    store: ObjectStore,
    labels_file: Path,
    output: Path,
    rule: SplitRule,
    *,
    fleet: str | None = None,
    model: str | None = None,
    names: Sequence[str] | None = None,
    progress: Progress = lambda done, of: None,
) -> tuple[DataSetManifest, str]:
    """Freeze the labelled samples of one model as a data set in the new folder `output`; with its digest.

    `model` names the model where the store has samples of several, `names` are its classes. Raises `DataError` for
    labels and samples that do not fit, `StorageError`.
    """
    if output.exists():
        raise DataError(
            "is there already; a data set never changes", where=str(output), remedy="name another"
        )
    labels = read_labels(labels_file)
    skipped: Counter[str] = Counter()
    chosen = _chosen(store, labels, skipped, fleet, model)
    first = chosen[0].sample
    partial = output.with_name(f".{output.name}.partial")
    try:
        shutil.rmtree(partial, ignore_errors=True)  # of an earlier run that was cut short
        (partial / SAMPLES).mkdir(parents=True)
        counts, reasons, releases = _write(store, chosen, labels, partial, rule, names, progress)
        manifest = DataSetManifest(
            model=first.model,
            classes=tuple(names) if names is not None else None,
            class_count=len(names) if names is not None else first.classes or 0,
            inputs=_inputs(first),
            split=rule,
            counts=counts,
            reasons=reasons,
            releases=tuple(sorted(releases)),
            labels_digest=digest_of_file(labels_file),
            entries_digest=digest_of_file(partial / ENTRIES),
            skipped=dict(sorted(skipped.items())),
        )
        write_durably(partial / MANIFEST, to_json(manifest))
        sync_folder(partial / SAMPLES)
        partial.rename(output)
        sync_folder(output.absolute().parent)
    except OSError as error:
        raise storage_error(error, output) from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return manifest, digest_of(to_json(manifest))


def _chosen(
    store: ObjectStore,
    labels: dict[str, Label],
    skipped: Counter[str],
    fleet: str | None,
    model: str | None,
) -> list[Found]:
    """The samples that can be trained on, in the order of their digests; the others are counted by why."""
    chosen: list[Found] = []
    known: set[str] = set()
    for found in find_samples(store, fleet=fleet):
        if isinstance(found, Unreadable):
            skipped["unreadable"] += 1
            continue
        known.add(found.digest)
        if model is not None and found.sample.model != model:
            skipped["of another model"] += 1
        elif found.sample.policy.store != "input":
            skipped["without their input, by policy"] += 1
        elif found.digest not in labels:
            skipped["without a label"] += 1
        else:
            chosen.append(found)
    check_known(labels, known)
    models = sorted({found.sample.model for found in chosen})
    if len(models) > 1:
        raise DataError(f"the labelled samples are of the models {', '.join(models)}", remedy="choose one")
    if not chosen:
        why = (
            "; ".join(f"{count} {reason}" for reason, count in sorted(skipped.items()))
            or "the store is empty"
        )
        raise DataError(f"no sample has a label and an input ({why})")
    return sorted(chosen, key=lambda found: found.digest)


def _write(
    store: ObjectStore,
    chosen: Sequence[Found],
    labels: dict[str, Label],
    folder: Path,
    rule: SplitRule,
    names: Sequence[str] | None,
    progress: Progress,
) -> tuple[Counter[str], Counter[str], set[str]]:
    counts, reasons, releases = Counter[str](), Counter[str](), set[str]()
    inputs = _inputs(chosen[0].sample)
    with (folder / ENTRIES).open("wb") as entries:
        for done, found in enumerate(chosen, start=1):
            sample = found.sample
            if _inputs(sample) != inputs or sample.classes != chosen[0].sample.classes:
                raise DataError("has other inputs or classes than the first sample", where=found.key)
            label = labels[found.digest]
            data, _ = fetch(store, found)
            entry = DataSetEntry(
                digest=found.digest,
                payload_digest=sample.payload_digest,
                bytes=len(data),
                part=part_of(sample.payload_digest, sample.captured, rule),
                label=class_index(label, sample.classes, names),
                labeller=label.row.labeller,
                labelled=label.row.time,
                fleet=sample.fleet,
                device=sample.device,
                device_labels=sample.labels,
                profile=sample.profile,
                version=sample.version,
                release=sample.release,
                captured=sample.captured,
                reason=sample.reason,
                inclusion_probability=sample.inclusion_probability,
                policy=digest_of(to_json(sample.policy)),
            )
            with sample_path(folder, found.digest).open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            entries.write(to_json(entry) + b"\n")
            counts[entry.part] += 1
            reasons[entry.reason] += 1
            releases.add(entry.release)
            progress(done, len(chosen))
        entries.flush()
        os.fsync(entries.fileno())
    return counts, reasons, releases


def sample_path(folder: Path, digest: str) -> Path:
    """Where a data set keeps a sample."""
    return folder / SAMPLES / f"{digest.removeprefix('sha256:')}{SUFFIX}"


def _inputs(sample: FieldSample) -> tuple[InputShape, ...]:
    return tuple(
        InputShape(name=tensor.spec.name, shape=tensor.spec.source_shape) for tensor in sample.tensors
    )
