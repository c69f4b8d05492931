"""The version that a release gets: the one after the greatest that the registry holds."""

from __future__ import annotations

import re
from collections.abc import Iterable

_LAST_NUMBER = re.compile(r"(\d+)(?!.*\d)")


def ordered(version: str) -> tuple[tuple[int, int, str], ...]:
    """A key by which 1.10.0 comes after 1.9.0: numbers as numbers, and before words."""
    parts = re.findall(r"\d+|[^\d._-]+", version)
    return tuple((0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts)


def newest(versions: Iterable[str]) -> str | None:
    """The greatest of the versions; None where there are none."""
    return max(versions, key=ordered, default=None)


def next_version(versions: Iterable[str]) -> str:
    """The greatest version with its last number raised by one; 1.0.0 where there is none, `X.1` for a word."""
    last = newest(versions)
    if last is None:
        return "1.0.0"
    if not _LAST_NUMBER.search(last):
        return f"{last}.1"
    return _LAST_NUMBER.sub(lambda match: str(int(match[1]) + 1).zfill(len(match[1])), last, count=1)
