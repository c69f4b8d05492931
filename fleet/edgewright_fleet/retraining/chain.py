"""`Chain`: what led from a trigger to a release, link by link, in a file that is only ever added to.

Each link holds the digest of the one before, so that none can be changed, left out or put in later without a
trace; the digest of the last one, in the release's model card, stands for all of them. A line that a power cut
broke off is no link: the next link takes its place.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, Field, JsonValue

from edgewright.artifact.manifest import Digest
from edgewright.contract import CONTRACT, from_json, to_json
from edgewright.durable_file import make_folder, storage_error, sync_folder
from edgewright.errors import DataError

LinkKind = Literal[
    "trigger",
    "data",
    "training",
    "conversion",
    "comparison",
    "approval",
    "release",
    "rollout",
    "stopped",
    "resumed",
]


class Link(BaseModel):
    """One step that was taken, with what it was based on."""

    model_config = CONTRACT
    schema_version: Literal[1] = Field(default=1, alias="schema")
    kind: LinkKind
    at: datetime
    says: str = Field(description="the step in plain words")
    evidence: dict[str, JsonValue] = Field(default_factory=dict, description="figures, names and digests")
    before: Digest | None = Field(default=None, description="of the link before; None: the first")


def digest_of_link(link: Link) -> Digest:
    """sha256 of the link's canonical JSON."""
    return f"sha256:{hashlib.sha256(to_json(link)).hexdigest()}"


class Chain:
    """The chain in the file at `path`, which need not exist. One process at a time writes it.

    Raises `DataError` where a link does not follow from the one before, `StorageError` where the disk fails.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.links: tuple[Link, ...] = _read(path)
        self._whole_bytes = sum(len(to_json(link)) + 1 for link in self.links)

    @property
    def head(self) -> Digest | None:
        """The digest of the last link."""
        return digest_of_link(self.links[-1]) if self.links else None

    def last(self, kind: LinkKind) -> Link | None:
        """The last link of a kind."""
        return next((link for link in reversed(self.links) if link.kind == kind), None)

    def add(self, kind: LinkKind, says: str, evidence: Mapping[str, JsonValue], at: datetime) -> Link:
        """Add a link, which is on the disk when this returns."""
        link = Link(kind=kind, at=at, says=says, evidence=dict(evidence), before=self.head)
        line = to_json(link) + b"\n"
        try:
            make_folder(self._path.parent)
            with self._path.open("ab") as file:
                file.truncate(self._whole_bytes)
                file.write(line)
                file.flush()
                os.fsync(file.fileno())
            sync_folder(self._path.parent)
        except OSError as error:
            raise storage_error(error, self._path) from None
        self._whole_bytes += len(line)
        self.links = (*self.links, link)
        return link


def _read(path: Path) -> tuple[Link, ...]:
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        return ()
    except OSError as error:
        raise storage_error(error, path) from None
    links: list[Link] = []
    before: Digest | None = None
    for number, line in enumerate(text.split(b"\n")[:-1], start=1):
        where = f"{path}, line {number}"
        link = from_json(Link, line, where=where, error=DataError)
        if link.before != before or to_json(link) != line:
            raise DataError("does not follow from the line before: the record was changed", where=where)
        links.append(link)
        before = digest_of_link(link)
    return tuple(links)
