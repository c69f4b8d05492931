"""The pointer to the model that a device serves, `active.json` in the agent's state folder.

The agent writes it; an application on the device reads it to serve the same model. It is replaced as a whole,
and a slot that it names is not written to before it names another one.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, Field

from edgewright.artifact.manifest import Digest
from edgewright.artifact.release import Artifact, find_artifact
from edgewright.contract import CONTRACT, from_json
from edgewright.durable_file import storage_error
from edgewright.errors import ArtifactError
from edgewright.twin import DesiredState, ReleaseReference

SlotName = Literal["a", "b"]
POINTER = "active.json"
NO_STATE = "start 'edgewright agent run' and roll a release out, or name its state_dir (EDGEWRIGHT_STATE_DIR)"


class SlotContent(BaseModel):
    """What a slot holds."""

    model_config = CONTRACT
    slot: SlotName
    release: ReleaseReference
    artifact: Digest = Field(description="of the artifact's OCI manifest")


class FailedUpdate(BaseModel):
    """The last update that failed, so that the same wish, delivered again, is not tried for ever."""

    model_config = CONTRACT
    desired: DesiredState
    reason: str


class SlotState(BaseModel):
    """The durable pointer."""

    model_config = CONTRACT
    schema_version: Literal[1] = Field(default=1, alias="schema")
    active: SlotContent | None = Field(default=None, description="None: nothing was ever kept")
    previous: SlotContent | None = Field(default=None, description="what a roll back returns to")
    watching: DesiredState | None = Field(
        default=None, description="whose switch to `active` is still watched; None: it is kept"
    )
    kept: DesiredState | None = Field(
        default=None, description="what asked for `active` last; while watching: for `previous`"
    )
    failure: FailedUpdate | None = None
    check: Digest | None = Field(default=None, description="of this JSON without `check`")


def open_slot(root: Path, content: SlotContent) -> Artifact:
    """The artifact in a slot below `root`, every digest of it checked as it lies on the disk.

    Raises `ArtifactError` where it is corrupt, gone, or not what the pointer says, `StorageError` where it
    cannot be read.
    """
    folder = root / content.slot
    artifact = find_artifact(folder)
    if artifact.digest != content.artifact:
        raise ArtifactError("holds another artifact than was installed", where=str(folder))
    return artifact


def read_pointer(root: Path) -> SlotState:
    """What the pointer in the state folder `root` says. Raises `ArtifactError`, `StorageError`."""
    path = root / POINTER
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        problem = "the agent has no model here yet" if root.is_dir() else "no agent keeps its state here"
        raise ArtifactError(problem, where=str(root), remedy=NO_STATE) from None
    except OSError as error:
        raise storage_error(error, path) from None
    return from_json(SlotState, data, where=str(path), error=ArtifactError)
