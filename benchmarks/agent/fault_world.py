"""What a trial begins with and what comes of it: the device's past, its work, the fault, its copy of the world."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from benchmarks.agent import private_mounts
from edgewright.twin import DesiredState, ReleaseReference

Before = Literal["new", "one", "two", "watched"]
"""What the device had done: nothing, kept one release, kept two, or switched to a third that it still watches."""
Work = Literal["update", "bad update", "start", "roll back by hand"]
Never = 1 << 30


@dataclass(frozen=True)
class World:
    """What all trials share and none changes: the registry and the devices' states to start from."""

    registry: Path
    states: dict[Before, Path]
    wishes: dict[str, DesiredState]
    blobs: tuple[Path, ...]
    """Of the release 1.2.0, relative to the registry."""
    scratch: Path

    def legitimate(self, before: Before) -> set[str | None]:
        """What may serve after an update of such a device was cut short; None: nothing, as nothing was kept."""
        return {{"new": None, "one": "1.0.0", "two": "1.1.0", "watched": "1.1.0"}[before], "1.2.0"}


@dataclass(frozen=True)
class Trial:
    """`step` is the durable step at which the fault strikes, or a part of a whole where it has none."""

    kind: str
    before: Before
    work: Work
    step: int
    seed: int


@dataclass(frozen=True)
class Outcome:
    """What came of a trial; `problem` is None where all was as it must be."""

    trial: Trial
    served: str | None
    problem: str | None
    struck: bool
    """Whether the fault came to pass; a step beyond the last does not."""


def wish(release: ReleaseReference, rollout: str) -> DesiredState:
    """What the fleet would ask for."""
    return DesiredState(release=release, rollout=rollout)


class Place:
    """A trial's own copy of the world; one that may change the registry has a copy of that as well."""

    def __init__(self, world: World, trial: Trial) -> None:
        self.root = Path(tempfile.mkdtemp(dir=world.scratch))
        self.state, self.registry = self.root / "state", world.registry
        if trial.kind in MOUNTED:
            private_mounts.enter()
            self.state.mkdir()
            private_mounts.mount_memory(self.state, DISK_BYTES)
        if trial.kind.startswith("registry"):
            self.registry = self.root / "registry"
            shutil.copytree(world.registry, self.registry)
        # A new device has the folder for its state (systemd's StateDirectory), and nothing in it.
        shutil.copytree(world.states[trial.before], self.state, dirs_exist_ok=True)


DISK_BYTES = 512 << 10
MOUNTED = ("disk full", "disk read-only")
