"""`Run`: one retraining in a folder of its own, and the stage that it is at, which its chain alone says.

A stage is done when its link is in the chain. Whatever ends the process, the next one that takes the run in hand
does the first stage that has no link: nothing else has to be remembered, and no stage is counted twice.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Literal

from pydantic import JsonValue

from edgewright.durable_file import make_folder, storage_error, write_durably
from edgewright.errors import RetrainingError
from edgewright_fleet.retraining.chain import Chain, Link, LinkKind

STAGES: tuple[LinkKind, ...] = (
    "trigger", "data", "training", "conversion", "comparison", "release", "rollout",
)  # fmt: skip
Standing = Literal["under way", "held", "stopped", "done"]
_NUMBERED = re.compile(r"^(?P<name>.+)-(?P<number>\d{4,})$")


class RunDrivenError(RetrainingError):
    """Another process drives the run."""


def next_stage(links: Sequence[Link]) -> LinkKind | None:
    """The first stage without a link; None where all are done, the run was stopped, or it waits for a person."""
    if standing(links) != "under way":
        return None
    done = {link.kind for link in links}
    return next(stage for stage in STAGES if stage not in done)


def standing(links: Sequence[Link]) -> Standing:
    """Whether a run goes on by itself. `held`: the comparison did not say `better`, or a person must say yes."""
    kinds = [link.kind for link in links]
    if kinds and kinds[-1] == "stopped":
        return "stopped"
    if "rollout" in kinds:
        return "done"
    compared = next((link for link in links if link.kind == "comparison"), None)
    if compared is not None and "approval" not in kinds and compared.evidence.get("ships") is not True:
        return "held"
    return "under way"


class Run:
    """The run in `folder`, whose name is the folder's. Raises `RetrainingError`, `DataError`, `StorageError`."""

    def __init__(self, folder: Path) -> None:
        if not (folder / "spec.yaml").is_file():
            raise RetrainingError("is not the folder of a retraining", where=str(folder))
        self.folder = folder
        self.name = folder.name
        self.chain = Chain(folder / "chain.jsonl")

    @property
    def spec_path(self) -> Path:
        """The specification as it was when the run began; what changed later is for the next run."""
        return self.folder / "spec.yaml"

    @property
    def standing(self) -> Standing:
        """See `standing`."""
        return standing(self.chain.links)

    @property
    def next_stage(self) -> LinkKind | None:
        """See `next_stage`."""
        return next_stage(self.chain.links)

    @property
    def says(self) -> str:
        """What came of the run so far, in words: of one that is held, why it is."""
        links = self.chain.links
        link = self.chain.last("comparison") if self.standing == "held" else (links[-1] if links else None)
        return link.says if link else ""

    @property
    def taken_back(self) -> bool:
        """Whether the rollout of its release failed or was aborted."""
        link = self.chain.last("rollout")
        return link is not None and link.evidence.get("phase") in ("failed", "aborted")

    def stop(self, why: str, at: datetime) -> None:
        """End the run where it is; `resume` takes it up again. No error where it has stopped already."""
        if self.standing == "done":
            raise RetrainingError("has ended: it was handed to its rollout", where=self.name)
        if self.standing != "stopped":
            self.chain.add("stopped", why, {}, at)

    def resume(self, why: str, at: datetime) -> None:
        """Go on with a stopped run at the stage that it stopped in. No error where it goes on anyway."""
        if self.standing == "stopped":
            self.chain.add("resumed", why, {}, at)

    def approve(self, why: str, by: str, at: datetime) -> None:
        """Let a held candidate be released, on a person's word."""
        if self.standing != "held":
            raise RetrainingError(
                f"is {self.standing}: there is no candidate that waits for a person", where=self.name
            )
        self.chain.add("approval", why, {"by": by}, at)

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Be the one process that drives the run; the lock ends with the process, whatever ends it."""
        try:
            descriptor = os.open(self.folder / "lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise storage_error(error, self.folder / "lock") from None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise RunDrivenError(
                "another process drives this run",
                where=self.name,
                remedy="watch it with 'edgewright retrain status'",
            ) from None
        try:
            self.chain = Chain(self.folder / "chain.jsonl")
            yield
        finally:
            os.close(descriptor)


def begin(
    runs: Path, name: str, spec: str, says: str, evidence: Mapping[str, JsonValue], at: datetime
) -> Run:
    """A new run of the retraining `name` below `runs`, for the trigger that `says` why."""
    number = max((numbered(run)[1] for run in names(runs, name)), default=0) + 1
    folder = runs / f"{name}-{number:04d}"
    try:
        make_folder(runs)
        folder.mkdir()
    except FileExistsError:
        raise RetrainingError(
            "was begun by another process at the same time", where=folder.name, remedy="try again"
        ) from None
    except OSError as error:
        raise storage_error(error, folder) from None
    write_durably(folder / "spec.yaml", spec.encode())
    run = Run(folder)
    run.chain.add("trigger", says, evidence, at)
    return run


def names(runs: Path, name: str | None = None) -> list[str]:
    """The runs below `runs`, oldest first; of one retraining, or of all."""
    found = [folder.parent.name for folder in runs.glob("*/spec.yaml") if _NUMBERED.match(folder.parent.name)]
    return sorted((run for run in found if name in (None, numbered(run)[0])), key=numbered)


def numbered(run: str) -> tuple[str, int]:
    """The retraining that a run is of, and its number."""
    match = _NUMBERED.match(run)
    if match is None:
        raise RetrainingError(f"'{run}' is not the name of a run: NAME-0001")
    return match["name"], int(match["number"])
