"""The engine against a fleet in memory: what it promises of any fleet, how it goes well and fails, its table."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgewright.contract import from_json, to_json
from edgewright.twin import DesiredState
from edgewright_fleet.rollout.engine import resend
from edgewright_fleet.rollout.records import Devices
from edgewright_fleet.rollout.state import (
    ENDED,
    RESTING,
    AbortRequested,
    DevicePresence,
    RolloutState,
    Tick,
)
from edgewright_fleet.rollout.stopping import failure_test_of
from edgewright_fleet.rollout.table import TABLE, as_markdown
from fleet.fleet_in_memory import GATES, NEW, OLD, Device, fleet, world

behaviours = st.fixed_dictionaries(
    {
        "running": st.sampled_from([OLD, OLD, OLD, None, NEW]),
        "install_s": st.integers(0, 20),
        "broken": st.sampled_from([False, False, False, True]),
        "slow": st.sampled_from([False, False, False, True]),
        "idle": st.sampled_from([False, False, False, False, True]),
        "silent": st.sampled_from([False, False, False, False, False, True]),
        "offline_from": st.sampled_from([10**9, 10**9, 0, 3, 15, 40]),
        "offline_until": st.sampled_from([10**9, 20, 70, 200]),
    }
)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(behaviours, min_size=1, max_size=12),
    st.sampled_from([("rest",), (1, "rest"), (1, "30%", "rest"), ("50%", "100%")]),
    st.sampled_from([0.1, 0.3, 0.9]),
    st.integers(0, 2**16),
    st.sampled_from(["revert", "hold"]),
    st.one_of(st.none(), st.integers(0, 100)),
)
def test_any_fleet_keeps_every_promise(
    fleet_behaviours: list[dict[str, object]],
    waves: tuple[int | str, ...],
    max_unavailable: float,
    seed: int,
    on_failure: str,
    abort_at: int | None,
) -> None:
    devices = [Device(f"d{i}", **b) for i, b in enumerate(fleet_behaviours)]  # type: ignore[arg-type]
    w = world(*devices, seed=seed, waves=waves, max_unavailable=max_unavailable, on_failure=on_failure)
    room = max(1, int(max_unavailable * len(devices)))
    while w.state.phase not in RESTING and w.now < 5000:
        w.second()
        if w.now == abort_at:
            w.tell(AbortRequested())
        if w.stopped_at is None:
            busy = [device for device in devices if device.mid_update and device.online(w.now)]
            # A device that was given up on while offline may come back in the middle of its update.
            assert len(busy) <= room + len(w.state.standing("censored"))
            assert len(w.state.standing("asked")) <= room
        allowed = sum(len(wave) for wave in w.state.waves[: w.state.wave + 1])
        assert len(w.state.exposed) <= allowed
        assert from_json(RolloutState, to_json(w.state), where="") == w.state
    assert w.state.phase in RESTING, "a rollout always ends or is paused"
    assert w.decisions
    assert w.state.verdict
    if w.stopped_at is not None:
        for _, action in w.sent[w.stopped_at :]:
            assert action.desired is None or action.desired.revert
    if w.state.phase == "succeeded":
        for name, record in w.state.standing("committed").items():
            assert w.devices[name].running == NEW
            assert record.after.latency.count >= GATES.min_inferences or not record.online
        assert not w.state.standing("asked", "reverting", "reverted", "stranded")
        refused = w.state.standing("failed")
        exposed = len(w.state.exposed)
        assert len(refused) < failure_test_of(w.spec.gates, len(devices)).limit(exposed)
    if w.state.phase == "failed" and on_failure == "revert" and "no word" not in str(w.state.verdict):
        for record in w.state.devices.values():
            assert record.stand in ("waiting", "reverted", "stranded")


def test_healthy_fleet_succeeds_wave_by_wave() -> None:
    w = world(*fleet(10), waves=(1, "20%", "rest"))
    w.run()
    assert w.state.phase == "succeeded"
    assert [len(wave) for wave in w.state.waves] == [1, 2, 7]
    assert all(device.running == NEW for device in w.devices.values())
    assert all(decision.evidence for decision in w.decisions)


def test_slow_release_is_stopped_at_the_canary_and_goes_back_to_the_exact_earlier_digest() -> None:
    w = world(*fleet(10, slow=True), waves=(1, "rest"))
    w.run()
    assert w.state.phase == "failed"
    assert w.state.exposed == ("d0",)
    assert w.devices["d0"].running == OLD
    (_, last) = w.sent[-1]
    assert last.desired == DesiredState(release=OLD, rollout="r", revert=True)
    stop = next(d for d in w.decisions if d.sentence.startswith("stopped in wave 1"))
    assert stop.evidence["p50_after_s"] > 1.5 * stop.evidence["p50_before_s"]


def test_device_that_fails_to_install_fails_the_rollout_with_its_reason() -> None:
    w = world(*fleet(3, broken=True), waves=(1, "rest"))
    w.run()
    assert w.state.phase == "failed"
    assert "golden check" in str(w.state.verdict)
    assert len(w.state.exposed) == 1


def test_device_in_mid_update_is_not_taken_for_reverted_while_it_still_runs_the_old_release() -> None:
    w = world(*fleet(2, install_s=30), waves=("rest",), max_unavailable=0.9)
    while not w.state.exposed:
        w.second()
    w.tell(AbortRequested())
    device = w.devices[w.state.exposed[0]]
    # It goes on with the update it was at, as the agent does, before it takes the newest wish.
    wish, device.wish = device.wish, None
    w.tell(device.report("committed"))
    assert w.state.devices[device.name].stand == "reverting", "it was not told yet when it said so"
    device.wish = DesiredState(release=NEW, rollout="r")
    w.tell(device.report("downloading"))
    assert w.state.devices[device.name].stand == "reverting"
    device.running = NEW
    w.tell(device.report("committed"))
    w.tell(Tick())
    assert w.state.phase == "reverting"
    device.wish = wish
    w.run()
    assert w.state.phase == "aborted"
    assert device.running == OLD


def test_idle_canary_is_inconclusive_and_never_passes() -> None:
    devices = fleet(3)
    w = world(*devices, waves=(1, "rest"))
    while w.state.phase != "observing":
        w.second()
        for device in devices:
            device.idle = bool(w.state.exposed)
    w.run()
    assert w.state.phase == "paused"
    assert "inconclusive" in str(w.state.verdict)
    assert len(w.state.exposed) == 1


def test_fleet_without_a_baseline_is_not_touched() -> None:
    w = world(*fleet(3, idle=True))
    w.run()
    assert (w.state.phase, w.sent) == ("paused", [])
    assert "no baseline of 10 inferences" in str(w.state.verdict)


def test_old_reports_and_old_last_wills_do_not_count() -> None:
    w = world(Device("d0"))
    device = w.devices["d0"]
    stale = device.report("failed", "an old story")
    w.tell(device.report("committed"))
    before = w.state
    w.tell(stale)
    assert w.state is before
    device.boot, device.sequence = "b1", 0
    w.tell(device.report("committed"))
    w.tell(DevicePresence("d0", False, "b0"))
    assert w.state.devices["d0"].online


def test_resent_actions_are_exactly_what_open_devices_were_told() -> None:
    w = world(*fleet(4, install_s=20), waves=("rest",), max_unavailable=0.5)
    while len(w.state.exposed) < 2:
        w.second()
    told = {a.device: a.desired for _, a in w.sent if a.device in w.state.standing("asked")}
    assert told
    assert {a.device: a.desired for a in resend(w.state)} == told
    w.tell(AbortRequested())
    assert all(a.desired is not None and a.desired.revert for a in resend(w.state))
    assert not resend(w.state.model_copy(update={"phase": "failed"}))


def test_events_of_unknown_devices_and_after_the_end_change_nothing() -> None:
    w = world(Device("d0"))
    before = w.state
    w.tell(DevicePresence("stranger", True, "b0"))
    assert w.state is before
    w.run()
    ended = w.state
    w.tell(AbortRequested())
    w.tell(Tick())
    assert w.state is ended


def test_table_has_a_row_for_every_phase_and_none_leads_nowhere() -> None:
    assert set(TABLE) == {phase for row in TABLE.values() for phase in row.next} | {"baseline"}
    assert {phase for phase, row in TABLE.items() if not row.next} == ENDED
    assert as_markdown().count("\n") == len(TABLE) + 2


@pytest.mark.parametrize("phase", sorted(ENDED))
def test_ended_phases_rest(phase: str) -> None:
    assert phase in RESTING


def test_index_of_stands_is_what_a_count_over_all_records_gives() -> None:
    w = world(*fleet(8, broken=False), Device("x", silent=True), waves=(1, 2, "rest"))
    while w.state.phase not in RESTING:
        w.second()
        devices = w.state.devices
        anew = Devices.of(dict(devices))
        assert devices.stands() == anew.stands()
        assert set(devices.undecided) == set(anew.undecided)
