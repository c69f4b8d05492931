"""The engine against a fleet in memory that speaks the device protocol, in any order and with repeats."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgewright.contract import from_json, to_json
from edgewright.errors import RolloutError
from edgewright.telemetry.histogram import ExponentialHistogram
from edgewright.telemetry.reading import Reading, reading_of
from edgewright.telemetry.window import TelemetryWindow
from edgewright.twin import DesiredState, ReleaseReference, ReportedState, RunningRelease
from edgewright_fleet.rollout.engine import advance, resend, reversal
from edgewright_fleet.rollout.limits import Gates
from edgewright_fleet.rollout.records import DeviceRecord, Devices
from edgewright_fleet.rollout.spec import RolloutSpec
from edgewright_fleet.rollout.state import (
    ENDED,
    RESTING,
    AbortRequested,
    ContinueRequested,
    Decision,
    DeviceEvent,
    DevicePresence,
    DeviceReported,
    PauseRequested,
    PromoteRequested,
    RolloutState,
    SetDesired,
    Tick,
    WindowArrived,
)
from edgewright_fleet.rollout.stopping import failure_test_of
from edgewright_fleet.rollout.table import TABLE, as_markdown
from edgewright_fleet.rollout.waves import plan_waves

OLD = ReleaseReference(name="net", version="1.0.0", digest="sha256:" + "0" * 64)
NEW = ReleaseReference(name="net", version="1.1.0", digest="sha256:" + "1" * 64)
GATES = Gates(min_inferences=10, window_s=5.0, timeout_s=60.0)


@dataclass
class Device:
    """One device in memory: it takes `install_s` ticks to an answer, and measures once a tick."""

    name: str
    running: ReleaseReference | None = OLD
    install_s: int = 2
    broken: bool = False
    slow: bool = False
    idle: bool = False
    silent: bool = False
    offline_from: int = 10**9
    offline_until: int = 10**9
    wish: DesiredState | None = None
    left: int = -1
    sequence: int = 0
    payloads: int = 0
    boot: str = "b0"
    zone: str | None = None
    deferred_until_s: float | None = None

    def online(self, now: int) -> bool:
        return not self.offline_from <= now < self.offline_until

    @property
    def mid_update(self) -> bool:
        return self.left >= 0

    def desire(self, wish: DesiredState | None) -> None:
        if wish is not None and wish != self.wish:
            self.wish, self.left = wish, (0 if self.runs(wish) else self.install_s)

    def runs(self, wish: DesiredState) -> bool:
        return self.running is not None and self.running.digest == wish.release.digest

    def report(self, phase: str, reason: str | None = None) -> DeviceReported:
        self.sequence += 1
        running = None
        if self.running is not None:
            running = RunningRelease(release=self.running, artifact=self.running.digest, runtime="r 1")
        return DeviceReported(
            ReportedState(
                device=self.name,
                profile="p",
                boot=self.boot,
                sequence=self.sequence,
                phase=phase,  # type: ignore[arg-type]
                running=running,
                target=self.wish.release if self.wish else None,
                rollout=self.wish.rollout if self.wish else None,
                reason=reason,
                time_zone=self.zone,
                deferred_until_s=self.deferred_until_s,
            )
        )

    def step(self) -> list[DeviceEvent]:
        """What it says in one second."""
        said: list[DeviceEvent] = []
        if self.left > 0:
            self.left -= 1
            said.append(self.report("downloading"))
        elif self.left == 0 and not self.silent and self.wish is not None:
            self.left = -1
            if self.broken and self.wish.release == NEW:
                said.append(self.report("failed", "golden check"))
            else:
                self.running = self.wish.release
                said.append(self.report("committed"))
        if self.running is not None and not self.idle:
            index = 40 if self.slow and self.running == NEW else 0
            said.append(WindowArrived(window(self.name, self.running, index, sequence=self.payloads)))
            self.payloads += 1
        return said


def window(device: str, release: ReleaseReference, index: int, *, sequence: int = 0) -> Reading:
    made = TelemetryWindow(
        fleet="f",
        device=device,
        profile="p",
        boot="b0",
        sequence=sequence,
        start_ns=0,
        end_ns=1,
        model=release.name,
        version=release.version,
        release=release.digest,
        latency=ExponentialHistogram(scale=3, buckets={index: 5}),
        errors=0,
    )
    return reading_of(made)


@dataclass
class World:
    """A rollout and its fleet; a second a turn."""

    spec: RolloutSpec
    devices: dict[str, Device]
    random: random.Random
    repeats: bool = True
    now: int = 0
    decisions: list[Decision] = field(default_factory=list)
    sent: list[tuple[int, SetDesired]] = field(default_factory=list)
    stopped_at: int | None = None
    state: RolloutState = field(init=False)

    def __post_init__(self) -> None:
        offline = [d.name for d in self.devices.values() if not d.online(0)]
        waves = plan_waves(self.spec, [(name, "p") for name in self.devices], offline)
        records = {name: DeviceRecord(profile="p") for wave in waves for name in wave}
        self.state = RolloutState(name="r", release=NEW, waves=waves, devices=records, since_s=0.0)
        # What is retained comes first, whether or not the device is there.
        for device in self.devices.values():
            self.tell(device.report("committed" if device.running else "idle"))
            self.tell(DevicePresence(device.name, device.online(0), device.boot))

    def tell(self, event: object) -> None:
        before = self.state
        self.state, actions = advance(before, self.spec, event, float(self.now))  # type: ignore[arg-type]
        assert self.state.phase == before.phase or self.state.phase in TABLE[before.phase].next
        if self.state.phase == "reverting" and self.stopped_at is None:
            self.stopped_at = len(self.sent)
        for action in actions:
            if isinstance(action, Decision):
                assert action.sentence
                self.decisions.append(action)
            else:
                self.sent.append((self.now, action))
                self.devices[action.device].desire(action.desired)

    def second(self) -> None:
        self.now += 1
        said: list[DeviceEvent] = []
        for device in self.devices.values():
            if device.online(self.now) != device.online(self.now - 1):
                said.append(DevicePresence(device.name, device.online(self.now), device.boot))
            if device.online(self.now):
                said += device.step()
        if self.repeats:
            again = [event for event in said if not isinstance(event, DevicePresence)]
            said += [event for event in again if self.random.random() < 0.3]
        self.random.shuffle(said)
        for event in said:
            self.tell(event)
        self.tell(Tick())

    def run(self, seconds: int = 2000) -> None:
        while self.state.phase not in RESTING and self.now < seconds:
            self.second()


def world(*devices: Device, seed: int = 0, **changes: object) -> World:
    spec = RolloutSpec.model_validate(
        {"name": "r", "fleet": "f", "release": "net:1.1.0", "registry": "r", "gates": GATES, **changes}
    )
    return World(spec, {device.name: device for device in devices}, random.Random(seed))


def fleet(count: int, **behaviour: object) -> list[Device]:
    return [Device(f"d{index}", **behaviour) for index in range(count)]  # type: ignore[arg-type]


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


def test_one_device_at_a_time_takes_longer_than_the_time_out_and_still_succeeds() -> None:
    w = world(*fleet(12, install_s=10), waves=("rest",))
    w.run()
    assert w.state.phase == "succeeded"
    assert w.now > GATES.timeout_s


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


def test_on_failure_hold_leaves_exposed_devices_as_they_are() -> None:
    w = world(*fleet(3, slow=True), waves=(1, "rest"), on_failure="hold")
    w.run()
    assert w.state.phase == "failed"
    assert w.devices["d0"].running == NEW
    assert "held as they are" in str(w.state.verdict)


def test_revert_that_is_never_answered_ends_at_the_time_out_and_says_so() -> None:
    w = world(*fleet(2, slow=True), waves=(1, "rest"))
    while w.state.phase != "reverting":
        w.second()
    w.devices["d0"].offline_from = w.now
    w.run()
    assert w.state.phase == "failed"
    assert "no word of it yet from d0" in str(w.state.verdict)


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


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 40), st.floats(0.001, 0.9999), st.integers(0, 2**16))
def test_never_all_devices_are_in_mid_update(devices: int, max_unavailable: float, seed: int) -> None:
    spec = world(*fleet(devices), max_unavailable=max_unavailable).spec
    assert 1 <= spec.room(devices) < devices


def test_index_of_stands_is_what_a_count_over_all_records_gives() -> None:
    w = world(*fleet(8, broken=False), Device("x", silent=True), waves=(1, 2, "rest"))
    while w.state.phase not in RESTING:
        w.second()
        devices = w.state.devices
        anew = Devices.of(dict(devices))
        assert devices.stands() == anew.stands()
        assert set(devices.undecided) == set(anew.undecided)
