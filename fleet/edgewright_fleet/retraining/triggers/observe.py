"""From a hub's store to what its devices' data has done."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from pathlib import Path

from edgewright.artifact.release import open_all
from edgewright.errors import DataError
from edgewright.telemetry.sketch import DataSketch
from edgewright_fleet.hub.sketches import Columns
from edgewright_fleet.hub.store import HubStore
from edgewright_fleet.retraining.triggers.drift_test import DriftTest
from edgewright_fleet.retraining.triggers.history import DeviceDrift, History, follow, histories

References = Mapping[tuple[str, str], DataSketch]
"""What devices of a (profile, release) are held against."""
Progress = Callable[[int, int], None]
"""Told how many devices were read, and of how many."""


def references(target: str) -> References:
    """The data that the artifacts in a folder or reference were judged on. Raises `EdgewrightError`."""
    found = {
        (a.manifest.profile, f"{a.manifest.name}:{a.manifest.version}"): a.manifest.drift_reference.sketch
        for a in open_all(target)
        if a.manifest.drift_reference is not None
    }
    if not found:
        raise DataError(
            "no artifact says what data it was judged on", where=target, remedy="convert with --evaluation"
        )
    return found


def drift_in_store(
    store: Path,
    test: DriftTest,
    *,
    fleet: str | None = None,
    block_s: float | None = None,
    against: References | None = None,
    progress: Progress | None = None,
) -> tuple[str, list[DeviceDrift]]:
    """The fleet's name and each device that sent sketches; a hub may be writing. Raises `StorageError`.

    With `against` only devices of those profiles and releases, held against those sketches.
    """
    with closing(HubStore(store, fleet, read_only=True)) as hub:
        known = hub.devices()
        about = {device.name: (device.profile, dict(device.labels)) for device in known}
        found = histories(_counted(hub.sketch_columns(), len(known), progress), about)
        if against is None:
            return hub.fleet, follow(found, test, block_s=block_s)
        alike: dict[tuple[str, str], list[History]] = {}
        for history in found:
            key = (history.profile, history.release)
            if key in against and history.like(against[key]):
                alike.setdefault(key, []).append(history)
        fleet = hub.fleet
    held = []
    for key, members in alike.items():
        held += follow(members, test, block_s=block_s, reference=against[key])
    return fleet, held


def _counted(
    sketches: Iterable[tuple[str, Columns]], devices: int, progress: Progress | None
) -> Iterator[tuple[str, Columns]]:
    for number, one in enumerate(sketches):
        if progress is not None:
            progress(number, devices)
        yield one
