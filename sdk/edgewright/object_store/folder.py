"""`FolderStore`: objects as files of a folder, also one that a server exports (NFS).

A file appears under its name once all of it is flushed; until then it is a hidden file beside it, which the next
upload of the same key goes on with.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from edgewright.artifact.layout import digest_of_file
from edgewright.durable_file import make_folder, storage_error, sync_folder
from edgewright.errors import StorageError
from edgewright.object_store import Sending, StoredObject, at_once

STEP = 1 << 16
"""Bytes copied at once."""


class FolderStore:
    """See `ObjectStore`."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def put(self, key: str, path: Path, sending: Sending = at_once) -> None:
        """See `ObjectStore.put`. The folder itself must be there: a share that is not mounted must not be made."""
        goal = self._path(key)
        partial = goal.with_name(f".{goal.name}.partial")
        try:
            if not self._root.is_dir():
                raise StorageError(
                    "there is no such folder", where=str(self._root), remedy="make or mount it"
                )
            make_folder(goal.parent)
            if goal.exists():
                return
            _copy_the_rest(path, partial, sending)
            if digest_of_file(partial) != digest_of_file(
                path
            ):  # its earlier part was not what the cut had left unflushed
                partial.unlink()
                _copy_the_rest(path, partial, sending)
            partial.replace(goal)
            sync_folder(goal.parent)
        except OSError as error:
            raise storage_error(error, goal) from None

    def objects(self, prefix: str = "") -> Iterator[StoredObject]:
        """See `ObjectStore.objects`."""
        if not self._root.is_dir():
            raise StorageError("there is no such folder", where=str(self._root), remedy="make or mount it")
        # What no key of the prefix can lie in is not walked.
        begin = self._root / prefix.rpartition("/")[0]
        for folder, below, files in os.walk(begin):
            below.sort()
            for name in sorted(files):
                path = Path(folder, name)
                key = path.relative_to(self._root).as_posix()
                if not name.startswith(".") and key.startswith(prefix):
                    with contextlib.suppress(FileNotFoundError):  # removed meanwhile
                        yield StoredObject(key, path.stat().st_size)

    def read(self, key: str, length: int | None = None) -> bytes:
        """See `ObjectStore.read`."""
        path = self._path(key)
        try:
            with path.open("rb") as file:
                return file.read(-1 if length is None else length)
        except OSError as error:
            raise storage_error(error, path) from None

    def delete(self, key: str) -> None:
        """See `ObjectStore.delete`."""
        path = self._path(key)
        try:
            path.unlink(missing_ok=True)
            if path.parent.is_dir():
                sync_folder(path.parent)
        except OSError as error:
            raise storage_error(error, path) from None

    def abandon(self, prefix: str) -> int:
        """See `ObjectStore.abandon`."""
        begin = self._root / prefix.rpartition("/")[0]
        found = [path for path in begin.rglob(".*.partial") if self._key(path).startswith(prefix)]
        for path in found:
            path.unlink(missing_ok=True)
        return len(found)

    def _key(self, partial: Path) -> str:
        name = partial.name.removeprefix(".").removesuffix(".partial")
        return partial.with_name(name).relative_to(self._root).as_posix()

    def _path(self, key: str) -> Path:
        if any(part in ("", ".", "..") for part in key.split("/")):
            raise StorageError(f"the key {key!r} is no path below the store", where=str(self._root))
        return self._root / key


def _copy_the_rest(path: Path, partial: Path, sending: Sending) -> None:
    with path.open("rb") as source, partial.open("ab") as target:
        have = target.tell()
        if have > path.stat().st_size:
            have = 0
            target.truncate(0)
        source.seek(have)
        while chunk := source.read(STEP):
            sending(len(chunk))
            target.write(chunk)
        target.flush()
        os.fsync(target.fileno())
