"""Which checkpoints under `checkpoints/` are whole: all their files are there, durable and unchanged.

A checkpoint is a folder `step-N`. `whole.json` in it names each file with its size and sha256. It is written last
and removed first, so that a folder without it is none. Nothing of a checkpoint is parsed before its digest is right:
the folder may have come over a network.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, Field, NonNegativeInt, PositiveInt

from edgewright.artifact.manifest import Digest
from edgewright.contract import CONTRACT, from_json, to_json
from edgewright.durable_file import sync_folder, write_durably
from edgewright.errors import DataError, EdgewrightError

MANIFEST = "whole.json"
KEPT = 3
"""Whole checkpoints that are kept: the newest, the one before should it be damaged, and one more."""

FileName = Annotated[str, Field(pattern=r"^[\w.-]+$")]
"""Of a file in the folder itself: no separator."""


class StoredFile(BaseModel):
    """One file of a checkpoint."""

    model_config = CONTRACT
    sha256: Digest
    size_bytes: NonNegativeInt


class Whole(BaseModel):
    """What `whole.json` says of the checkpoint beside it."""

    model_config = CONTRACT
    schema_version: Literal[1] = Field(default=1, alias="schema")
    step: NonNegativeInt
    world_size: PositiveInt = Field(description="ranks that wrote it")
    files: dict[FileName, StoredFile]


def folder_of(folder: Path, step: int) -> Path:
    """Where the checkpoint of a step lies under the job's folder."""
    return folder / "checkpoints" / f"step-{step:012d}"


def whole_steps(folder: Path) -> list[int]:
    """Steps of the checkpoints that have their `whole.json`, newest first."""
    found = (
        re.fullmatch(r"step-(\d+)", path.parent.name)
        for path in (folder / "checkpoints").glob(f"*/{MANIFEST}")
    )
    return sorted((int(match[1]) for match in found if match), reverse=True)


def newest_whole(folder: Path) -> int | None:
    """The step of the newest checkpoint that claims to be whole; no file of it is read."""
    return next(iter(whole_steps(folder)), None)


def stored_file(path: Path) -> StoredFile:
    """Size and digest of a file as it is now. Raises `OSError`."""
    digest, size_bytes = hashlib.sha256(), 0
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
            size_bytes += len(block)
    return StoredFile(sha256=f"sha256:{digest.hexdigest()}", size_bytes=size_bytes)


def declare_whole(checkpoint: Path, step: int, world_size: int, files: Mapping[str, StoredFile]) -> None:
    """Say that these files, which are on the disk, are a checkpoint. Raises `StorageError`, `OSError`."""
    sync_folder(checkpoint)
    whole = Whole(step=step, world_size=world_size, files=dict(files))
    write_durably(checkpoint / MANIFEST, to_json(whole))
    sync_folder(checkpoint.parent)


def read_whole(checkpoint: Path, step: int) -> Whole:
    """The manifest of a checkpoint. Raises `DataError`."""
    path = checkpoint / MANIFEST
    try:
        whole = from_json(Whole, path.read_bytes(), where=str(path), error=DataError)
    except OSError as error:
        raise DataError(error.strerror or str(error), where=str(path)) from None
    if whole.step != step:
        raise DataError(f"is of step {whole.step}", where=str(path))
    return whole


def verify(checkpoint: Path, whole: Whole, names: Iterable[str]) -> None:
    """Raise `DataError` where one of these files is not what the manifest says."""
    for name in names:
        path = checkpoint / name
        try:
            found = stored_file(path)
        except OSError as error:
            raise DataError(error.strerror or str(error), where=str(path)) from None
        if found.size_bytes != whole.files[name].size_bytes:
            raise DataError(
                f"has {found.size_bytes} bytes, {whole.files[name].size_bytes} were written", where=str(path)
            )
        if found != whole.files[name]:
            raise DataError("was changed since it was written", where=str(path))


def set_aside(checkpoint: Path) -> None:
    """Take a damaged checkpoint out of the count; it is deleted when the next one is whole."""
    aside = checkpoint.with_name(f"damaged-{checkpoint.name}")
    shutil.rmtree(aside, ignore_errors=True)
    with contextlib.suppress(OSError):
        checkpoint.rename(aside)


def clear(checkpoint: Path) -> None:
    """Delete a checkpoint, `whole.json` first."""
    with contextlib.suppress(OSError):
        (checkpoint / MANIFEST).unlink()
        sync_folder(checkpoint)
    shutil.rmtree(checkpoint, ignore_errors=True)


def prune(folder: Path, kept: int = KEPT) -> None:
    """Delete all but the newest whole checkpoints, and what broken ones left behind."""
    keep = {folder_of(folder, step) for step in whole_steps(folder)[:kept]}
    for checkpoint in (folder / "checkpoints").iterdir():
        if checkpoint not in keep:
            clear(checkpoint)
