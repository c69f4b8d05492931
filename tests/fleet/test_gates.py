"""Gates fail closed, and never pass on what is not there."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from edgewright.telemetry.histogram import ExponentialHistogram
from edgewright.telemetry.reading import Reading, reading_of
from edgewright.telemetry.sketch import DataSketch
from edgewright.telemetry.window import TelemetryWindow
from edgewright_fleet.rollout.gates import GateResult, judge, judge_device
from edgewright_fleet.rollout.limits import Gates
from edgewright_fleet.rollout.measured import KEPT_BOOTS, Measured

GATES = Gates(min_inferences=50, max_error_share=0.02)
histograms = st.builds(
    ExponentialHistogram,
    scale=st.integers(-2, 8),
    zero_count=st.integers(0, 3),
    buckets=st.dictionaries(st.integers(-200, 200), st.integers(0, 200), max_size=6),
    total=st.just(1.0),
)
measurements = st.builds(Measured, latency=histograms, errors=st.integers(0, 20))


MEASURED = TypeAdapter(Measured)


def measured(count: int, index: int = 0, errors: int = 0) -> Measured:
    return Measured(latency=ExponentialHistogram(scale=3, buckets={index: count}), errors=errors)


@given(st.one_of(st.none(), measurements), measurements)
def test_passing_means_enough_was_measured_and_every_limit_was_kept(
    before: Measured | None, after: Measured
) -> None:
    result = judge_device("d", before, after, GATES)
    if result.verdict == "pass":
        assert after.latency.count >= GATES.min_inferences
        if before is None or not before.errors:
            assert after.errors <= GATES.max_error_share * after.inferences
        if before is not None:
            assert before.latency.count >= GATES.min_inferences
            assert after.latency.quantile(0.5) <= GATES.max_p50_ratio * before.latency.quantile(0.5)
            assert after.latency.quantile(0.99) <= GATES.max_p99_ratio * before.latency.quantile(0.99)
    assert result.sentence.startswith("d: ")
    assert result.evidence["inferences"] == after.inferences


def window(sequence: int, latency: ExponentialHistogram, boot: str = "b", **fields: object) -> Reading:
    made = TelemetryWindow.model_validate(
        {
            "fleet": "f",
            "device": "d",
            "profile": "p",
            "boot": boot,
            "sequence": sequence,
            "start_ns": 0,
            "end_ns": 1,
            "model": "net",
            "version": "1",
            "release": "sha256:" + "0" * 64,
            "latency": latency,
            "errors": 0,
            **fields,
        }
    )
    return reading_of(made)


def gathered(windows: list[Reading]) -> Measured:
    whole = Measured()
    for one in windows:
        whole = whole.plus(one)
    return whole


@given(st.lists(st.tuples(histograms, st.integers(0, 20)), min_size=1, max_size=8), st.data())
def test_windows_count_once_each_however_often_and_in_whatever_order_they_come(
    parts: list[tuple[ExponentialHistogram, int]], data: st.DataObject
) -> None:
    windows = [window(i, latency, errors=errors) for i, (latency, errors) in enumerate(parts)]
    repeats = data.draw(st.lists(st.sampled_from(windows), max_size=8))
    arrived = gathered(data.draw(st.permutations([*windows, *repeats])))
    assert arrived.inferences == sum(latency.count + errors for latency, errors in parts)
    assert arrived.latency.buckets == gathered(windows).latency.buckets
    assert arrived.seen == (("b", ((0, len(parts) - 1),)),)
    assert (
        MEASURED.validate_json(MEASURED.dump_json(arrived)).plus(windows[0]).inferences == arrived.inferences
    )


def test_a_windows_repeat_changes_nothing_at_all() -> None:
    once = Measured().plus(window(3, ExponentialHistogram(scale=3, buckets={1: 5})))
    assert once.plus(window(3, ExponentialHistogram(scale=3, buckets={1: 5}))) is once


def test_what_is_remembered_of_boots_stays_small() -> None:
    one = ExponentialHistogram(scale=3, buckets={1: 1})
    whole = gathered([window(0, one, boot=f"b{i}") for i in range(3 * KEPT_BOOTS)])
    assert whole.inferences == 3 * KEPT_BOOTS
    assert [boot for boot, _ in whole.seen] == [f"b{i}" for i in range(2 * KEPT_BOOTS, 3 * KEPT_BOOTS)]


def test_inferences_while_throttled_count_against_errors_and_not_for_latency() -> None:
    hot = ExponentialHistogram(scale=3, buckets={40: 1000})
    whole = measured(100).plus(window(0, ExponentialHistogram(scale=3), throttled=hot, errors=5))
    assert (whole.inferences, whole.latency.count) == (1105, 100)
    assert judge_device("d", measured(100), whole, GATES).verdict == "pass"


@given(histograms)
def test_device_against_itself_is_never_slower(histogram: ExponentialHistogram) -> None:
    both = Measured(latency=histogram)
    assert judge_device("d", both, both, GATES).verdict in ("pass", "inconclusive")


def test_missing_data_is_inconclusive_before_and_after() -> None:
    assert judge_device("d", measured(100), Measured(), GATES).verdict == "inconclusive"
    assert judge_device("d", measured(100), measured(49), GATES).verdict == "inconclusive"
    assert judge_device("d", Measured(), measured(100), GATES).verdict == "inconclusive"
    assert judge([]).verdict == "inconclusive"


def test_device_whose_every_inference_fails_is_stopped_before_there_are_enough() -> None:
    result = judge_device("d", measured(100), Measured(errors=2), GATES)
    assert result.verdict == "fail"
    assert "2 of 2 inferences failed (100.0%), at most 2.0% may" in result.sentence
    assert judge_device("d", measured(100), Measured(errors=1), GATES).verdict == "inconclusive"


def test_too_many_errors_fail_even_where_nothing_ran_before() -> None:
    assert judge_device("d", None, measured(97, errors=3), GATES).verdict == "fail"
    assert judge_device("d", None, measured(99, errors=1), GATES).verdict == "pass"


def test_device_that_failed_as_often_before_is_not_made_so_by_the_release() -> None:
    before = measured(950, errors=50)
    assert judge_device("d", before, measured(950, errors=50), GATES).verdict == "pass"
    assert judge_device("d", before, measured(188, errors=12), GATES).verdict == "pass"  # 6 %, by chance
    worse = judge_device("d", before, measured(850, errors=150), GATES)
    assert (worse.verdict, worse.sentence) == (
        "fail",
        "d: 150 of 1000 inferences failed (15.0%), at most 2.0% may beyond its 5.0% before",
    )
    assert judge_device("d", measured(1000), measured(950, errors=50), GATES).verdict == "fail"


def test_errors_that_devices_on_the_old_release_have_meanwhile_are_not_the_releases() -> None:
    after = measured(900, errors=100)
    assert judge_device("d", measured(1000), after, GATES, lambda: (0, 5000)).verdict == "fail"
    assert judge_device("d", measured(1000), after, GATES, lambda: (0, 0)).verdict == "fail"
    assert judge_device("d", measured(1000), after, GATES, lambda: (500, 5000)).verdict == "pass"


@settings(max_examples=30)
@given(st.floats(0.01, 0.3), st.integers(500, 3000), st.integers(500, 3000), st.integers(0, 2**32 - 1))
def test_errors_that_a_device_always_has_are_blamed_on_a_release_in_few_cases(
    share: float, before: int, after: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    failed = 0
    for errors, now in zip(rng.binomial(before, share, 200), rng.binomial(after, share, 200), strict=True):
        had, has = (measured(n - int(e), errors=int(e)) for n, e in ((before, errors), (after, now)))
        failed += judge_device("d", had, has, GATES).verdict == "fail"
    assert failed <= 4


def test_slower_median_fails_with_both_figures() -> None:
    result = judge_device("d", measured(100), measured(100, index=8), GATES)
    assert result.verdict == "fail"
    assert result.evidence["p50_after_s"] == 2 * float(result.evidence["p50_before_s"])
    assert "2.0 times" in result.sentence


def test_device_whose_clock_measured_zero_before_cannot_be_compared_and_fails() -> None:
    zero = Measured(latency=ExponentialHistogram(scale=3, zero_count=100))
    result = judge_device("d", zero, measured(100), GATES)
    assert (result.verdict, "not comparable" in result.sentence) == ("fail", True)


def test_slow_tail_alone_fails() -> None:
    tail = Measured(latency=ExponentialHistogram(scale=3, buckets={0: 95, 30: 5}))
    assert judge_device("d", measured(100), tail, GATES).sentence.startswith("d: p99 latency")


@given(st.lists(st.sampled_from(["pass", "fail", "inconclusive"])))
def test_one_failure_fails_all_and_nothing_passes_unless_all_do(verdicts: list[str]) -> None:
    together = judge([GateResult(v, "s", {}) for v in verdicts]).verdict  # type: ignore[arg-type]
    if "fail" in verdicts:
        assert together == "fail"
    elif "inconclusive" in verdicts or not verdicts:
        assert together == "inconclusive"
    else:
        assert together == "pass"


@given(st.floats(0.001, 1), st.floats(1.0, 10.0))
def test_gate_fails_exactly_when_the_median_is_past_its_limit(before_s: float, ratio: float) -> None:
    gates = Gates(min_inferences=20, max_p50_ratio=2.0, max_p99_ratio=100.0)

    def at(seconds: float) -> Measured:
        bucket = math.floor(math.log2(seconds) * 32)
        return Measured(latency=ExponentialHistogram(scale=5, buckets={bucket: 25}))

    result = judge_device("a", at(before_s), at(before_s * ratio), gates)
    if not 1.9 < ratio < 2.1:  # a bucket of scale 5 is 2 % wide
        assert result.verdict == ("pass" if ratio < 2 else "fail")


def with_figures(**figures: object) -> Measured:
    return Measured(latency=ExponentialHistogram(scale=3, buckets={0: 100}), **figures)  # type: ignore[arg-type]


def test_energy_of_an_inference_is_compared_with_the_same_device_s_own() -> None:
    before = with_figures(energy_j=1.0, energy_inferences=100)
    thrice = with_figures(energy_j=6.0, energy_inferences=200)
    result = judge_device("d", before, thrice, GATES)
    assert result.verdict == "fail"
    assert "energy an inference 30 mJ, 3.0 times the 10 mJ before; at most 2 times" in result.sentence
    assert (
        judge_device("d", before, with_figures(energy_j=3.0, energy_inferences=200), GATES).verdict == "pass"
    )
    # Nought or less above idle is within the sensor's error, so that nothing can be said.
    nought = with_figures(energy_j=-0.1, energy_inferences=100)
    assert judge_device("d", nought, thrice, GATES).verdict == "pass"


def test_device_that_becomes_too_hot_fails_at_once_and_one_that_was_as_hot_before_does_not() -> None:
    hot = Measured(temperature_c=91.0)
    assert judge_device("d", with_figures(temperature_c=60.0), hot, GATES).verdict == "fail"
    assert judge_device("d", None, hot, GATES).sentence == "d: 91 °C, at most 85 °C is allowed"
    assert judge_device("d", with_figures(temperature_c=90.0), hot, GATES).verdict == "inconclusive"


def test_answers_that_are_others_than_before_fail() -> None:
    before = with_figures(sketch=DataSketch(samples=200, classes=(100, 100)))
    same = with_figures(sketch=DataSketch(samples=100, classes=(52, 48)))
    one_class = with_figures(sketch=DataSketch(samples=100, classes=(100, 0)))
    too_few = with_figures(sketch=DataSketch(samples=10, classes=(10, 0)))
    assert judge_device("d", before, same, GATES).verdict == "pass"
    assert judge_device("d", before, one_class, GATES).verdict == "fail"
    assert judge_device("d", before, too_few, GATES).verdict == "pass"


def test_figure_that_the_specification_requires_is_waited_for() -> None:
    strict = GATES.model_copy(update={"required": ("energy", "temperature", "drift")})
    result = judge_device("d", measured(100), measured(100), strict)
    assert result.verdict == "inconclusive"
    assert result.sentence == "d: no energy and no temperature and no drift measured"
    full = with_figures(
        energy_j=1.0,
        energy_inferences=100,
        temperature_c=50.0,
        sketch=DataSketch(samples=100, classes=(50, 50)),
    )
    assert judge_device("d", full, full, strict).verdict == "pass"
