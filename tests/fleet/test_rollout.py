from __future__ import annotations

import time
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import PROFILE, free_port, put_tiny
from edgewright.artifact.layout import Layout
from edgewright.contract import from_json, schema_text, to_json
from edgewright.errors import BrokerError, ConfigError, EdgewrightError, RolloutError
from edgewright.mqtt import BrokerSettings
from edgewright.telemetry.histogram import ExponentialHistogram
from edgewright.telemetry.window import TelemetryWindow
from edgewright.twin import ReleaseReference, ReportedState, RunningRelease
from edgewright_fleet.broker import embedded_broker
from edgewright_fleet.rollout.engine import advance, resend
from edgewright_fleet.rollout.gates import judge, judge_device
from edgewright_fleet.rollout.limits import Gates
from edgewright_fleet.rollout.measured import Measured
from edgewright_fleet.rollout.records import DeviceRecord
from edgewright_fleet.rollout.spec import RolloutSpec, load_spec
from edgewright_fleet.rollout.state import (
    RESTING,
    AbortRequested,
    Decision,
    DevicePresence,
    DeviceReported,
    RolloutState,
    SetDesired,
    Tick,
    WindowArrived,
)
from edgewright_fleet.rollout.store import RolloutStore
from edgewright_fleet.rollout.waves import plan_waves
from edgewright_fleet.targets.mqtt import MqttTarget

OLD = ReleaseReference(name="net", version="1.0.0", digest="sha256:" + "0" * 64)
NEW = ReleaseReference(name="net", version="1.1.0", digest="sha256:" + "1" * 64)
SPEC = RolloutSpec(
    name="night",
    fleet="f",
    release="net:1.1.0",
    registry=Path("registry"),
    waves=(1, "rest"),
    gates=Gates(min_inferences=20, window_s=2, timeout_s=30),
    max_unavailable=0.4,
)


def latency(seconds: float, count: int = 25) -> ExponentialHistogram:
    import math

    return ExponentialHistogram(
        scale=5, buckets={math.floor(math.log2(seconds) * 32): count}, total=seconds * count
    )


def window(
    device: str, release: ReleaseReference, seconds: float, sequence: int, errors: int = 0
) -> TelemetryWindow:
    return TelemetryWindow(
        fleet="f", device=device, profile="p", boot="b", sequence=sequence, start_ns=0, end_ns=1,
        model=release.name, version=release.version, release=release.digest,
        latency=latency(seconds), errors=errors,
    )  # fmt: skip


class SimulatedFleet:
    """Devices that do what the twin contract says: an in-memory form of the real thing, no mock of a call."""

    def __init__(self, devices: dict[str, str]) -> None:
        self.kinds = devices
        self.running = dict.fromkeys(devices, OLD)
        self.told: list[SetDesired] = []
        self.targets: dict[str, ReleaseReference] = {}
        self.mid_update = 0
        self.sequence = 0

    def tell(self, action: SetDesired) -> list[DeviceReported]:
        self.told.append(action)
        assert action.desired is not None
        wanted = self.targets[action.device] = action.desired.release
        if wanted == NEW and self.kinds[action.device] == "refuses":
            return [self.report(action.device, "failed", "golden check: differs")]
        self.running[action.device] = wanted
        return [self.report(action.device, "committed")]

    def report(self, device: str, phase: str, reason: str | None = None) -> DeviceReported:
        self.sequence += 1
        running = RunningRelease(release=self.running[device], artifact=NEW.digest, runtime="r")
        return DeviceReported(
            ReportedState(
                device=device, profile="p", boot="b", sequence=self.sequence, phase=phase, running=running,  # type: ignore[arg-type]
                rollout="night", reason=reason, target=self.targets.get(device),
            )
        )  # fmt: skip

    def measure(self, device: str) -> WindowArrived:
        self.sequence += 1
        on_new = self.running[device] == NEW
        slow = on_new and self.kinds[device] == "slow"
        errors = 5 if on_new and self.kinds[device] == "errs" else 0
        return WindowArrived(
            window(device, self.running[device], 0.08 if slow else 0.01, self.sequence, errors)
        )


def run(
    kinds: dict[str, str], spec: RolloutSpec = SPEC, ticks: int = 200
) -> tuple[RolloutState, SimulatedFleet]:
    fleet = SimulatedFleet(kinds)
    waves = plan_waves(spec, [(device, "p") for device in kinds])
    devices = {
        d: DeviceRecord(profile="p", online=k != "offline", before=OLD, running=OLD) for d, k in kinds.items()
    }
    state = RolloutState(name="night", release=NEW, waves=waves, devices=devices, since_s=0.0)
    limit = max(1, int(spec.max_unavailable * len(kinds)))
    failed_at: int | None = None
    for now in range(ticks):
        for device, kind in kinds.items():
            if kind != "offline":
                state, _ = advance(state, spec, fleet.measure(device), now)
        state, actions = advance(state, spec, Tick(), now)
        asked = [a for a in actions if isinstance(a, SetDesired) and a.desired and a.desired.release == NEW]
        assert len(asked) <= limit
        assert not (failed_at is not None and asked), "the release was sent on after a gate failed"
        if state.phase == "reverting" and failed_at is None:
            failed_at = now
        for action in actions:
            if isinstance(action, SetDesired):
                for event in fleet.tell(action):
                    state, _ = advance(state, spec, event, now)
        # The state survives being stored after every step.
        assert from_json(RolloutState, to_json(state), where="test") == state
        if state.phase in RESTING:
            break
    return state, fleet


def test_healthy_release_reaches_every_device() -> None:
    state, fleet = run(dict.fromkeys("abcde", "good"))
    assert state.phase == "succeeded"
    assert set(fleet.running.values()) == {NEW}


@pytest.mark.parametrize("kind", ["slow", "errs", "refuses"])
def test_bad_release_is_stopped_at_its_first_device_which_goes_back(kind: str) -> None:
    state, fleet = run(dict.fromkeys("abcde", kind))
    assert state.phase == "failed"
    assert len(state.exposed) == 1
    assert set(fleet.running.values()) == {OLD}


def test_offline_device_is_censored_and_counted() -> None:
    state, _ = run({"a": "good", "b": "offline", "c": "good"})
    assert state.phase == "succeeded"
    assert state.verdict is not None and "1 were offline" in state.verdict


def test_fleet_that_is_wholly_offline_pauses_instead_of_passing() -> None:
    state, _ = run({"a": "offline", "b": "offline"})
    assert state.phase == "paused"


@settings(max_examples=60, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from([f"d{i}" for i in range(8)]),
        st.sampled_from(["good", "slow", "errs", "refuses", "offline"]),
        min_size=1,
    )
)
def test_every_rollout_ends_and_no_exposed_device_is_left_on_a_bad_release(kinds: dict[str, str]) -> None:
    state, fleet = run(kinds)
    assert state.phase in RESTING
    if state.phase == "failed":
        assert all(release == OLD for release in fleet.running.values())
    if state.phase == "succeeded":
        assert all(kind in ("good", "offline") for kind in kinds.values())


def test_abort_takes_exposed_devices_back() -> None:
    state = RolloutState(
        name="night", release=NEW, waves=(("a",), ("b",)), phase="observing", since_s=0,
        devices={
            "a": DeviceRecord(profile="p", online=True, stand="committed", before=OLD, running=NEW),
            "b": DeviceRecord(profile="p", online=True, before=OLD, running=OLD),
        },
    )  # fmt: skip
    state, actions = advance(state, SPEC, AbortRequested(), 1)
    told = [a for a in actions if isinstance(a, SetDesired)]
    assert [(t.device, t.desired.release, t.desired.revert) for t in told if t.desired] == [("a", OLD, True)]
    assert resend(state) == told


def test_duplicate_and_stray_events_change_nothing() -> None:
    state, fleet = run({"a": "good"}, ticks=0)
    same, actions = advance(state, SPEC, DevicePresence("stranger", True, "b"), 1)
    assert (same, actions) == (state, [])
    report = fleet.report("a", "committed")
    once, _ = advance(state, SPEC, report, 1)
    assert advance(once, SPEC, report, 2) == (once, [])


@given(st.floats(0.001, 1), st.floats(1.0, 10.0))
def test_gate_fails_exactly_when_the_median_is_past_its_limit(before_s: float, ratio: float) -> None:
    gates = Gates(min_inferences=20, max_p50_ratio=2.0, max_p99_ratio=100.0)
    before, after = Measured(latency=latency(before_s)), Measured(latency=latency(before_s * ratio))
    result = judge_device("a", before, after, gates)
    if not 1.9 < ratio < 2.1:  # a bucket of scale 5 is 2 % wide
        assert result.verdict == ("pass" if ratio < 2 else "fail")


def test_missing_data_is_never_a_pass() -> None:
    gates = Gates(min_inferences=20)
    enough = Measured(latency=latency(0.01))
    assert judge_device("a", enough, Measured(), gates).verdict == "inconclusive"
    assert judge_device("a", Measured(), enough, gates).verdict == "inconclusive"
    assert judge([]).verdict == "inconclusive"


def test_waves_hold_every_profile_early() -> None:
    spec = SPEC.model_copy(update={"waves": (2, "rest")})
    waves = plan_waves(spec, [("a", "pi"), ("b", "pi"), ("c", "phone"), ("d", "phone")])
    assert waves == (("a", "c"), ("b", "d"))


@given(st.text(max_size=80))
def test_any_text_is_a_specification_or_one_line(text: str) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "spec.yaml"
        path.write_text(text, encoding="utf-8")
        with pytest.raises(ConfigError) as caught:
            load_spec(path)
        assert "\n" not in str(caught.value)


def test_unknown_key_of_a_specification_is_named(tmp_path: Path) -> None:
    path = tmp_path / "spec.yaml"
    path.write_text("name: n\nfleet: f\nrelease: a:1\nregistry: r\nwaves: [rest]\nspeed: 3\n")
    with pytest.raises(ConfigError, match=r"speed: no such key"):
        load_spec(path)


def test_schema_file_of_the_specification_is_up_to_date() -> None:
    import edgewright_fleet

    folder = Path(str(edgewright_fleet.__file__)).parent / "schema"
    assert (folder / "rollout.schema.json").read_text(encoding="utf-8") == schema_text(RolloutSpec)


def test_store_keeps_state_and_log_and_lets_one_controller_act(tmp_path: Path) -> None:
    state, _ = run({"a": "good"}, ticks=0)
    with (
        closing(RolloutStore(tmp_path / "r.sqlite")) as store,
        closing(RolloutStore(tmp_path / "r.sqlite")) as other,
    ):
        store.create(SPEC, state)
        store.hold_lease("night", "one", now_s=5.0)
        store.save(state, [Decision("it began", {"wave": 1})], "one", 5.0)
        assert other.load("night") == (SPEC, state)
        assert [d.sentence for d in other.decisions("night")] == ["it began"]
        store.hold_lease("night", "one", now_s=100.0)
        with pytest.raises(RolloutError, match="another controller"):
            other.hold_lease("night", "two", now_s=101.0)
        other.hold_lease("night", "two", now_s=200.0)
        other.request("night", "abort", 1.0, by="me")
        assert store.requests("night")
        with pytest.raises(RolloutError, match="no rollout 'day'; there are: night"):
            store.load("day")


def test_embedded_broker_listens_on_loopback_alone() -> None:
    port = free_port()
    with embedded_broker(port) as settings_:
        listening = [line.split()[1] for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
        ours = {a.split(":")[0] for a in listening if int(a.split(":")[1], 16) == port}
        assert ours == {"0100007F"}
        with closing(MqttTarget(settings_, "f")) as target:
            assert list(target.events(0.1)) == []
        with pytest.raises(BrokerError, match="the port is taken"), embedded_broker(port):
            pass


def test_broker_that_is_down_is_one_line() -> None:
    with pytest.raises(BrokerError, match="cannot be reached") as caught:
        MqttTarget(BrokerSettings(port=free_port()), "f")
    assert "\n" not in str(caught.value)


def test_target_sees_each_report_and_window_once(mosquitto: BrokerSettings) -> None:
    from edgewright.mqtt import connect, make_client
    from edgewright.twin import topic

    device = make_client(mosquitto, "d")
    connect(device, mosquitto)
    report = SimulatedFleet({"a": "good"}).report("a", "committed").report
    with closing(MqttTarget(mosquitto, "f")) as target:
        device.publish(topic("f", "a", "reported"), to_json(report), qos=1, retain=True)
        end = time.monotonic() + 10
        seen: list[object] = []
        while time.monotonic() < end and not seen:
            seen += list(target.events(0.2))
        assert seen == [DeviceReported(report)]
        # Not retained: sent once the retained report has shown that the subscription stands.
        while time.monotonic() < end and not target.refused:
            device.publish(topic("f", "a", "metrics"), b"\xff not telemetry", qos=1)
            assert list(target.events(0.2)) == []
        assert target.refused
    device.disconnect()
    device.loop_stop()


def test_release_without_an_artifact_for_a_device_is_refused_before_anything_is_sent(tmp_path: Path) -> None:
    from edgewright_fleet.devices import DeviceView
    from edgewright_fleet.rollout.controller import first_state

    registry = Layout.create(tmp_path / "registry")
    put_tiny(registry, "1.0.0")
    spec = SPEC.model_copy(update={"release": "tiny:1.0.0", "registry": registry.root})
    with pytest.raises(EdgewrightError, match="no artifact for a, a toaster"):
        first_state(spec, {"a": DeviceView("a", profile="toaster", online=True)}, 0.0)
    assert first_state(spec, {"a": DeviceView("a", profile=PROFILE, online=True)}, 0.0).waves == (("a",),)
