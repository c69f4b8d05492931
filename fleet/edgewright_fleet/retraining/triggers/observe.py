"""From a hub's store to what its devices' data has done."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from edgewright_fleet.hub.store import HubStore
from edgewright_fleet.retraining.triggers.drift_test import DriftTest
from edgewright_fleet.retraining.triggers.history import DeviceDrift, follow, histories


def drift_in_store(
    store: Path, test: DriftTest, *, fleet: str | None = None, block_s: float | None = None
) -> tuple[str, list[DeviceDrift]]:
    """The fleet's name and each device that sent sketches; a hub may be writing. Raises `StorageError`."""
    with closing(HubStore(store, fleet, read_only=True)) as hub:
        about = {device.name: (device.profile, dict(device.labels)) for device in hub.devices()}
        found = histories(list(hub.sketches()), about)
        return hub.fleet, follow(found, test, block_s=block_s)
