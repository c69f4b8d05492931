"""Files that hold a secret: refused where any other user of the machine could read them.

A service that is not root may be given a file of root's through its own group (`root:edgewright 0440`), as systemd
units and pods with an `fsGroup` are: then the group is the service.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from edgewright.errors import EdgewrightError


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
