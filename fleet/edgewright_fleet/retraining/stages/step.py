"""`Step`, what a stage came to, `Tools`, what stages take from outside, and the wish that a run stop."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from pydantic import JsonValue

from edgewright.durable_file import write_durably
from edgewright_fleet.retraining.job import Backend
from edgewright_fleet.retraining.run import Run
from edgewright_fleet.retraining.spec import RetrainingSpec, RolloutCluster

Show = Callable[[int, int, str, float], None]
"""Told how far a stage is: steps done, steps in all, what comes now, seconds left."""


@dataclass(frozen=True)
class Step:
    """What a stage came to: a link of the chain, or the reason to stop."""

    says: str
    evidence: Mapping[str, JsonValue]
    stops: bool = False


@dataclass(frozen=True)
class Tools:
    """What stages take from outside."""

    backend: Callable[[RetrainingSpec], Backend]
    show: Show
    roll_out: Callable[[Path, RolloutCluster | None], tuple[str, str]]
    """Carries out the rollout in a file until it rests, or has a cluster do it: its phase, and that in words."""
    now: Callable[[], datetime] = lambda: datetime.now(timezone.utc)
    sleep: Callable[[float], None] = time.sleep


def request_stop(run: Run, why: str) -> None:
    """Ask the process that drives the run to stop."""
    write_durably(run.folder / "stop", why.encode())


def requested_stop(run: Run) -> str | None:
    """Why somebody asked the process that drives the run to stop, if somebody did; the request is then used up."""
    path = run.folder / "stop"
    try:
        why = path.read_text(encoding="utf-8")
        path.unlink()
    except FileNotFoundError:
        return None
    return why or "cancelled"
