"""Which devices are told a release after its rollout has ended: those that were offline then, and new ones.

Pure. The newest rollout that names a device decides about it, so that one which was held after a failure
stays as it is. A device that no rollout names gets what the newest successful one gave to others of its
profile: on no other profile was it proved.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from edgewright.twin import DesiredState
from edgewright_fleet.devices import DeviceView
from edgewright_fleet.rollout.spec import RolloutSpec
from edgewright_fleet.rollout.state import RolloutState, SetDesired

RESTING_PHASES = (None, "idle", "committed", "failed")
"""Phases of a device in which it is at no update."""


def due(
    views: Mapping[str, DeviceView], rollouts: Sequence[tuple[RolloutSpec, RolloutState]]
) -> list[SetDesired]:
    """What to tell which devices now, given the rollouts of their fleet, newest first.

    No more are told than may be in mid-update at once. Telling a device again changes nothing, so whoever calls
    this often leaves out those that were told before.
    """
    wishes = []
    for device, view in views.items():
        if not view.online or view.profile is None or view.phase not in RESTING_PHASES:
            continue
        found = _deciding(device, view, rollouts)
        if found is not None and view.running != found.release:
            wishes.append(SetDesired(device, DesiredState(release=found.release, rollout=found.name)))
    if not wishes:
        return []
    busy = sum(view.online and view.phase not in RESTING_PHASES for view in views.values())
    room = rollouts[0][0].room(len(views)) - busy
    return wishes[: max(0, room)]


def _deciding(
    device: str, view: DeviceView, rollouts: Sequence[tuple[RolloutSpec, RolloutState]]
) -> RolloutState | None:
    for spec, state in rollouts:
        record = state.devices.get(device)
        if record is not None:
            left = record.stand in ("waiting", "censored") or view.running is None
            return state if state.phase == "succeeded" and left else None
        selected = spec.devices == "all" and spec.profile in (None, view.profile)
        proved = any(r.profile == view.profile for r in state.standing("committed").values())
        if state.phase == "succeeded" and selected and proved:
            return state
    return None
