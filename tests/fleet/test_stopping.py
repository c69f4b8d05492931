"""What stops a rollout: the engine against fleets in memory in which some devices fail, or all are slower."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgewright.telemetry.histogram import ExponentialHistogram
from edgewright.telemetry.sketch import DataSketch
from edgewright_fleet.rollout.limits import Gates
from edgewright_fleet.rollout.measured import Comparison, Measured, compare, log_ratios
from edgewright_fleet.rollout.state import ContinueRequested, DeviceEvent
from edgewright_fleet.rollout.stopping import MOST_COMPARED, failure_test_of, metric_alpha, tally
from fleet.fleet_in_memory import NEW, Device, World, window, world

LATENCY = {
    "max_p50_ratio": 9.0,
    "max_p99_ratio": 9.0,
    "min_inferences": 10,
    "window_s": 5.0,
    "timeout_s": 60.0,
}


@dataclass
class Flaky(Device):
    """A device whose download may break, and whose latency is a bucket of its own, 9 % wide."""

    breaks: bool = False
    new_bucket: int = 0
    drift_bucket: int = 0
    drifts_from: int = 10**9
    new_errors: int = 0
    drift_errors: int = 0
    now: int = 0

    def report(self, phase: str, reason: str | None = None):  # type: ignore[no-untyped-def]
        broke = self.breaks and phase == "committed" and self.wish is not None and self.wish.release == NEW
        if broke and self.running == NEW:
            self.running = self.before_it_broke
            return super().report("failed", "download: the connection was reset")
        return super().report(phase, reason)

    def step(self) -> list[DeviceEvent]:
        self.now += 1
        if self.running != NEW:
            self.before_it_broke = self.running
        said = [event for event in super().step() if not hasattr(event, "window")]
        if self.running is not None and not self.idle:
            bucket = self.new_bucket if self.running == NEW else 0
            bucket += self.drift_bucket if self.now >= self.drifts_from else 0
            errors = self.new_errors if self.running == NEW else 0
            errors += self.drift_errors if self.now >= self.drifts_from else 0
            measured = window(self.name, self.running, bucket, sequence=self.payloads, errors=errors)
            said.append(_arrived(measured))
            self.payloads += 1
        return said


def _arrived(measured):  # type: ignore[no-untyped-def]
    from edgewright_fleet.rollout.state import WindowArrived

    return WindowArrived(measured)


def fleet_of(count: int, failing: range = range(0), **behaviour: object) -> list[Device]:
    return [
        Flaky(f"d{index:03}", breaks=index in failing, install_s=1, **behaviour)  # type: ignore[arg-type]
        for index in range(count)
    ]


def rolled_out(devices: list[Device], *waves: int | str, **changes: object) -> World:
    w = world(*devices, waves=waves or ("rest",), max_unavailable=0.5, **changes)
    w.run(6000)
    return w


def test_release_that_fails_on_a_tenth_of_the_devices_is_stopped_within_the_wave() -> None:
    w = rolled_out(fleet_of(120, range(4, 120, 10)))
    assert w.state.phase == "failed"
    assert len(w.state.exposed) < 60
    stop = next(d for d in w.decisions if d.sentence.startswith("stopped in wave 1"))
    assert f"{stop.evidence['failed']} of {stop.evidence['devices']} devices failed" in stop.sentence
    assert stop.evidence["alpha"] == pytest.approx(0.0098)
    assert "connection was reset" in stop.sentence


def test_one_broken_download_in_a_hundred_does_not_stop_a_rollout() -> None:
    w = rolled_out(fleet_of(100, range(50, 51)), 1, "10%", "rest")
    assert w.state.phase == "succeeded"
    assert str(w.state.verdict).endswith("runs on 99 of 100 devices; refused by d050")


def test_first_device_whose_download_breaks_pauses_and_who_continues_sees_more_devices() -> None:
    w = rolled_out(fleet_of(10, range(1)), 1, "rest")
    assert (w.state.phase, len(w.state.exposed)) == ("paused", 1)
    assert "too few to tell a bad release from bad devices" in str(w.state.verdict)
    w.tell(ContinueRequested())
    w.run(6000)
    assert w.state.phase == "succeeded"
    assert "refused by d000" in str(w.state.verdict)


def test_release_that_no_download_of_succeeds_reaches_two_devices() -> None:
    w = rolled_out(fleet_of(50, range(50)))
    assert (w.state.phase, len(w.state.exposed)) == ("failed", 2)


def test_release_that_is_a_little_slower_everywhere_is_stopped_by_the_median_device() -> None:
    # Two buckets of 9 %: 1.19 times, far below the limit of any one device.
    w = rolled_out(fleet_of(80, new_bucket=2), 1, "rest", gates=LATENCY)
    assert w.state.phase == "failed"
    stop = next(d for d in w.decisions if d.sentence.startswith("stopped in wave 2"))
    assert stop.evidence["metric"] == "p50"
    assert stop.evidence["median_ratio"] == pytest.approx(2**0.25)
    assert 18 <= stop.evidence["devices"] <= 30  # several answer at once
    assert stop.evidence["controls"] >= 18
    assert len(w.state.exposed) < 50


def test_whole_fleet_that_becomes_slower_meanwhile_is_not_blamed_on_the_release() -> None:
    devices = fleet_of(80, drift_bucket=3, drifts_from=8)
    w = rolled_out(devices, 1, "50%", "rest", gates=LATENCY | {"max_typical_p99_ratio": 1.1})
    compared = w.state.comparisons.values()
    first_wave_and_second = [each for each in compared if each.control is not None]
    assert w.state.phase == "succeeded"
    assert len(first_wave_and_second) >= 18
    controls = [each.control for each in first_wave_and_second]
    assert len(set(controls)) == len(controls)
    assert not set(controls) & set(w.state.comparisons)


def test_errors_of_the_whole_fleet_are_not_blamed_on_the_release_and_its_own_are() -> None:
    disturbed = rolled_out(fleet_of(40, drift_errors=1, drifts_from=8), 1, "50%", "rest")
    assert disturbed.state.phase == "succeeded", disturbed.state.verdict
    own = rolled_out(fleet_of(40, new_errors=1), 1, "50%", "rest")
    assert (own.state.phase, len(own.state.exposed)) == ("failed", 1)
    assert "inferences failed" in str(own.state.verdict)


@settings(max_examples=15, deadline=None)
@given(st.sets(st.integers(0, 29), max_size=12), st.integers(0, 1000))
def test_rollout_is_stopped_exactly_when_its_failures_reach_the_limit(failing: set[int], seed: int) -> None:
    devices = [Flaky(f"d{i:03}", breaks=i in failing, install_s=i % 3) for i in range(30)]
    w = world(*devices, waves=("rest",), max_unavailable=0.5, seed=seed)
    test = failure_test_of(w.spec.gates, 30)
    while w.state.phase not in ("succeeded", "failed", "paused") and w.now < 3000:
        before = w.state
        w.second()
        if w.state.phase in ("updating", "observing"):
            found = tally(w.state)
            assert len(found.failed) < test.limit(found.asked)
        if w.state.phase == "reverting" and before.phase != "reverting":
            stop = next(d for d in reversed(w.decisions) if d.sentence.startswith("stopped"))
            assert stop.evidence["failed"] >= test.limit(int(stop.evidence["devices"]))
    assert w.state.phase in ("succeeded", "failed", "paused")


def test_few_devices_are_without_a_verdict_while_little_is_known_unless_the_specification_says_so() -> None:
    paced = world(*fleet_of(20), waves=("rest",), max_unavailable=0.5)
    free = world(*fleet_of(20), waves=("rest",), max_unavailable=0.5, paced_by_evidence=False)
    for w in (paced, free):
        while not w.state.exposed:
            w.second()
    assert (len(paced.state.exposed), len(free.state.exposed)) == (1, 10)


def test_offline_device_counts_neither_as_failed_nor_as_asked() -> None:
    lost = Flaky("d000", install_s=10)
    w = world(lost, *fleet_of(12)[1:], waves=("rest",), max_unavailable=0.5)
    while not lost.mid_update:
        w.second()
    assert tally(w.state).asked == 1
    lost.offline_from = w.now + 1
    w.second()
    assert tally(w.state).asked == 0


# Measured and compared


def measured(p50_bucket: int, **fields: object) -> Measured:
    histogram = ExponentialHistogram(scale=3, buckets={p50_bucket: 100})
    return Measured(latency=histogram, **fields)  # type: ignore[arg-type]


def test_drift_of_the_control_is_taken_off() -> None:
    made = compare(measured(0), measured(8), ("c", measured(0), measured(4)))
    assert made.effect("p50") == pytest.approx(math.log(2) / 2)
    assert made.effect("energy") is None
    assert compare(measured(0), measured(8)).effect("p50") == pytest.approx(math.log(2))


@given(st.floats(allow_nan=False), st.floats(allow_nan=False), st.integers(0, 5), st.integers(0, 5))
def test_ratios_are_numbers_whatever_was_measured(a: float, b: float, n: int, m: int) -> None:
    ratios = log_ratios(
        measured(0, energy_j=a, energy_inferences=n), measured(900, energy_j=b, energy_inferences=m)
    )
    assert all(math.isfinite(value) for value in ratios.values())
    assert Comparison.model_validate_json(Comparison(own=ratios).model_dump_json()).own == ratios


def test_parts_of_alpha_add_up() -> None:
    gates = Gates(alpha=0.04)
    assert failure_test_of(gates, 10).alpha + 3 * metric_alpha(gates) == pytest.approx(0.04)
    assert MOST_COMPARED >= 18


def test_sketches_of_another_shape_begin_anew() -> None:
    first = Measured(sketch=DataSketch(samples=2, classes=(1, 1)))
    newer = DataSketch(samples=3, classes=(1, 1, 1))
    assert first.plus(window("d", NEW, 0)._replace(sketch=newer)).sketch == newer
    assert first.plus(window("d", NEW, 0)).sketch == first.sketch
