from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgewright_converters.prediction import Work, latency_of, predicted_latencies, seconds_of
from edgewright_profiles import load_profile
from edgewright_profiles.cost import OperatorWork

PI, ORIN = load_profile("raspberry-pi-5"), load_profile("jetson-orin-nano-tensorrt")
INT8 = (
    OperatorWork("stem", "conv", 50_000_000, 20_000, 400_000),
    OperatorWork("act", "elementwise", 0, 0, 9_000),
)
FLOAT = tuple(OperatorWork(w.name, w.kind, w.macs, 4 * w.weight_bytes, 4 * w.activation_bytes) for w in INT8)


@pytest.mark.parametrize(("profile", "model_format"), [(PI, "onnx"), (PI, "tflite"), (ORIN, "onnx")])
@given(share=st.floats(0, 1))
def test_int8_that_is_left_in_float_is_predicted_in_float(profile, model_format, share) -> None:  # type: ignore[no-untyped-def]
    whole, mixed, none = (latency_of(INT8, profile, model_format, "int8", s) for s in (1.0, share, 0.0))
    assert whole.seconds <= mixed.seconds * (1 + 1e-9) <= none.seconds * (1 + 2e-9)
    assert mixed.low_seconds <= mixed.seconds <= mixed.high_seconds
    if profile is PI:
        assert none == latency_of(FLOAT, profile, model_format, "float32")
    else:  # TensorRT computes it in float16
        assert none.seconds < latency_of(FLOAT, profile, model_format, "float32").seconds


def test_figures_of_an_artifact_are_those_of_its_share_and_float_is_float() -> None:
    float32, int8 = predicted_latencies(PI, "onnx", Work(INT8, FLOAT), 0.5)
    assert (float32.precision, int8.precision) == ("float32", "int8") and int8.p50_s < float32.p50_s
    assert int8.p50_s > predicted_latencies(PI, "onnx", Work(INT8, FLOAT))[1].p50_s
    assert predicted_latencies(PI, "onnx", None) == ()


def test_one_operator_takes_longer_in_float() -> None:
    assert seconds_of(INT8[0], PI, "onnx", integer=True) < seconds_of(INT8[0], PI, "onnx", integer=False)
