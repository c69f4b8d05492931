"""Files that survive a power cut: written to a temporary name, flushed to disk, then renamed into place.

After `write_durably` returns, the file holds the new content whatever happens next; before that, the old.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from edgewright.errors import StorageError

_CAUSES = {
    errno.ENOSPC: ("the disk is full", "free some space and run the same command again"),
    errno.EDQUOT: ("the disk quota is used up", "free some space and run the same command again"),
    errno.EROFS: ("the file system is read-only", "remount it writable or choose another folder"),
    errno.EACCES: ("permission denied", "choose a folder that this user may use, or change its permissions"),
    errno.EPERM: ("permission denied", "choose a folder that this user may use, or change its permissions"),
    errno.EISDIR: ("is a folder", "name a file in it"),
    errno.ENOTDIR: ("a part of the path is a file, not a folder", "choose another folder"),
}


def storage_error(error: OSError, path: Path) -> StorageError:
    """The error family's one line for a failed file operation."""
    problem, remedy = _CAUSES.get(error.errno or 0, (error.strerror or str(error), ""))
    return StorageError(problem, where=str(path), remedy=remedy)


def temporary_folder_full() -> StorageError:
    """The error for a library that could not finish a temporary file, and does not say so."""
    remedy = "free some space there, or name another folder in TMPDIR"
    return StorageError("the disk is full", where=tempfile.gettempdir(), remedy=remedy)


def sync_folder(folder: Path) -> None:
    """Make renames and removals in `folder` durable (POSIX: a rename is durable once its folder is)."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_folder(folder: Path) -> None:
    """Make a folder and those above it, each entry durable in the folder that holds it. Raises `OSError`."""
    missing = list(itertools.takewhile(lambda parent: not parent.exists(), (folder, *folder.parents)))
    folder.mkdir(parents=True, exist_ok=True)
    for made in missing:
        sync_folder(made.parent)


@contextlib.contextmanager
def durable_writer(path: Path) -> Iterator[BinaryIO]:
    """A file open for writing that appears at `path`, durable and whole, when the block ends without error.

    Folders that are missing are made, as durably. On any error no part of the file is left behind.
    Raises `StorageError`.
    """
    try:
        make_folder(path.parent)
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".partial", dir=path.parent)
    except OSError as error:
        raise storage_error(error, path) from None
    # Not as a Path: it keeps each part of a name in a table of the interpreter's, which grows by all that is new.
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fchmod(file.fileno(), 0o644)
            os.fsync(file.fileno())
        os.replace(name, path)  # noqa: PTH105
        sync_folder(path.parent)
    except OSError as error:
        raise storage_error(error, path) from None
    finally:
        # A disk that has just become read-only keeps even this, and the error above says why.
        with contextlib.suppress(OSError):
            os.unlink(name)  # noqa: PTH108


def write_durably(path: Path, data: bytes) -> None:
    """Replace the file at `path` by `data`, durably and in one step. Raises `StorageError`."""
    with durable_writer(path) as file:
        file.write(data)


def check_readable(path: Path) -> None:
    """Raise `StorageError` where the file is there and cannot be read: libraries take that for a damaged one."""
    try:
        with path.open("rb") as file:
            file.read(1)
    except OSError as error:
        raise storage_error(error, path) from None


def check_writable(path: Path) -> None:
    """Raise `StorageError` where a small file could not be written at `path` now; leaves nothing behind.

    For work of minutes that ends in a file: what can be known of its end is known before it begins.
    """
    folder = next(parent for parent in path.absolute().parents if parent.exists())
    try:
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, "")
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(1 << 16))
            file.flush()
    except OSError as error:
        raise storage_error(error, path) from None
