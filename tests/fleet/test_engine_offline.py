"""Devices that are offline, come back, or never answer: censored, counted, and never taken for healthy."""

from __future__ import annotations

from edgewright_fleet.rollout.state import (
    SetDesired,
)
from fleet.fleet_in_memory import NEW, OLD, Device, fleet, world


def test_offline_devices_are_counted_and_do_not_hold_the_others_up() -> None:
    away = [Device(f"a{i}", offline_from=0) for i in range(3)]
    w = world(*away, *fleet(5), waves=(1, "rest"))
    w.run()
    assert w.state.phase == "succeeded"
    assert w.state.waves[0] == ("d0",), "a canary is a device that can answer"
    assert "3 were offline" in str(w.state.verdict)
    assert all(device.running == OLD for device in away)


def test_last_wave_that_is_all_offline_ends_the_rollout_after_the_time_out() -> None:
    away = [Device(f"a{i}", offline_from=0) for i in range(3)]
    w = world(Device("d0"), *away, waves=(1, "rest"))
    w.run()
    assert (w.state.phase, "3 were offline" in str(w.state.verdict)) == ("succeeded", True)


def test_fleet_that_is_wholly_offline_pauses_instead_of_passing() -> None:
    w = world(*(Device(f"a{i}", offline_from=0) for i in range(2)))
    w.run()
    assert (w.state.phase, w.state.exposed) == ("paused", ())


def test_middle_wave_that_is_all_offline_pauses_since_it_shows_nothing() -> None:
    devices = [Device("d0"), *(Device(f"e{i}", offline_from=8, offline_until=10**9) for i in range(3))]
    w = world(*devices, waves=(1, 1, "rest"))
    w.run()
    assert w.state.phase == "paused"
    assert len(w.state.exposed) == 1


def test_wave_whose_devices_all_vanish_after_their_commit_does_not_pass_on_earlier_waves() -> None:
    second = Device("d1")
    w = world(Device("d0"), second, Device("d2"), waves=(1, 1, "rest"))
    while not (w.state.phase == "observing" and w.state.wave == 1):
        w.second()
    second.offline_from = w.now + 1
    w.run()
    assert w.state.phase == "paused"
    assert w.state.exposed == ("d0", "d1")


def test_device_that_comes_back_late_is_taken_along_by_a_later_wave() -> None:
    late = Device("d1", offline_from=5, offline_until=25)
    w = world(Device("d0"), late, Device("d2"), Device("d3", install_s=15), waves=(2, 1, "rest"))
    w.run()
    assert w.state.phase == "succeeded"
    assert late.running == NEW


def test_device_that_goes_offline_in_mid_update_is_censored_and_gives_its_place_up() -> None:
    lost = Device("d0", install_s=10)
    w = world(lost, Device("d1"), Device("d2"), waves=("rest",))
    while not lost.mid_update:
        w.second()
    lost.offline_from = w.now + 1
    w.run()
    assert w.state.phase == "succeeded"
    assert w.state.devices["d0"].stand == "censored"
    assert "1 were offline" in str(w.state.verdict)


def test_offline_device_that_reports_for_the_first_time_in_a_later_wave_has_a_baseline_to_go_back_to() -> (
    None
):
    w = world(Device("d0"), Device("d1", slow=True, offline_from=0, offline_until=9), waves=(1, "rest"))
    w.run()
    assert w.state.phase == "failed"
    assert w.state.devices["d1"].before == OLD
    assert w.devices["d1"].running == OLD


def test_first_release_of_a_fleet_needs_no_baseline() -> None:
    w = world(*fleet(3, running=None))
    w.run()
    assert w.state.phase == "succeeded"


def test_device_that_ran_nothing_before_is_stranded_and_its_wish_is_withdrawn() -> None:
    w = world(*fleet(2, running=None, broken=True), waves=(1, "rest"))
    w.run()
    assert w.state.phase == "failed"
    assert w.sent[-1][1] == SetDesired("d0", None)
    assert "cannot go back: d0 (it ran nothing before)" in str(w.state.verdict)


def test_revert_that_is_never_answered_ends_at_the_time_out_and_says_so() -> None:
    w = world(*fleet(2, slow=True), waves=(1, "rest"))
    while w.state.phase != "reverting":
        w.second()
    w.devices["d0"].offline_from = w.now
    w.run()
    assert w.state.phase == "failed"
    assert "no word of it yet from d0" in str(w.state.verdict)
