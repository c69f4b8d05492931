"""How fast a rollout goes: pacing, maintenance windows, deferrals, how many are in mid-update."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from edgewright_fleet.rollout.state import (
    RESTING,
)
from fleet.fleet_in_memory import GATES, Device, fleet, world


def test_one_device_at_a_time_takes_longer_than_the_time_out_and_still_succeeds() -> None:
    w = world(*fleet(12, install_s=10), waves=("rest",))
    w.run()
    assert w.state.phase == "succeeded"
    assert w.now > GATES.timeout_s


def test_pacing_spreads_a_wave_over_time() -> None:
    w = world(*fleet(30), waves=("rest",), max_unavailable=0.9, devices_per_minute=60.0)
    w.run()
    assert w.state.phase == "succeeded"
    asked = [second for second, action in w.sent]
    assert asked[-1] - asked[0] >= 28, "a device a second"
    assert all(asked.count(second) <= 2 for second in asked)


def test_device_outside_its_maintenance_window_is_waited_for_and_one_inside_is_not() -> None:
    # The clock begins at midnight of a Thursday in UTC, when it was 05:30 in Kathmandu (05:45 since 1986).
    devices = [Device("here", zone="UTC"), Device("there", zone="Asia/Kathmandu")]
    w = world(*devices, waves=("rest",), max_unavailable=0.9, maintenance=[{"from": "05:30", "to": "05:32"}])
    while w.now < 100:
        w.second()
    assert [(action.device, second <= 100) for second, action in w.sent] == [("there", True)]
    assert w.state.phase not in RESTING, "it waits for a clock, far beyond the time-out of 60 s"
    w.run(400)
    assert w.state.exposed == ("there",)
    w.now = 5 * 3600 + 30 * 60
    w.run(30_000)
    assert w.state.phase == "succeeded"
    assert w.state.exposed == ("here", "there")


def test_device_in_use_puts_its_update_off_and_no_more_often_than_allowed() -> None:
    busy = Device("d0", deferred_until_s=30.0)
    w = world(busy, waves=("rest",), max_deferrals=2)
    while not w.sent and w.now < 500:
        w.second()
        if busy.deferred_until_s <= w.now + 1:
            busy.deferred_until_s += 30.0
            w.tell(busy.report("committed"))
    assert w.state.devices["d0"].deferrals == 3
    assert 58 <= w.sent[0][0] <= 62, "put off to 30 s and to 60 s; the third time is not granted"


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 40), st.floats(0.001, 0.9999), st.integers(0, 2**16))
def test_never_all_devices_are_in_mid_update(devices: int, max_unavailable: float, seed: int) -> None:
    spec = world(*fleet(devices), max_unavailable=max_unavailable).spec
    assert 1 <= spec.room(devices) < devices
