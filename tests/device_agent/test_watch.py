from __future__ import annotations

import random
import statistics
import subprocess
import sys
import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgewright_agent.tally import REMEMBERED, Tally
from edgewright_agent.watch import (
    FALSE_ALARM,
    HEAT_SAMPLES,
    HeatReading,
    hang_reason,
    heat_reason,
    latency_reason,
    median_bounds,
)

latencies = st.lists(st.floats(1e-6, 10.0), max_size=60)


def slowed(before: list[float], now: list[float], **changes: float | None) -> str | None:
    settings = {"max_slowdown": 2.0, "budget_s": None, **changes}
    return latency_reason(before, now, **settings)  # type: ignore[arg-type]


def test_three_times_the_latency_is_a_reason_and_says_from_what_to_what() -> None:
    reason = slowed([0.010] * 50, [0.030] * 20)
    assert reason == "latency rose from 10 ms (median of 50) to 30 ms (median of 20), more than 2 times"


def test_a_few_slow_inferences_or_a_few_inferences_at_all_are_no_reason() -> None:
    assert slowed([0.010] * 50, [0.010] * 40 + [5.0] * 15) is None
    assert slowed([0.010] * 50, [0.030] * 10) is None
    assert slowed([0.010] * 10, [0.030] * 50) is None


def test_a_tiny_model_may_become_slower_by_less_than_a_millisecond() -> None:
    assert slowed([0.0001] * 50, [0.0009] * 50) is None
    assert slowed([0.0001] * 50, [0.0012] * 50) is not None


def test_without_a_release_before_the_budget_is_the_limit() -> None:
    assert slowed([], [0.2] * 20) is None
    reason = slowed([], [0.2] * 20, budget_s=0.1)
    assert reason == "half of the inferences took more than the budget of 100 ms: 200 ms (median of 20)"


def test_the_check_can_be_turned_off() -> None:
    assert slowed([0.010] * 50, [5.0] * 50, max_slowdown=0.0, budget_s=0.1) is None


@given(latencies)
def test_the_bounds_enclose_the_median_and_need_eleven_samples(samples: list[float]) -> None:
    bounds = median_bounds(samples)
    assert (bounds is None) is (len(samples) < 11)
    if bounds is not None:
        assert bounds[0] <= statistics.median(samples) <= bounds[1]


def test_false_alarms_are_as_rare_as_stated() -> None:
    """20,000 updates to a release exactly at the limit, with a heavy tail: the worst case of the rule."""
    chance = random.Random(0)

    def measured(scale: float) -> list[float]:
        return [scale * chance.lognormvariate(0.0, 1.0) for _ in range(15)]

    alarms = sum(slowed(measured(0.01), measured(0.02)) is not None for _ in range(20_000))
    assert alarms <= FALSE_ALARM * 20_000


def test_a_clear_regression_is_found_nearly_always() -> None:
    chance = random.Random(0)

    def measured(scale: float) -> list[float]:
        return [scale * chance.lognormvariate(0.0, 0.2) for _ in range(30)]

    assert sum(slowed(measured(0.01), measured(0.04)) is not None for _ in range(200)) >= 198


def test_heat_is_a_reason_when_all_of_the_newest_readings_agree() -> None:
    cool, hot = HeatReading(50.0, False), HeatReading(75.0, False)
    throttled = HeatReading(50.0, True)
    assert heat_reason(cool, [throttled] * HEAT_SAMPLES, 20) == (
        "the device throttles since the release is served"
    )
    assert heat_reason(cool, [hot] * HEAT_SAMPLES, 20) == (
        "the device is 25 °C hotter than before the update, more than 20 °C"
    )
    assert heat_reason(cool, [*[hot] * (HEAT_SAMPLES - 1), cool], 20) is None
    assert heat_reason(cool, [hot] * (HEAT_SAMPLES - 1), 20) is None


def test_a_device_that_throttled_before_or_has_no_sensor_gives_no_reason() -> None:
    nothing = HeatReading()
    assert heat_reason(HeatReading(throttled=True), [HeatReading(throttled=True)] * 9, 20) is None
    assert heat_reason(nothing, [HeatReading(99.0, True)] * 9, 20) is None
    assert heat_reason(HeatReading(20.0, False), [nothing] * 9, 20) is None


def test_an_inference_that_does_not_end_is_seen_from_another_thread() -> None:
    tally, ended = Tally(), threading.Event()

    def infer() -> None:
        start = tally.begin()
        ended.wait(60)
        tally.succeed(start)

    thread = threading.Thread(target=infer)
    assert tally.longest_running_s() == 0
    thread.start()
    while tally.longest_running_s() <= 0.02:
        time.sleep(0.005)
    assert hang_reason(tally.longest_running_s(), 60.0) is None
    assert hang_reason(tally.longest_running_s(), 0.02) == (
        "an inference did not end within 0.02 s while watching"
    )
    ended.set()
    thread.join()
    assert tally.longest_running_s() == 0
    assert (tally.inferences, tally.errors, len(tally.latencies())) == (1, 0, 1)


def test_counting_from_several_threads_loses_nothing_and_keeps_a_bounded_memory() -> None:
    tally = Tally()

    def infer() -> None:
        for index in range(3000):
            start = tally.begin()
            if index % 3:
                tally.succeed(start)
            else:
                tally.fail()

    threads = [threading.Thread(target=infer) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (tally.inferences, tally.errors, len(tally.latencies())) == (12_000, 4_000, REMEMBERED)


WEDGED = """
import ctypes, sys, threading, time
from edgewright_agent.watch import exits_when_wedged
with exits_when_wedged(float(sys.argv[1])) as alive:
    if sys.argv[2] == "wedged":
        # PyDLL keeps the interpreter's lock: no Python thread runs any more.
        threading.Thread(target=lambda: ctypes.PyDLL(None).sleep(60)).start()
    end = time.monotonic() + 3.0
    while time.monotonic() < end:
        alive()
        time.sleep(0.01)
time.sleep(1.8)
"""


@pytest.mark.slow
@pytest.mark.parametrize(("what", "code"), [("wedged", 1), ("well", 0)])
def test_a_process_that_native_code_holds_for_ever_ends_and_one_that_lives_does_not(
    what: str, code: int
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", WEDGED, "1.5", what], capture_output=True, timeout=30, check=False
    )
    assert done.returncode == code
    assert (b"Timeout (0:00:01.5" in done.stderr) is (what == "wedged")
