"""What a registry has signed, as who is about to sign more must read it: every signature checked, from the root
that belongs to the keys, so that nobody signs what another one added. What is out of date may be renewed.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata, Root, Targets

from edgewright.durable_file import storage_error
from edgewright.errors import TrustError


@dataclass(frozen=True)
class SignedState:
    """What is signed now, every signature checked; not whether it is out of date."""

    root: Metadata[Root]
    targets: Metadata[Targets]
    number: int
    """The highest version of targets and snapshot. They share one count with the timestamp, which so never falls
    back, whatever of them was lost."""


def read_state(folder: Path, pin: Path) -> SignedState:
    """Read a metadata folder, from the root in the file `pin`. Raises `TrustError`, `StorageError`."""
    where = pin
    try:
        root = _load(Root, where)
        _judge(root, root)
        while (where := folder / f"{root.signed.version + 1}.root.json").exists():
            following = _load(Root, where)
            _judge(root, following)
            _judge(following, following)
            if following.signed.version != root.signed.version + 1:
                raise RepositoryError(f"it is version {following.signed.version}")
            root = following
        signed = numbers(folder, "targets")
        where = folder / (f"{signed[-1]}.targets.json" if signed else "targets.json")
        targets = _load(Targets, where)
        _judge(root, targets)
    except RepositoryError as error:
        problem = f"is not what the keys of {pin} signed ({error})"
        remedy = "put the registry's trust folder back from a copy"
        raise TrustError(problem, where=str(where), remedy=remedy) from None
    return SignedState(root, targets, max(signed + numbers(folder, "snapshot")))


def _load(kind: type[Any], path: Path) -> Metadata[Any]:
    try:
        metadata = Metadata[Any].from_bytes(path.read_bytes())
    except FileNotFoundError:
        raise TrustError("is missing", where=str(path), remedy="'edgewright trust init' makes it") from None
    except OSError as error:
        raise storage_error(error, path) from None
    if not isinstance(metadata.signed, kind):
        raise RepositoryError(f"it is {metadata.signed.type}")
    return metadata


def _judge(root: Metadata[Root], metadata: Metadata[Any]) -> None:
    root.signed.verify_delegate(metadata.signed.type, metadata.signed_bytes, metadata.signatures)


def numbers(folder: Path, role: str) -> list[int]:
    """The versions of a role that a metadata folder holds, in order."""
    names = [path.name.partition(".")[0] for path in folder.glob(f"*.{role}.json")]
    return sorted(int(name) for name in names if name.isdecimal())
