"""Two slots and the pointer to the one that serves: a device always has the model it had before.

A new artifact goes into the slot that does not serve; only when it is whole and proved is the pointer,
`active.json`, replaced in one durable step. While a switch is watched the pointer says so, and a start in
that state goes back to the slot before.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from edgewright.active_slot import POINTER, FailedUpdate, SlotContent, SlotName, SlotState, open_slot
from edgewright.artifact.layout import Layout
from edgewright.artifact.release import Artifact, copy_artifact
from edgewright.contract import from_json, to_json
from edgewright.durable_file import storage_error, write_durably
from edgewright.errors import EdgewrightError, StorageError
from edgewright.twin import DesiredState, ReleaseReference

log = logging.getLogger("edgewright.agent")
LoadedT = TypeVar("LoadedT")
CUT_SHORT = "the agent restarted while the new release was still watched"


@dataclass(frozen=True)
class Serving:
    """An artifact that may serve: every digest of it was just checked."""

    content: SlotContent
    artifact: Artifact


@dataclass
class Slots:
    """The slots below `root`. One process at a time.

    `damage` says why the pointer could not be read; the device then starts as if it had none.
    """

    root: Path
    state: SlotState
    damage: str | None = None

    @staticmethod
    def open(root: Path) -> Slots:
        """The slots at `root`, which is made if it is missing. Raises `StorageError`."""
        path = root / POINTER
        try:
            root.mkdir(parents=True, exist_ok=True)
            return Slots(root, from_json(SlotState, path.read_bytes(), where=str(path)))
        except FileNotFoundError:
            return Slots(root, SlotState())
        except OSError as error:
            raise storage_error(error, root) from None
        except EdgewrightError as error:
            return Slots(root, SlotState(), damage=f"the pointer to the slots cannot be read: {error}")

    def start(self, load: Callable[[Serving], LoadedT]) -> tuple[LoadedT | None, str | None]:
        """Load what serves after a start; with the reason where that is not what the pointer named.

        A switch that was still watched is undone and counts as a failure. A slot that does not verify or
        load is passed over. A disk that cannot be written does not keep a sound slot from serving.
        """
        reason = self.damage
        if self.state.watching is not None:
            reason = CUT_SHORT
            self._settle(self._rolled_back(FailedUpdate(desired=self.state.watching, reason=reason)))
        for content in (self.state.active, self.state.previous):
            if content is None:
                continue
            try:
                loaded = load(self.verify(content))
            except (EdgewrightError, OSError) as error:
                reason = f"slot {content.slot} cannot be used: {error}"
                continue
            if content != self.state.active:
                self._settle(self.state.model_copy(update={"active": content, "previous": None}))
            return loaded, reason
        return None, reason

    def install(self, artifact: Artifact, release: ReleaseReference) -> SlotContent:
        """Copy an artifact into the slot that does not serve. Raises `ArtifactError`, `StorageError`."""
        slot: SlotName = "b" if self.state.active is not None and self.state.active.slot == "a" else "a"
        if self.state.previous is not None:
            # From here on there is nothing to go back to but the active slot.
            self._write(self.state.model_copy(update={"previous": None}))
        folder = self.root / slot
        try:
            if folder.exists():
                shutil.rmtree(folder)
            copied = copy_artifact(artifact, Layout.create(folder))
        except OSError as error:
            raise storage_error(error, folder) from None
        return SlotContent(slot=slot, release=release, artifact=copied.digest)

    def verify(self, content: SlotContent) -> Serving:
        """Check every digest of a slot as it lies on the disk. Raises `ArtifactError`."""
        return Serving(content, open_slot(self.root, content))

    def switch(self, content: SlotContent, desired: DesiredState) -> None:
        """Let the pointer name the new slot, watched. Raises `StorageError`."""
        self._write(SlotState(active=content, previous=self.state.active, watching=desired))

    def commit(self) -> None:
        """Keep the release that was watched. Raises `StorageError`."""
        self._write(self.state.model_copy(update={"watching": None, "failure": None}))

    def roll_back(self, failure: FailedUpdate | None) -> None:
        """Undo a switch that is watched, if there is one, and remember the failure.

        Raises `StorageError` where that cannot be made durable; it holds for this process all the same.
        """
        self.state = self._rolled_back(failure)
        self._write(self.state)

    def folder(self, content: SlotContent) -> Path:
        """Where a slot's artifact lies."""
        return self.root / content.slot

    def _rolled_back(self, failure: FailedUpdate | None) -> SlotState:
        if self.state.watching is None:
            return self.state.model_copy(update={"failure": failure})
        return SlotState(active=self.state.previous, failure=failure)

    def _settle(self, state: SlotState) -> None:
        """Go on from `state` even where the disk refuses it: the next start comes to the same."""
        self.state = state
        try:
            self._write(state)
        except StorageError as error:
            log.warning("the pointer to the slots stays as it is: %s", error)

    def _write(self, state: SlotState) -> None:
        write_durably(self.root / POINTER, to_json(state))
        self.state = state
