"""Two slots and the pointer to the one that serves: a device always has the model it had before.

A new artifact goes into the slot that does not serve; only when it is whole and proved is the pointer
replaced, in one durable step. While a switch is watched the pointer says so, and a start in that state goes
back to the slot before.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, Field

from edgewright.artifact.layout import Layout
from edgewright.artifact.manifest import Digest
from edgewright.artifact.release import Artifact, copy_artifact, find_artifact
from edgewright.contract import CONTRACT, from_json, to_json
from edgewright.durable_file import storage_error, write_durably
from edgewright.errors import ArtifactError, EdgewrightError
from edgewright.twin import ReleaseReference

SlotName = Literal["a", "b"]


class SlotContent(BaseModel):
    """What a slot holds."""

    model_config = CONTRACT
    slot: SlotName
    release: ReleaseReference
    artifact: Digest


class FailedUpdate(BaseModel):
    """The last update that failed, so that the same wish, delivered again, is not tried for ever."""

    model_config = CONTRACT
    release: Digest
    rollout: str
    revert: bool
    reason: str


class SlotState(BaseModel):
    """The durable pointer, `slots.json`."""

    model_config = CONTRACT
    schema_version: Literal[1] = Field(default=1, alias="schema")
    active: SlotContent | None = None
    previous: SlotContent | None = None
    watching: bool = False
    failure: FailedUpdate | None = None


@dataclass(frozen=True)
class Serving:
    """An artifact that may serve, with what is known of it."""

    content: SlotContent
    artifact: Artifact


@dataclass
class Slots:
    """The slots below `root`. One process at a time."""

    root: Path
    state: SlotState

    @staticmethod
    def open(root: Path) -> Slots:
        """The slots at `root`; an unreadable pointer counts as none, since a device must start."""
        path = root / "slots.json"
        try:
            root.mkdir(parents=True, exist_ok=True)
            state = from_json(SlotState, path.read_bytes(), where=str(path))
        except FileNotFoundError:
            state = SlotState()
        except OSError as error:
            raise storage_error(error, root) from None
        except EdgewrightError:
            state = SlotState()
        return Slots(root, state)

    def start(self) -> tuple[Serving | None, str | None]:
        """What to serve after a start, and why it is not what was wanted (None when it is).

        A switch that was still watched is undone. A slot that does not verify is passed over.
        """
        reason = None
        if self.state.watching:
            reason = "restarted while the new release was still watched"
            self.roll_back()
        for content in (self.state.active, self.state.previous):
            if content is None:
                continue
            try:
                serving = Serving(content, self._open(content))
            except EdgewrightError as error:
                reason = f"slot {content.slot} cannot be used: {error}"
                continue
            if content != self.state.active:
                self._write(self.state.model_copy(update={"active": content, "previous": None}))
            return serving, reason
        return None, reason

    def install(self, artifact: Artifact, release: ReleaseReference) -> SlotContent:
        """Copy an artifact into the slot that does not serve. Raises `ArtifactError`, `StorageError`."""
        slot: SlotName = "b" if self.state.active is not None and self.state.active.slot == "a" else "a"
        if self.state.previous is not None and self.state.previous.slot == slot:
            # From here on there is nothing to go back to but the active slot.
            self._write(self.state.model_copy(update={"previous": None}))
        folder = self.root / slot
        try:
            shutil.rmtree(folder, ignore_errors=False)
        except FileNotFoundError:
            pass
        except OSError as error:
            raise storage_error(error, folder) from None
        copied = copy_artifact(artifact, Layout.create(folder))
        return SlotContent(slot=slot, release=release, artifact=copied.digest)

    def verify(self, content: SlotContent) -> Serving:
        """Check every digest of a slot as it lies on the disk. Raises `ArtifactError`."""
        return Serving(content, self._open(content))

    def switch(self, content: SlotContent) -> None:
        """Let the pointer name the new slot, watched."""
        self._write(SlotState(active=content, previous=self.state.active, watching=True))

    def commit(self) -> None:
        """Keep the release that was watched."""
        self._write(self.state.model_copy(update={"watching": False, "failure": None}))

    def roll_back(self) -> None:
        """Point to the slot before; None where there was none."""
        state = {"active": self.state.previous, "previous": None, "watching": False}
        self._write(self.state.model_copy(update=state))

    def remember_failure(self, failure: FailedUpdate) -> None:
        """Keep why an update failed."""
        self._write(self.state.model_copy(update={"failure": failure}))

    def folder(self, content: SlotContent) -> Path:
        """Where a slot's artifact lies."""
        return self.root / content.slot

    def _open(self, content: SlotContent) -> Artifact:
        artifact = find_artifact(self.folder(content))
        if artifact.digest != content.artifact:
            raise ArtifactError("holds another artifact than was installed", where=str(self.folder(content)))
        return artifact

    def _write(self, state: SlotState) -> None:
        write_durably(self.root / "slots.json", to_json(state))
        self.state = state
