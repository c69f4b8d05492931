"""From a store and a file of labels to a frozen data set. It appears whole or not at all."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from edgewright.artifact.layout import digest_of, digest_of_file
from edgewright.contract import to_json
from edgewright.durable_file import storage_error, sync_folder, write_durably
from edgewright.errors import DataError
from edgewright.field_sample import SUFFIX, FieldSample, Reason, unpack
from edgewright.object_store import ObjectStore
from edgewright_fleet.retraining.field_data.catalogue import Unreadable, fetch_bytes, find_samples
from edgewright_fleet.retraining.field_data.data_set import (
    ENTRIES,
    MANIFEST,
    SAMPLES,
    DataSetEntry,
    DataSetManifest,
    InputShape,
    Part,
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
    partial = output.with_name(f".{output.name}.partial")
    try:
        shutil.rmtree(partial, ignore_errors=True)  # of an earlier run that was cut short
        (partial / SAMPLES).mkdir(parents=True)
        seen = _Seen()
        with (partial / ENTRIES).open("wb") as entries:
            for done, (digest, key) in enumerate(chosen, start=1):
                data = fetch_bytes(store, key, digest)
                sample, _ = unpack(data, key)
                seen.check(sample, key)
                entry = _entry(digest, len(data), sample, labels[digest], rule, names)
                _write(sample_path(partial, digest), data)
                entries.write(to_json(entry) + b"\n")
                seen.add(entry)
                progress(done, len(chosen))
            entries.flush()
            os.fsync(entries.fileno())
        first = seen.first
        assert first is not None
        manifest = DataSetManifest(
            model=first.model,
            classes=tuple(names) if names is not None else None,
            class_count=len(names) if names is not None else first.classes or 0,
            inputs=_inputs(first),
            split=rule,
            counts=seen.counts,
            reasons=seen.reasons,
            releases=tuple(sorted(seen.releases)),
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


@dataclass
class _Seen:
    """Sums over the samples of a data set."""

    first: FieldSample | None = None
    counts: Counter[Part] = field(default_factory=Counter)
    reasons: Counter[Reason] = field(default_factory=Counter)
    releases: set[str] = field(default_factory=set)

    def check(self, sample: FieldSample, key: str) -> None:
        """Raise `DataError` for a sample that is not like the first."""
        first = self.first = self.first or sample
        if _inputs(sample) != _inputs(first) or sample.classes != first.classes:
            raise DataError("has other inputs or classes than the first sample", where=key)

    def add(self, entry: DataSetEntry) -> None:
        self.counts[entry.part] += 1
        self.reasons[entry.reason] += 1
        self.releases.add(entry.release)


def _chosen(
    store: ObjectStore,
    labels: dict[str, Label],
    skipped: Counter[str],
    fleet: str | None,
    model: str | None,
) -> list[tuple[str, str]]:
    """Digest and key of the samples that can be trained on, in order; the others are counted by why."""
    chosen: list[tuple[str, str]] = []
    known: set[str] = set()
    models: set[str] = set()
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
            chosen.append((found.digest, found.key))
            models.add(found.sample.model)
    check_known(labels, known)
    if len(models) > 1:
        listed = ", ".join(sorted(models))
        raise DataError(f"the labelled samples are of the models {listed}", remedy="choose one with --model")
    if not chosen:
        why = (
            "; ".join(f"{count} {reason}" for reason, count in sorted(skipped.items()))
            or "the store is empty"
        )
        raise DataError(f"no sample has a label and an input ({why})")
    return sorted(chosen)


def _entry(
    digest: str, size: int, sample: FieldSample, label: Label, rule: SplitRule, names: Sequence[str] | None
) -> DataSetEntry:
    return DataSetEntry(
        digest=digest,
        payload_digest=sample.payload_digest,
        bytes=size,
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


def _write(path: Path, data: bytes) -> None:
    """The folder is made durable as a whole, when all is in it."""
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def sample_path(folder: Path, digest: str) -> Path:
    """Where a data set keeps a sample."""
    return folder / SAMPLES / f"{digest.removeprefix('sha256:')}{SUFFIX}"


def _inputs(sample: FieldSample) -> tuple[InputShape, ...]:
    return tuple(
        InputShape(name=tensor.spec.name, shape=tensor.spec.source_shape) for tensor in sample.tensors
    )
