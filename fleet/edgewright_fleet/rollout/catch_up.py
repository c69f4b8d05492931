"""Which devices are told a release after its rollout has ended: those that were offline then, and new ones.

Pure. The newest rollout that names a device decides about it, so that one which was held after a failure
stays as it is. A device that no rollout names gets what the newest successful one gave to others of its
profile: on no other profile was it proved. A rollout that was taken back is as if it had not been.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence

from edgewright.errors import RolloutError
from edgewright.twin import DesiredState
from edgewright_fleet.devices import DeviceView
from edgewright_fleet.rollout.maintenance import is_open
from edgewright_fleet.rollout.spec import RolloutSpec
from edgewright_fleet.rollout.state import RolloutState, SetDesired
from edgewright_fleet.rollout.waves import choose

RESTING_PHASES = (None, "idle", "committed", "failed")
"""Phases of a device in which it is at no update."""


def due(
    views: Mapping[str, DeviceView], rollouts: Sequence[tuple[RolloutSpec, RolloutState]], now_s: float
) -> list[SetDesired]:
    """What to tell which devices now, given the rollouts of their fleet, newest first, and Unix seconds.

    Nobody is told outside their maintenance window, and no more than may be in mid-update at once. Telling a
    device again changes nothing, so whoever calls this often leaves out those that were told before.
    """
    taken_back = {spec.reverts for spec, _ in rollouts}
    selected: dict[str, Container[str]] = {}
    wishes = []
    for device, view in views.items():
        if not view.online or view.profile is None or view.phase not in RESTING_PHASES:
            continue
        for spec, state in rollouts:
            record = state.devices.get(device)
            if state.name in taken_back:
                continue
            if spec.reverts:
                if record is None:
                    continue
                break  # what it ran before is what it is to run, and that is retained
            if record is None:
                if state.name not in selected:
                    selected[state.name] = _joining(spec, state, views)
                if device not in selected[state.name]:
                    continue  # an older one may be for it
            elif record.stand not in ("waiting", "censored") and view.running is not None:
                break
            now = is_open(spec.maintenance, view.time_zone or spec.time_zone, now_s)
            if state.phase == "succeeded" and view.running != state.release and now:
                wishes.append(SetDesired(device, DesiredState(release=state.release, rollout=state.name)))
            break
    if not wishes:
        return []
    busy = sum(view.online and view.phase not in RESTING_PHASES for view in views.values())
    return wishes[: max(0, rollouts[0][0].room(len(views)) - busy)]


def _joining(spec: RolloutSpec, state: RolloutState, views: Mapping[str, DeviceView]) -> Container[str]:
    """Devices that a rollout would have chosen had they been there, of profiles on which it has proved."""
    if state.phase != "succeeded" or spec.devices != "all":
        return ()
    proved = {record.profile for record in state.standing("committed").values()}
    try:
        chosen = choose(spec, views)
    except RolloutError:  # nobody, or a device that was held back by name is no more
        return ()
    return {device for device, profile in chosen.items() if profile in proved}
