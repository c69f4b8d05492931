"""Two slots and the pointer to the one that serves: a device always has the model it had before.

A new artifact goes into the slot that does not serve; only when it is whole and proved is the pointer,
`active.json` and a copy of it, replaced in one durable step. While a switch is watched the pointer says so,
and a start in that state goes back to the slot before.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from edgewright.active_slot import POINTER, FailedUpdate, SlotContent, SlotName, SlotState, open_slot
from edgewright.artifact.layout import Layout, is_away
from edgewright.artifact.release import Artifact, copy_artifact
from edgewright.durable_file import storage_error
from edgewright.errors import ArtifactError, EdgewrightError, StorageError
from edgewright.figures import size
from edgewright.twin import DesiredState, ReleaseReference
from edgewright_agent.checked_file import read_checked, sweep_unfinished, write_checked

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

    `damage` says why neither the pointer nor its copy could be read; the device then starts as if it had none.
    """

    root: Path
    state: SlotState
    damage: str | None = None
    mend: bool = False
    """Whether the pointer and its copy differ; a start writes both anew."""

    @staticmethod
    def open(root: Path) -> Slots:
        """The slots at `root`, which is made if it is missing. Raises `StorageError`."""
        try:
            root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise storage_error(error, root) from None
        found = read_checked(SlotState, root / POINTER)
        if found.content is not None:
            if found.damage is not None:
                log.warning("the pointer to the slots is mended from its copy: %s", found.damage)
            return Slots(root, found.content, mend=found.mend)
        damage = f"the pointer to the slots cannot be read: {found.damage}" if found.damage else None
        return Slots(root, SlotState(), damage=damage)

    def start(self, load: Callable[[Serving], LoadedT]) -> tuple[LoadedT | None, str | None]:
        """Load what serves after a start; with the reason where that is not what the pointer named.

        A switch that was still watched is undone and counts as a failure. A slot that does not verify or
        load is passed over. A disk that cannot be written does not keep a sound slot from serving.
        """
        reason = self.damage
        sweep_unfinished(self.root / POINTER)
        if self.state.watching is not None:
            reason = CUT_SHORT
            self._settle(self._rolled_back(FailedUpdate(desired=self.state.watching, reason=reason)))
        elif self.mend:
            self._settle(self.state)
        for content in (self.state.active, self.state.previous):
            if content is None:
                continue
            try:
                loaded = load(self.verify(content))
            except (EdgewrightError, OSError) as error:
                reason = f"slot {content.slot} cannot be used: {error}"
                continue
            if content != self.state.active:
                state = {"active": content, "previous": None, "kept": None}
                self._settle(self.state.model_copy(update=state))
            return loaded, reason
        return None, reason

    def install(self, artifact: Artifact, release: ReleaseReference) -> SlotContent:
        """Copy an artifact into the slot that does not serve. Raises `ArtifactError`, `StorageError`.

        Where its source fails, the next attempt goes on with the blobs that were copied; where this disk fails,
        nothing of it stays, so that a disk that it filled has room again.
        """
        slot: SlotName = "b" if self.state.active is not None and self.state.active.slot == "a" else "a"
        folder = self.root / slot
        _check_room(folder, sum(blob.size for blob in artifact.blobs))
        if self.state.previous is not None or self.state.failure is not None:
            # From here on there is nothing to go back to but the active slot.
            self._write(self.state.model_copy(update={"previous": None, "failure": None}))
        try:
            digests = [blob.digest for blob in (*artifact.blobs, artifact.descriptor)]
            copied = copy_artifact(artifact, Layout.anew(folder, keep=digests))
        except BaseException as error:
            if not is_away(error, artifact.layout.root):
                shutil.rmtree(folder, ignore_errors=True)
            if isinstance(error, OSError):
                raise storage_error(error, folder) from None
            raise
        return SlotContent(slot=slot, release=release, artifact=copied.digest)

    def verify(self, content: SlotContent) -> Serving:
        """Check every digest of a slot as it lies on the disk. Raises `ArtifactError`."""
        return Serving(content, open_slot(self.root, content))

    def switch(self, content: SlotContent, desired: DesiredState) -> None:
        """Let the pointer name the new slot, watched. Raises `StorageError`."""
        before = self.state
        self._write(SlotState(active=content, previous=before.active, watching=desired, kept=before.kept))

    def commit(self) -> None:
        """Keep the release that was watched. Raises `StorageError`."""
        kept = {"watching": None, "failure": None, "kept": self.state.watching}
        self._write(self.state.model_copy(update=kept))

    def note(self, desired: DesiredState) -> None:
        """Remember that what is active is what the fleet asked for last, which ends an earlier failure.

        Raises `StorageError`.
        """
        state = self.state.model_copy(update={"kept": desired, "failure": None})
        if state != self.state:
            self._write(state)

    def go_back(self, reason: str) -> SlotContent:
        """Let the pointer name the release before, kept, for good; for use by hand, while nothing is watched.

        The wish that brought the release that served counts as failed, so that the same one, delivered again,
        does not bring it back. Going back once more returns to it. Raises `EdgewrightError` where there is
        none before or it is corrupt, `StorageError` where the pointer cannot be written.
        """
        previous, kept = self.previous(), self.state.kept
        self.verify(previous)
        failure = FailedUpdate(desired=kept, reason=reason) if kept is not None else None
        self._write(SlotState(active=previous, previous=self.state.active, failure=failure))
        return previous

    def previous(self) -> SlotContent:
        """The release before the one that serves. Raises `ArtifactError` where there is none to go back to."""
        if self.state.previous is None or self.state.watching is not None:
            raise ArtifactError("there is no release to go back to", where=str(self.root))
        return self.state.previous

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
        return SlotState(active=self.state.previous, kept=self.state.kept, failure=failure)

    def _settle(self, state: SlotState) -> None:
        """Go on from `state` even where the disk refuses it: the next start comes to the same."""
        self.state = state
        try:
            self._write(state)
        except StorageError as error:
            log.warning("the pointer to the slots stays as it is: %s", error)

    def _write(self, state: SlotState) -> None:
        write_checked(self.root / POINTER, state)
        self.state = state


def _check_room(folder: Path, needed: int) -> None:
    """Raise `StorageError` where the disk cannot take `needed` bytes in place of what `folder` holds."""
    try:
        room = _held(folder) + shutil.disk_usage(folder.parent).free
    except OSError as error:
        raise storage_error(error, folder) from None
    if room < needed:
        problem = f"the disk has room for {size(room)}, and the artifact takes {size(needed)}"
        raise StorageError(problem, where=str(folder), remedy="free some space")


def _held(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
