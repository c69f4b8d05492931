"""The process in which a release's signature is checked: what that imports would stay in the agent's memory.

It keeps what was verified before, by which older metadata is refused, in `trusted.json` of the state folder: a
file that is replaced as a whole, with a copy. Where neither can be read, it starts from the pinned root again; all
holds then but the refusal of what is older than the device has seen, until it sees something newer.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, Field

from edgewright.artifact.layout import is_away
from edgewright.artifact.manifest import Digest
from edgewright.contract import CONTRACT
from edgewright.errors import EdgewrightError, TrustError
from edgewright.trust.verify import verify_release
from edgewright.twin import UNTRUSTED
from edgewright_agent.checked_file import read_checked, sweep_unfinished, write_checked
from edgewright_agent.parent import end_with

KEPT = "trusted.json"


class TrustedMetadata(BaseModel):
    """The metadata that was verified last, as text."""

    model_config = CONTRACT
    schema_version: Literal[1] = Field(default=1, alias="schema")
    roots: dict[int, str] = Field(
        default_factory=dict, description="by version, the chain from the pinned one"
    )
    timestamp: str | None = None
    snapshot: str | None = None
    check: Digest | None = Field(default=None, description="of this JSON without `check`")


@contextlib.contextmanager
def memory(state_dir: Path, *, keep: bool) -> Iterator[tuple[Path, str | None]]:
    """A folder with what was verified before, for the client, and what is wrong with it; kept when the block ends.

    However it ends: a new root or timestamp counts also where the release is refused. Raises `StorageError`.
    """
    path = state_dir / KEPT
    if keep:
        sweep_unfinished(path)
    found = read_checked(TrustedMetadata, path)
    known = found.content or TrustedMetadata()
    with tempfile.TemporaryDirectory(prefix="edgewright-trust-") as name:
        folder = Path(name)
        (folder / "root_history").mkdir()
        for version, text in known.roots.items():
            (folder / "root_history" / f"{version}.root.json").write_text(text, encoding="utf-8")
        for role in ("timestamp", "snapshot"):
            if text := getattr(known, role):
                (folder / f"{role}.json").write_text(text, encoding="utf-8")
        try:
            yield folder, found.damage if found.content is None else None
        finally:
            seen = _read(folder)
            if keep and (seen != known or found.mend):
                write_checked(path, seen)


def _read(folder: Path) -> TrustedMetadata:
    roots = {
        int(path.name.partition(".")[0]): path.read_text(encoding="utf-8")
        for path in (folder / "root_history").iterdir()
    }
    plain = {role: path.read_text(encoding="utf-8") for role in ("timestamp", "snapshot")
             if (path := folder / f"{role}.json").exists()}  # fmt: skip
    return TrustedMetadata(roots=roots, **plain)


def check(registry: Path, name: str, digest: str, root: Path, state_dir: Path) -> dict[str, Any]:
    """Whether a release is signed: what the agent is told. `size` is None where it is not to be taken."""
    damage = None
    try:
        with memory(state_dir, keep=True) as (known, damage):
            size = verify_release(registry, name, digest, root=root, known=known)
    except EdgewrightError as error:
        says = f"{UNTRUSTED}: {error}" if isinstance(error, TrustError) else str(error)
        away = error.where if is_away(error, registry) else None
        return {"size": None, "says": says, "away": away, "damage": damage}
    return {"size": size, "damage": damage}


def main(arguments: list[str] | None = None) -> None:
    """Check one release and print the answer as one line of JSON."""
    parser = argparse.ArgumentParser(prog="edgewright_agent.trust_process")
    parser.add_argument("registry", type=Path)
    parser.add_argument("name")
    parser.add_argument("digest")
    parser.add_argument("--root", type=Path, required=True, help="the file that is pinned")
    parser.add_argument("--state", type=Path, required=True, help="the agent's state folder")
    parser.add_argument("--parent", type=int, help="the process with which this one ends")
    given = parser.parse_args(arguments)
    if given.parent is not None:
        end_with(given.parent)
    answer = check(given.registry, given.name, given.digest, given.root, given.state)
    sys.stdout.write(json.dumps(answer) + "\n")


if __name__ == "__main__":
    main()
