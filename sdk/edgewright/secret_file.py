"""Files that hold a secret: refused where any other user of the machine could read them."""

from __future__ import annotations

import stat
from pathlib import Path

from edgewright.errors import EdgewrightError


def must_be_private(path: Path, what: str, error: type[EdgewrightError]) -> None:
    """Raise `error` where the file at `path` is not there, or open to its group or to others."""
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
    except OSError as cause:
        raise error(f"{what} cannot be used ({cause.strerror or cause})", where=str(path)) from None
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise error(
            f"{what} is open to other users (mode {mode:04o})", where=str(path), remedy=f"chmod 600 {path}"
        )
