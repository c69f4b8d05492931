"""`Store`: what the loop of a rollout needs of the place where rollouts are kept, a file or custom resources."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from edgewright_fleet.rollout.spec import RolloutSpec
from edgewright_fleet.rollout.state import Decision, OperatorRequest, RolloutState


class Store(Protocol):
    """The durable record of rollouts; each method raises `RolloutError` or another of the family."""

    lease_s: float
    """Seconds after which a controller that has not renewed its right to act is taken for dead."""

    def names(self) -> list[str]:
        """The rollouts that have begun, newest first."""

    def newest_of(self, fleet: str) -> str | None:
        """The newest of a fleet."""

    def create(self, spec: RolloutSpec, state: RolloutState, *, by: str | None = None) -> None:
        """Keep a new rollout, and who began it."""

    def load(self, name: str) -> tuple[RolloutSpec, RolloutState]:
        """A rollout by name."""

    def save(
        self,
        state: RolloutState,
        decisions: Sequence[Decision],
        owner: str,
        now_s: float,
        *,
        taken: Sequence[int] = (),
    ) -> None:
        """Replace the state, append decisions, mark requests as carried out: in one step, if `owner` may act."""

    def requests(self, name: str) -> list[tuple[int, OperatorRequest]]:
        """What was asked for and not carried out yet, with its number."""

    def take_lease(self, name: str, owner: str, now_s: float) -> None:
        """Take the right to act on a rollout."""

    def renew_lease(self, name: str, owner: str, now_s: float) -> None:
        """Keep it, if nobody else had it since."""

    def release_lease(self, name: str, owner: str) -> None:
        """Give it back."""
