"""Distributed checkpoints that are written while training goes on, and read only when they are whole.

`torch.distributed.checkpoint` does the work: each rank writes its part to a file of its own. Here each rank also
takes the digest of its file, and rank 0 ends the checkpoint with `whole.json` (see `whole`). Reading executes
nothing that lies in a file: torch pickles a checkpoint's index, which is read with a list of allowed classes.
"""

from __future__ import annotations

import io
import pickle  # noqa: S403 - to narrow what torch unpickles
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed import checkpoint as dcp
from torch.distributed.checkpoint.default_planner import DefaultLoadPlanner
from torch.distributed.checkpoint.metadata import Metadata
from torch.distributed.checkpoint.storage import WriteResult

from edgewright.errors import ConfigError, DataError

from .whole import (
    clear,
    declare_whole,
    folder_of,
    prune,
    read_whole,
    set_aside,
    stored_file,
    verify,
    whole_steps,
)

_INDEX = ".metadata"


def save(state: Mapping[str, Any], folder: Path, step: int, group: dist.ProcessGroup) -> Future[Any]:
    """Copy the state, and return while it is written; the future raises what went wrong on any rank.

    Collective. The next one must wait for this future. `group` needs a CPU backend, and is used for nothing else.
    """
    writer = _Writer(folder, step, dist.get_world_size(group))
    return dcp.async_save(dict(state), storage_writer=writer, process_group=group)


class _Writer(dcp.FileSystemWriter):
    """Writes one checkpoint."""

    def __init__(self, folder: Path, step: int, world_size: int) -> None:
        super().__init__(folder_of(folder, step), sync_files=True)
        self._folder, self._step, self._world_size = folder, step, world_size

    def prepare_global_plan(self, plans: list[Any]) -> list[Any]:
        """On rank 0, before any rank writes: what an earlier attempt left at this step goes first."""
        checkpoint = folder_of(self._folder, self._step)
        clear(checkpoint)
        checkpoint.mkdir(parents=True)
        return list(super().prepare_global_plan(plans))

    def write_data(self, plan: Any, planner: Any) -> torch.futures.Future[list[_Written]]:
        """Write this rank's files, and take their digests while they are in memory."""
        written = super().write_data(plan, planner).wait()
        checkpoint = folder_of(self._folder, self._step)
        digests = {
            name: stored_file(checkpoint / name)
            for name in {one.storage_data.relative_path for one in written}
        }
        results = [
            _Written(one.index, one.size_in_bytes, one.storage_data, digests[one.storage_data.relative_path])
            for one in written
        ]
        done: torch.futures.Future[list[_Written]] = torch.futures.Future()
        done.set_result(results)
        return done

    def finish(self, metadata: Metadata, results: list[list[Any]]) -> None:
        """On rank 0, once every rank has written."""
        super().finish(metadata, results)
        checkpoint = folder_of(self._folder, self._step)
        files = {one.storage_data.relative_path: one.stored for part in results for one in part}
        files[_INDEX] = stored_file(checkpoint / _INDEX)
        declare_whole(checkpoint, self._step, self._world_size, files)
        prune(self._folder)


@dataclass(frozen=True)
class _Written(WriteResult):
    """A tensor that was written, with the digest of the file it is in."""

    stored: Any


@dataclass(frozen=True)
class Found:
    """A checkpoint whose every byte was checked, and why newer ones were passed over."""

    checkpoint: Path
    step: int
    world_size: int


def find(folder: Path, group: dist.ProcessGroup) -> tuple[Found | None, list[str]]:
    """The newest checkpoint that is whole, and what was wrong with each newer one. Collective."""
    rank, ranks = dist.get_rank(group), dist.get_world_size(group)
    damaged: list[str] = []
    steps: list[list[int]] = [whole_steps(folder)]
    dist.broadcast_object_list(steps, src=0, group=group)
    for step in steps[0]:
        checkpoint = folder_of(folder, step)
        problem, whole = None, None
        try:
            whole = read_whole(checkpoint, step)
            verify(checkpoint, whole, sorted(whole.files)[rank::ranks])
        except DataError as error:
            problem = str(error)
        problems: list[str | None] = [None] * ranks
        dist.all_gather_object(problems, problem, group=group)
        wrong = next((one for one in problems if one is not None), None)
        if wrong is None and whole is not None:
            return Found(checkpoint, step, whole.world_size), damaged
        damaged.append(str(wrong))
        if rank == 0:
            set_aside(checkpoint)
    return None, damaged


def load(state: dict[str, Any], found: Found, group: dist.ProcessGroup) -> None:
    """Fill the tensors and values of `state` from a checkpoint that was found. Collective.

    Raises `ConfigError` where the state has another shape than the one that was saved.
    """
    try:
        dcp.load(state, storage_reader=_Reader(found.checkpoint), planner=_Planner(), process_group=group)
    except dcp.CheckpointException as error:
        cause = next(iter(error.failures.values()))[0]
        raise ConfigError(
            f"does not fit what train() restores: {' '.join(str(cause).split())}",
            where=str(found.checkpoint),
            remedy="restore the objects that were saved, or start under a new name",
        ) from None


class _Reader(dcp.FileSystemReader):
    """Reads the index of a checkpoint with nothing but the classes of an index allowed."""

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        """The index. Raises `pickle.UnpicklingError` where something else is in it."""
        with (Path(self.path) / _INDEX).open("rb") as file:
            metadata = _IndexUnpickler(io.BytesIO(file.read())).load()
        metadata.storage_meta.load_id = self.load_id
        return metadata


class _IndexUnpickler(pickle.Unpickler):
    _ALLOWED = {
        "torch": {
            "Size",
            "strided",
            *(name for name in dir(torch) if isinstance(getattr(torch, name), torch.dtype)),
        },
        "torch.serialization": {"_get_layout"},
        "torch.distributed.checkpoint.metadata": {
            "BytesStorageMetadata",
            "ChunkStorageMetadata",
            "Metadata",
            "MetadataIndex",
            "StorageMeta",
            "TensorProperties",
            "TensorStorageMetadata",
            "_MEM_FORMAT_ENCODING",
        },
        "torch.distributed.checkpoint.filesystem": {"_StorageInfo"},
        "pathlib": {"Path", "PosixPath"},
    }

    def find_class(self, module: str, name: str) -> Any:
        if name not in self._ALLOWED.get(module, ()):
            raise pickle.UnpicklingError(f"{module}.{name} does not belong into the index of a checkpoint")
        return super().find_class(module, name)


class _Planner(DefaultLoadPlanner):
    """Loads values that are no tensors under the rules by which torch loads weights: nothing is executed."""

    def load_bytes(self, read_item: Any, value: io.BytesIO) -> None:
        torch.load(value, weights_only=True)  # raises where there is more than plain data
        value.seek(0)
        super().load_bytes(read_item, value)
