from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgewright_converters.prediction import latency_of, predicted_latencies, seconds_of
from edgewright_profiles import load_profile
from edgewright_profiles.cost import OperatorWork

PI, ORIN = load_profile("raspberry-pi-5"), load_profile("jetson-orin-nano-tensorrt")
INT8 = (
    OperatorWork("stem", "conv", 50_000_000, 20_000, 400_000),
    OperatorWork("act", "elementwise", 0, 0, 9_000),
)


@pytest.mark.parametrize(("profile", "model_format"), [(PI, "onnx"), (PI, "tflite"), (ORIN, "onnx")])
@given(share=st.floats(0, 1))
def test_int8_that_is_left_in_float_is_predicted_in_float(profile, model_format, share) -> None:  # type: ignore[no-untyped-def]
    whole, mixed, none = (latency_of(INT8, profile, model_format, "int8", s) for s in (1.0, share, 0.0))
    assert whole.seconds <= mixed.seconds * (1 + 1e-9) <= none.seconds * (1 + 2e-9)
    assert mixed.low_seconds <= mixed.seconds <= mixed.high_seconds
    if profile is PI:
        assert none == latency_of(INT8, profile, model_format, "float32")
    else:  # TensorRT computes it in float16
        assert none.seconds < latency_of(INT8, profile, model_format, "float32").seconds


def test_figures_of_an_artifact_are_those_of_its_share_and_float_is_float() -> None:
    float32, int8 = predicted_latencies(PI, "onnx", "int8", INT8, 0.5)
    assert (float32.precision, int8.precision) == ("float32", "int8") and int8.p50_s < float32.p50_s
    assert int8.p50_s > predicted_latencies(PI, "onnx", "int8", INT8)[1].p50_s
    assert predicted_latencies(PI, "onnx", "int8", None) == ()
    assert predicted_latencies(PI, "onnx", "float32", INT8) == (float32,)


def test_small_weights_alone_are_predicted_to_compute_in_float() -> None:
    int8 = latency_of(INT8, PI, "tflite", "int8").seconds
    for precision in ("float16", "int8-weights", "int4-weights"):
        assert latency_of(INT8, PI, "tflite", precision).seconds > 2 * int8
    assert int8 <= latency_of(INT8, PI, "onnx", "int8-dynamic").seconds < 2 * int8
    half = latency_of(INT8, PI, "onnx", "float16").seconds
    assert int8 < half <= latency_of(INT8, PI, "onnx", "float32").seconds


def test_one_operator_takes_longer_in_float() -> None:
    assert seconds_of(INT8[0], PI, "onnx", integer=True) < seconds_of(INT8[0], PI, "onnx", integer=False)
