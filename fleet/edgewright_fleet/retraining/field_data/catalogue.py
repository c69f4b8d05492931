"""What a store holds: samples by their first line, their sums by group and reason, and forgetting a device."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime

from edgewright.artifact.layout import digest_of
from edgewright.errors import DataError
from edgewright.field_sample import (
    FOLDER,
    HEAD_BYTES,
    SUFFIX,
    Array,
    FieldSample,
    device_folder,
    digest_in,
    key_of,
    read_head,
    unpack,
)
from edgewright.object_store import ObjectStore


@dataclass(frozen=True)
class Found:
    """A sample in a store."""

    key: str
    digest: str
    size: int
    """Bytes."""
    sample: FieldSample


@dataclass(frozen=True)
class Unreadable:
    """An object among the samples that is none."""

    key: str
    problem: str


@dataclass(frozen=True)
class Group:
    """The samples of one group of devices that were chosen for one reason."""

    group: str
    reason: str
    samples: int
    bytes: int
    devices: int
    first: datetime
    last: datetime
    inferences: float
    """Estimate of how many inferences they stand for: the sum of the inverse probabilities."""


def find_samples(
    store: ObjectStore, *, fleet: str | None = None, device: str | None = None
) -> Iterator[Found | Unreadable]:
    """The samples of a store, each by its first line alone. Raises `StorageError`."""
    prefix = f"{FOLDER}/" if fleet is None else f"{FOLDER}/{fleet}/"
    if fleet is not None and device is not None:
        prefix = device_folder(fleet, device)
    for stored in store.objects(prefix):
        if not stored.key.endswith(SUFFIX):
            continue
        try:
            sample = read_head(store.read(stored.key, HEAD_BYTES), stored.key)
            digest = digest_in(stored.key)
            if key_of(sample, digest) != stored.key:
                raise DataError("lies where a sample of another device or day belongs", where=stored.key)
        except DataError as error:
            yield Unreadable(stored.key, str(error))
            continue
        if device is None or sample.device == device:
            yield Found(stored.key, digest, stored.size, sample)


def fetch(store: ObjectStore, found: Found) -> tuple[bytes, list[Array]]:
    """A whole sample, its digest verified: its bytes, and its tensors as they are stored.

    Raises `DataError` where it is damaged, `StorageError`.
    """
    data = fetch_bytes(store, found.key, found.digest)
    return data, unpack(data, found.key)[1]


def fetch_bytes(store: ObjectStore, key: str, digest: str) -> bytes:
    """A whole sample as a file, its digest verified. Raises as `fetch`."""
    data = store.read(key)
    if digest_of(data) != digest:
        raise DataError("is damaged: its digest is another than its name's", where=key)
    return data


def summary(samples: Iterable[Found], by: str = "profile") -> list[Group]:
    """Samples by group and reason; `by` is `device`, `profile`, `version` or a label of the devices."""
    rows: dict[tuple[str, str], list[Found]] = {}
    for found in samples:
        rows.setdefault((group_of(found.sample, by), found.sample.reason), []).append(found)
    return [
        Group(
            group,
            reason,
            len(row),
            sum(found.size for found in row),
            len({(found.sample.fleet, found.sample.device) for found in row}),
            min(found.sample.captured for found in row),
            max(found.sample.captured for found in row),
            sum(1 / found.sample.inclusion_probability for found in row),
        )
        for (group, reason), row in sorted(rows.items())
    ]


def group_of(sample: FieldSample, by: str) -> str:
    """The group that a sample's device is in."""
    if by in ("device", "profile", "version"):
        return str(getattr(sample, by))
    return sample.labels.get(by, "none")


def forget(store: ObjectStore, fleet: str, device: str) -> int:
    """Erase all that a device sent, also what is half-uploaded; how many objects there were.

    Raises `StorageError`. A device that still samples sends more; a data set that was collected before keeps its
    own copies; a bucket that keeps versions keeps them.
    """
    prefix = device_folder(fleet, device)
    keys = [stored.key for stored in store.objects(prefix)]
    for key in keys:
        store.delete(key)
    return len(keys) + store.abandon(prefix)
