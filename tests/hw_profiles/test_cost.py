"""The roofline: its properties on every built-in profile, and one published latency that it must contain."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgewright_profiles import HardwareProfile, ProfileError
from edgewright_profiles.catalog import load_profile, profile_names
from edgewright_profiles.cost import OperatorWork, PredictedLatency, predict_latency
from edgewright_profiles.profile import Precision

PROFILES = st.sampled_from([load_profile(name) for name in profile_names()])
KINDS = st.sampled_from(["conv", "depthwise_conv", "matmul", "elementwise"])
AMOUNT = st.integers(0, 10**12)
OPERATORS = st.builds(
    OperatorWork,
    name=st.just("op"),
    kind=KINDS,
    macs=AMOUNT,
    weight_bytes=AMOUNT,
    activation_bytes=AMOUNT,
)
WORK = st.lists(OPERATORS, min_size=1, max_size=5)
PRECISIONS: st.SearchStrategy[Precision] = st.sampled_from(["int8", "float16", "float32"])
THREADS = st.none() | st.integers(1, 16)


def no_slower(one: PredictedLatency, other: PredictedLatency) -> bool:
    return (
        one.low_seconds <= other.low_seconds
        and one.seconds <= other.seconds
        and one.high_seconds <= other.high_seconds
    )


@given(PROFILES, WORK, PRECISIONS, THREADS)
def test_estimates_are_in_order_and_the_share_is_a_share(
    profile: HardwareProfile, work: list[OperatorWork], precision: Precision, threads: int | None
) -> None:
    predicted = predict_latency(profile, work, precision, threads)
    assert 0 <= predicted.low_seconds <= predicted.seconds <= predicted.high_seconds
    assert 0 <= predicted.memory_bound_share <= 1


@given(PROFILES, WORK, PRECISIONS, AMOUNT, st.sampled_from(["macs", "weight_bytes", "activation_bytes"]))
def test_more_work_is_never_predicted_faster(
    profile: HardwareProfile, work: list[OperatorWork], precision: Precision, extra: int, what: str
) -> None:
    more = [replace(work[0], **{what: getattr(work[0], what) + extra}), *work[1:]]
    assert no_slower(predict_latency(profile, work, precision), predict_latency(profile, more, precision))


@given(PROFILES, WORK, PRECISIONS, st.floats(1, 100))
def test_more_bandwidth_is_never_predicted_slower(
    profile: HardwareProfile, work: list[OperatorWork], precision: Precision, factor: float
) -> None:
    bandwidth = profile.memory.bandwidth_bytes_per_s * factor
    memory = profile.memory.model_copy(update={"bandwidth_bytes_per_s": bandwidth})
    wider = profile.model_copy(update={"memory": memory})
    assert no_slower(predict_latency(wider, work, precision), predict_latency(profile, work, precision))


@given(PROFILES, WORK, PRECISIONS, st.integers(1, 15))
def test_another_thread_is_never_predicted_slower(
    profile: HardwareProfile, work: list[OperatorWork], precision: Precision, threads: int
) -> None:
    assert no_slower(
        predict_latency(profile, work, precision, threads + 1),
        predict_latency(profile, work, precision, threads),
    )


@given(PROFILES, WORK, THREADS)
def test_int8_is_never_predicted_slower_than_float32_where_its_peak_is_higher(
    profile: HardwareProfile, work: list[OperatorWork], threads: int | None
) -> None:
    assert profile.peak_macs_per_s("int8", 1) > profile.peak_macs_per_s("float32", 1)
    assert no_slower(
        predict_latency(profile, work, "int8", threads), predict_latency(profile, work, "float32", threads)
    )


def test_threads_default_to_those_of_the_preferred_runtime() -> None:
    profile = load_profile("jetson-orin-nano")
    work = [OperatorWork("conv", "conv", 10**9, 10**6, 10**6)]
    assert predict_latency(profile, work, "int8") == predict_latency(profile, work, "int8", threads=6)


def test_depthwise_convolution_is_predicted_slower_than_a_dense_one_of_the_same_work() -> None:
    profile = load_profile("raspberry-pi-5")
    dense = OperatorWork("conv", "conv", 10**9, 10**6, 10**6)
    depthwise = replace(dense, kind="depthwise_conv")
    one, other = (predict_latency(profile, [work], "int8") for work in (dense, depthwise))
    assert other.seconds > 2 * one.seconds
    assert other.low_seconds == one.low_seconds


def test_operator_that_moves_much_and_computes_nothing_is_memory_bound() -> None:
    work = [OperatorWork("add", "elementwise", 0, 0, 10**9)]
    assert predict_latency(load_profile("raspberry-pi-4"), work, "int8").memory_bound_share > 0.99


def test_fewer_threads_than_one_are_refused() -> None:
    with pytest.raises(ProfileError, match="0 threads run nothing; give at least 1"):
        predict_latency(load_profile("raspberry-pi-5"), [], "int8", threads=0)


def test_prediction_says_that_it_is_one() -> None:
    predicted = PredictedLatency(0.0031, 0.0012, 0.009, 0.5)
    assert str(predicted) == "predicted 3.1 ms (1.2–9.0 ms, uncalibrated roofline)"
    assert (predicted.how, predicted.method) == ("predicted", "roofline, uncalibrated")
    slow = PredictedLatency(0.1234, 0.00004, 1.5, 0.5)
    assert str(slow) == "predicted 123 ms (0.040–1500 ms, uncalibrated roofline)"


def mobilenet_v1(bytes_per_element: int) -> Iterator[OperatorWork]:
    """MobileNet v1 1.0 at 224 × 224 (Howard et al. 2017, table 1)."""

    def operator(name: str, kind: str, size: int, taps: int, channels: int, before: int) -> OperatorWork:
        return OperatorWork(
            name=name,
            kind=kind,  # type: ignore[arg-type]
            macs=size * size * channels * taps,
            weight_bytes=channels * taps * bytes_per_element,
            activation_bytes=(before + size * size * channels) * bytes_per_element,
        )

    size, channels = 112, 32
    yield operator("first", "conv", size, 27, channels, 224 * 224 * 3)
    strides = (1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1)
    widths = (64, 128, 128, 256, 256, 512, 512, 512, 512, 512, 512, 1024, 1024)
    for index, (stride, width) in enumerate(zip(strides, widths, strict=True)):
        before = size * size * channels
        size //= stride
        yield operator(f"depthwise {index}", "depthwise_conv", size, 9, channels, before)
        yield operator(f"pointwise {index}", "conv", size, channels, width, size * size * channels)
        channels = width
    yield operator("classes", "matmul", 1, channels, 1000, channels)


def test_latency_published_for_a_raspberry_pi_4_lies_in_the_predicted_interval() -> None:
    work = list(mobilenet_v1(bytes_per_element=4))
    assert sum(operator.macs for operator in work) == pytest.approx(569e6, rel=0.01)
    profile = load_profile("raspberry-pi-4")
    # XNNPACK, README of February 2020: 75 ms with four threads, on a board that still ran at 1.5 GHz.
    cores = (profile.cores[0].model_copy(update={"max_clock_hz": 1.5e9}),)
    predicted = predict_latency(profile.model_copy(update={"cores": cores}), work, "float32", threads=4)
    assert predicted.low_seconds < 0.075 < predicted.high_seconds
    # What the docstring of `ACHIEVED` says.
    assert predicted.seconds == pytest.approx(0.065, abs=0.0005)


def test_prediction_on_an_accelerator_goes_by_its_own_peak_and_not_by_the_cores() -> None:
    profile = load_profile("jetson-orin-nano-tensorrt")
    gpu = profile.accelerator_for("onnx")
    assert gpu is not None
    work = [OperatorWork("conv", "conv", 10**9, 1, 1)]
    there = predict_latency(profile, work, "int8", 1, gpu)
    assert there.low_seconds == pytest.approx(10**9 / 10e12)
    assert there.seconds < predict_latency(profile, work, "int8", 6).seconds
    half, single = (predict_latency(profile, work, p, 1, gpu).seconds for p in ("float16", "float32"))
    assert there.seconds < half < single


def test_accelerator_of_unknown_peak_predicts_nothing() -> None:
    coral = load_profile("coral-dev-board")
    with pytest.raises(ProfileError, match="the float32 peak of Edge TPU is not known"):
        predict_latency(coral, [OperatorWork("conv", "conv", 1, 1, 1)], "float32", 1, coral.accelerators[0])
