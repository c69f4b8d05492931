"""What a person asks of a rollout: pause, go on, promote, abort, take back."""

from __future__ import annotations

import pytest

from edgewright.errors import RolloutError
from edgewright.twin import ReleaseReference
from edgewright_fleet.rollout.engine import resend, reversal
from edgewright_fleet.rollout.state import (
    AbortRequested,
    ContinueRequested,
    PauseRequested,
    PromoteRequested,
)
from fleet.fleet_in_memory import NEW, OLD, Device, fleet, world


def test_paused_rollout_goes_on_when_it_is_continued() -> None:
    devices = fleet(3, idle=True)
    w = world(*devices)
    w.run()
    for device in devices:
        device.idle = False
    w.tell(ContinueRequested())
    w.run()
    assert w.state.phase == "succeeded"


def test_paused_rollout_can_be_aborted_and_its_devices_go_back() -> None:
    w = world(*fleet(3, silent=True), waves=("rest",))
    w.run()
    assert w.state.phase == "paused"
    for device in w.devices.values():
        device.silent = False
    w.tell(AbortRequested())
    w.run()
    assert w.state.phase == "aborted"
    assert all(device.running == OLD for device in w.devices.values())


def test_on_failure_hold_leaves_exposed_devices_as_they_are() -> None:
    w = world(*fleet(3, slow=True), waves=(1, "rest"), on_failure="hold")
    w.run()
    assert w.state.phase == "failed"
    assert w.devices["d0"].running == NEW
    assert "held as they are" in str(w.state.verdict)


def test_operator_pauses_and_nobody_else_is_told_until_it_goes_on() -> None:
    w = world(*fleet(6), waves=(1, "rest"))
    while w.state.phase != "observing":
        w.second()
    w.tell(PauseRequested("ann@desk", "the shop is full"))
    assert w.state.phase == "paused"
    assert w.state.verdict == "paused by ann@desk: the shop is full"
    sent = len(w.sent)
    for _ in range(50):
        w.second()
    assert len(w.sent) == sent
    assert w.decisions[-1].by == "ann@desk"
    w.tell(ContinueRequested("bob@desk"))
    w.run()
    assert w.state.phase == "succeeded"


@pytest.mark.parametrize("paused", [False, True])
def test_operator_promotes_a_wave_that_is_observed_and_the_log_says_who_and_why(paused: bool) -> None:
    devices = fleet(4)
    w = world(*devices, waves=(1, "rest"))
    while w.state.phase != "observing":
        w.second()
        devices[0].idle = bool(w.state.exposed)
    if paused:
        w.run()
        assert w.state.phase == "paused"
    w.tell(PromoteRequested("ann@desk", "tried by hand"))
    assert (w.state.phase, w.state.wave) == ("updating", 1)
    said = next(decision for decision in w.decisions if decision.by == "ann@desk")
    assert said.sentence.startswith("wave 1 promoted by ann@desk: tried by hand")


def test_promotion_while_nothing_is_observed_changes_nothing_and_is_logged() -> None:
    w = world(Device("d0"))
    before = w.state
    w.tell(PromoteRequested("ann@desk", "hurry"))
    assert w.state is before
    assert "not promoted" in w.decisions[-1].sentence


def test_promotion_does_not_wave_a_failure_through() -> None:
    w = world(*fleet(3, slow=True), waves=(1, "rest"))
    w.run()
    assert w.state.phase == "failed"
    ended = w.state
    w.tell(PromoteRequested("ann@desk", "never mind"))
    assert w.state is ended


def test_rollout_that_succeeded_is_taken_back_to_the_exact_earlier_digests() -> None:
    other = ReleaseReference(name="net", version="0.9.0", digest="sha256:" + "9" * 64)
    w = world(Device("d0"), Device("d1", running=other), Device("d2", running=None), waves=("rest",))
    w.run()
    assert w.state.phase == "succeeded"
    w.state = reversal(w.state, "r-revert", float(w.now))
    for action in resend(w.state):
        w.devices[action.device].desire(action.desired)
    w.run()
    assert w.state.phase == "succeeded"
    assert (w.devices["d0"].running, w.devices["d1"].running) == (OLD, other)
    assert w.devices["d2"].running == NEW, "it has nothing to go back to"
    with pytest.raises(RolloutError, match="no device of rollout"):
        reversal(w.state, "again", 0.0)


def test_rollout_that_still_goes_on_is_not_taken_back_but_aborted() -> None:
    with pytest.raises(RolloutError, match=r"has not ended \(baseline\)"):
        reversal(world(Device("d0")).state, "back", 0.0)
