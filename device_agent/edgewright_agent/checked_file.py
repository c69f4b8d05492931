"""A contract in a file that counts and a copy of it, each with a checksum over itself in its field `check`.

A flipped bit anywhere is found, and never read as another digest or version. The copy is written first: where
a cut comes between the two, what was there before counts still.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from pydantic import BaseModel

from edgewright.artifact.layout import digest_of
from edgewright.contract import from_json, to_json
from edgewright.durable_file import write_durably
from edgewright.errors import EdgewrightError, StorageError

ContractT = TypeVar("ContractT", bound=BaseModel)


@dataclass(frozen=True)
class Found(Generic[ContractT]):
    """What the two files said."""

    content: ContractT | None
    """None: neither could be read, or there is none yet."""
    damage: str | None
    """What is wrong with one of them or both."""
    mend: bool
    """Whether they are not the same, and so are to be written anew."""


def copy_of(path: Path) -> Path:
    """Where the copy of a file lies."""
    return path.with_suffix(f".copy{path.suffix}")


def read_checked(contract: type[ContractT], path: Path) -> Found[ContractT]:
    """The file at `path`, from its copy where it is damaged or gone; never raises for what a file holds."""
    found: list[ContractT | None] = []
    damage = []
    for each in (path, copy_of(path)):
        try:
            found.append(_read(contract, each))
        except FileNotFoundError:
            found.append(None)
        except (EdgewrightError, OSError) as error:
            damage.append(str(error))
            found.append(None)
    first, second = found
    return Found(first or second, "; ".join(damage) or None, mend=first != second)


def write_checked(path: Path, content: BaseModel) -> None:
    """Replace both, durably, each in one step. Raises `StorageError`; what was there before then counts."""
    checked = to_json(content.model_copy(update={"check": digest_of(to_json(content))}))
    write_durably(copy_of(path), checked)
    write_durably(path, checked)


def sweep_unfinished(path: Path) -> None:
    """Remove what a write that was cut short left of itself."""
    for partial in path.parent.glob(f".{path.stem}*.partial"):
        with contextlib.suppress(OSError):
            partial.unlink()


def _read(contract: type[ContractT], path: Path) -> ContractT:
    content = from_json(contract, path.read_bytes(), where=str(path))
    check = getattr(content, "check", None)
    plain = content.model_copy(update={"check": None})
    if check is not None and digest_of(to_json(plain)) != check:
        raise StorageError("is corrupt: its checksum does not match", where=str(path))
    return plain
