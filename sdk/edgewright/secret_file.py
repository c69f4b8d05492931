"""Files that hold a secret: written for their owner alone, refused where any other user could read them.

A service that is not root may be given a file of root's through its own group (`root:edgewright 0440`), as systemd
units and pods with an `fsGroup` are: then the group is the service.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from edgewright.durable_file import make_folder, storage_error, sync_folder
from edgewright.errors import EdgewrightError


def write_private(path: Path, data: bytes) -> None:
    """Write a file that was not there, durably and with mode 0600 from its first byte on.

    Folders that are missing are made, the last for its owner alone. Raises `StorageError`.
    """
    try:
        make_folder(path.parent.parent)
        path.parent.mkdir(mode=0o700, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        except OSError:
            path.unlink(missing_ok=True)
            raise
        sync_folder(path.parent)
        sync_folder(path.parent.parent)
    except OSError as error:
        raise storage_error(error, path) from None


def must_be_private(path: Path, what: str, error: type[EdgewrightError]) -> None:
    """Raise `error` where the file at `path` is not there, or open to its group or to others.

    Reading is allowed to the group where the file is root's and the group is this process's own.
    """
    try:
        found = path.stat()
    except OSError as cause:
        raise error(f"{what} cannot be used ({cause.strerror or cause})", where=str(path)) from None
    mode, forbidden = stat.S_IMODE(found.st_mode), stat.S_IRWXG | stat.S_IRWXO
    if (
        found.st_uid == 0 != os.geteuid()
        and found.st_gid != 0
        and found.st_gid in {os.getegid(), *os.getgroups()}
    ):
        forbidden &= ~stat.S_IRGRP
    if mode & forbidden:
        raise error(
            f"{what} is open to other users (mode {mode:04o})", where=str(path), remedy=f"chmod 600 {path}"
        )
