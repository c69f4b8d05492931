"""From a hub's store to what its devices' data has done."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

from edgewright.artifact.release import open_all
from edgewright.errors import DataError
from edgewright.telemetry.sketch import DataSketch
from edgewright_fleet.hub.store import HubStore
from edgewright_fleet.retraining.triggers.drift_test import DriftTest
from edgewright_fleet.retraining.triggers.history import DeviceDrift, follow, histories

References = Mapping[tuple[str, str], DataSketch]
"""What devices of a (profile, release) are held against."""


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
) -> tuple[str, list[DeviceDrift]]:
    """The fleet's name and each device that sent sketches; a hub may be writing. Raises `StorageError`.

    With `against` only devices of those profiles and releases, held against those sketches.
    """
    with closing(HubStore(store, fleet, read_only=True)) as hub:
        about = {device.name: (device.profile, dict(device.labels)) for device in hub.devices()}
        found = histories(list(hub.sketches()), about)
        fleet = hub.fleet
    if against is None:
        return fleet, follow(found, test, block_s=block_s)
    held = []
    for (profile, release), reference in against.items():
        alike = [h for h in found if (h.profile, h.release) == (profile, release) and h.like(reference)]
        held += follow(alike, test, block_s=block_s, reference=reference)
    return fleet, held
