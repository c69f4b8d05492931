"""`Record`: the rollouts as whoever looks at them sees them, and where an operator's wishes are left.

The commands and the hub's page read it, and never act on it: a controller does. It is a file, or the objects of a
cluster.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from edgewright_fleet.rollout.spec import RolloutSpec
from edgewright_fleet.rollout.state import Decision, RolloutState

Wish = Literal["abort", "pause", "promote"]
NOT_BEGUN = ("waiting", "refused")
"""Phases in a list of rollouts that a cluster holds and no controller has begun."""


@dataclass(frozen=True)
class KeptDecision:
    """One line of a rollout's audit log; `by` is who asked for it, None where the engine decided."""

    at_s: float
    sentence: str
    evidence: dict[str, Any]
    by: str | None = None


@dataclass(frozen=True)
class Summary:
    """A rollout without its devices, for a list."""

    name: str
    fleet: str
    release: str
    phase: str
    verdict: str | None
    started_s: float
    is_held: bool


class Record(Protocol):
    """Rollouts to look at; each method raises `RolloutError` or another of the family."""

    def names(self) -> list[str]:
        """The rollouts that have begun, newest first."""

    def summaries(self, now_s: float) -> list[Summary]:
        """All rollouts, newest first."""

    def load(self, name: str) -> tuple[RolloutSpec, RolloutState]:
        """A rollout by name."""

    def decisions(self, name: str) -> Sequence[KeptDecision]:
        """The audit log of a rollout, oldest first."""

    def is_held(self, name: str, now_s: float) -> bool:
        """Whether a controller acts on a rollout at this moment, Unix seconds."""

    def request(self, name: str, wish: Wish, now_s: float, *, by: str, why: str | None = None) -> None:
        """Ask whichever controller acts on a rollout, now or next."""

    def close(self) -> None:
        """Give back what it holds open."""


def begun_decision(state: RolloutState, by: str | None) -> Decision:
    """The first line of an audit log: what was begun, for how many, and by whom where that is known."""
    many = f"{len(state.devices)} devices in {len(state.waves)} waves"
    evidence = {"digest": state.release.digest, "waves": [len(wave) for wave in state.waves]}
    return Decision(f"begun{f' by {by}' if by else ''}: {state.release} for {many}", evidence, by)
