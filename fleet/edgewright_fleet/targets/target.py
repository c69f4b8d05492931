"""`Target`: what a controller asks of the place where a rollout is carried out."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from edgewright.twin import DesiredState
from edgewright_fleet.rollout.state import DeviceEvent

AT_ONCE = 2000
"""Events that a target gives at once, about: in a flood of reports an emergency stop is seen within a turn."""


class Target(Protocol):
    """The devices of one fleet."""

    def set_desired(self, device: str, desired: DesiredState | None) -> None:
        """Tell a device what to run, or withdraw it; telling twice is harmless."""

    def events(self, wait_s: float) -> Iterable[DeviceEvent]:
        """What arrived; waits up to `wait_s` for the first event and then gives what is there."""

    def known(self) -> Iterable[DeviceEvent]:
        """The latest report and presence of every device."""

    def forget(self) -> None:
        """Nobody will ask for what is known any more until the present rollout is over."""
