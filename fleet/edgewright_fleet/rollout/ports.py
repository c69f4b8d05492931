"""What the loop of a rollout needs of the outside: a `Target` that reaches devices, a `Store` that remembers.

MQTT alone or with Kubernetes, a SQLite file or custom resources: `controller.py` knows these two alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from edgewright.twin import DesiredState
from edgewright_fleet.rollout.spec import RolloutSpec
from edgewright_fleet.rollout.state import Decision, DeviceEvent, RolloutState


class Target(Protocol):
    """The devices of one fleet."""

    def set_desired(self, device: str, desired: DesiredState | None) -> None:
        """Tell a device what to run; None takes the wish away."""

    def events(self, wait_s: float) -> Iterator[DeviceEvent]:
        """What devices said; waits up to `wait_s` for the first."""

    def known(self) -> list[DeviceEvent]:
        """The latest report and presence of every device."""


class Store(Protocol):
    """The durable record of rollouts; each raises `RolloutError` or another of the family."""

    lease_s: float
    """Seconds after which a controller that has not renewed its right to act is taken for dead."""

    def names(self) -> list[str]:
        """The rollouts that have begun, newest first."""

    def newest_of(self, fleet: str) -> str | None:
        """The newest of a fleet."""

    def create(self, spec: RolloutSpec, state: RolloutState) -> None:
        """Keep a new rollout."""

    def load(self, name: str) -> tuple[RolloutSpec, RolloutState]:
        """A rollout by name."""

    def save(self, state: RolloutState, decisions: list[Decision], owner: str, now_s: float) -> None:
        """Replace the state and append decisions in one step, if `owner` may act."""

    def abort_requested(self, name: str) -> bool:
        """Whether an operator wants it to stop."""

    def hold_lease(self, name: str, owner: str, now_s: float) -> None:
        """Take or renew the right to act on a rollout."""

    def release_lease(self, name: str, owner: str) -> None:
        """Give it back."""
