"""Every precision beside static INT8, converted, executed and compared in the target's runtime."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from static_int8 import static_int8

from edgewright.artifact.manifest import Precision
from edgewright.errors import ConversionError
from edgewright.runtime.session import runtimes_for
from edgewright_converters.accuracy_gate import GateLimits
from edgewright_converters.alternatives import alternatives, composition
from edgewright_converters.calibration import SampleSet, load_samples
from edgewright_converters.export import ExportedGraph, export
from edgewright_converters.gate import gate
from edgewright_converters.operators import executed_operators, int8_mac_share
from edgewright_converters.optimise import optimise
from edgewright_converters.package import Packable, package
from edgewright_converters.quantise import QuantisedModel, quantise_as
from edgewright_converters.source import SourceModel, load_source
from edgewright_converters.source_check import check_takes
from edgewright_converters.verify import Compared, compare, verify
from edgewright_profiles import load_profile

NAMES = ("lstm", "gru", "encoder", "mlp")
FORMATS = ("onnx", "tflite")
SMALLER: dict[Precision, float] = {
    "float16": 0.8,
    "int8-dynamic": 0.7,
    "int8-weights": 0.7,
    "int4-weights": 0.7,
}
LEAST_DB: dict[Precision, float] = {
    "float16": 50.0,
    "int8-dynamic": 33.0,
    "int8-weights": 36.0,
    "int4-weights": 12.0,
}
"""Well under what was measured for the worst model: 65, 39, 41 and 16."""


def data(name: str) -> dict[str, Any]:
    random = np.random.default_rng(0)

    def normal(*shape: int) -> Any:
        return random.standard_normal(shape).astype(np.float32)

    if name in ("lstm", "gru"):
        states = {"state": 0.3 * normal(16, 1, 64), "cell": 0.3 * normal(16, 1, 64)}
        return {"frames": normal(16, 12, 16), **(states if name == "lstm" else {"state": states["state"]})}
    return {"ids": random.integers(0, 500, (16, 12))} if "encoder" in name else {"x": normal(16, 32)}


@functools.cache
def exported(name: str, model_format: Any) -> tuple[SourceModel, SampleSet, ExportedGraph]:
    model = load_source(f"toy_models:{name}")
    samples = load_samples(data(name), model.input_names, model.optional_names)
    model = model.taking(samples.input_names)
    examples = [sample.inputs for sample in samples.head(2)]
    return model, samples, optimise(export(model, examples, check_takes(model, examples[0]), model_format))


def compared(name: str, quantised: QuantisedModel) -> Compared:
    model, samples, _ = exported(name, quantised.format)
    return compare([quantised], samples, model.run, "calibration")[0]


def worst_db(name: str, quantised: QuantisedModel) -> float:
    return min(compared(name, quantised).accuracy.sqnr_db.values())


@pytest.mark.slow
@pytest.mark.parametrize("precision", SMALLER)
@pytest.mark.parametrize("model_format", FORMATS)
@pytest.mark.parametrize("name", NAMES)
def test_precision_runs_is_smaller_and_keeps_the_outputs(
    name: str, model_format: Any, precision: Precision
) -> None:
    graph = exported(name, model_format)[2]
    quantised = quantise_as(graph, precision)
    assert quantised.precision == precision and quantised.inputs == graph.inputs
    assert len(quantised.data) < SMALLER[precision] * len(graph.data)
    assert worst_db(name, quantised) > LEAST_DB[precision]


@pytest.mark.slow
@pytest.mark.parametrize("model_format", FORMATS)
def test_dynamic_int8_of_attention_is_nearer_to_float_than_static(model_format: Any) -> None:
    _, samples, graph = exported("encoder", model_format)
    static = static_int8(graph, samples, "uint8")
    dynamic = quantise_as(graph, "int8-dynamic")
    assert worst_db("encoder", dynamic) > worst_db("encoder", static) + 2.0
    assert len(dynamic.data) < len(static.data)


@pytest.mark.slow
def test_dynamic_int8_reaches_the_lstm_that_static_leaves_in_float() -> None:
    _, samples, graph = exported("lstm", "onnx")
    static = static_int8(graph, samples, "uint8")
    dynamic = quantise_as(graph, "int8-dynamic")
    assert len(dynamic.data) < 0.5 * len(static.data)
    # The scores pass through the head, which is all that static INT8 quantises here.
    scores = [compared("lstm", one).accuracy.sqnr_db["scores"] for one in (static, dynamic)]
    assert scores[1] > scores[0]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "model_format", "precision", "low", "high"),
    [
        ("lstm", "onnx", "int8-dynamic", 1.0, 1.0),
        ("lstm", "tflite", "int8-dynamic", 1.0, 1.0),
        ("mlp", "onnx", "int8-dynamic", 1.0, 1.0),
        ("encoder", "tflite", "int8-dynamic", 0.9, 0.99),
        # ONNX Runtime has no dynamic GRU.
        ("gru", "onnx", "int8-dynamic", 0.0, 0.1),
        ("encoder", "onnx", "int8-weights", 0.0, 0.0),
        ("encoder", "tflite", "int4-weights", 0.0, 0.0),
        ("mlp", "onnx", "float16", 0.0, 0.0),
    ],
)
def test_share_that_runs_in_int8_is_that_of_integer_products(
    name: str, model_format: Any, precision: Precision, low: float, high: float
) -> None:
    graph = exported(name, model_format)[2]
    quantised = quantise_as(graph, precision)
    first = {key: rows[0] for key, rows in compared(name, quantised).golden.inputs.items()}
    share = int8_mac_share(executed_operators(quantised, graph, first))
    assert share is not None and low <= share <= high


@pytest.mark.slow
def test_tflite_artifact_of_dynamic_int8_is_never_for_tflite_runtime() -> None:
    model, samples, graph = exported("mlp", "tflite")
    profile = load_profile("raspberry-pi-4")
    (verified,) = verify([(quantise_as(graph, "int8-dynamic"), graph)], samples, model.run, "calibration")
    report = gate(verified, profile, GateLimits(1.0, None), work=None, predicted=(), conversion_s=1.0)
    _, (manifest,) = package(
        [Packable(profile.name, verified, report, (), None)],
        output=None,
        name="mlp",
        release_version="1.0.0",
        source="toy_models:mlp",
        calibration=samples,
        training=None,
        described=samples,
        classification=None,
    )
    assert manifest.precision == "int8-dynamic"
    assert "ai_edge_litert" in manifest.runtimes and "tflite_runtime" not in manifest.runtimes
    assert manifest.golden.relative_tolerance > 1e-3
    assert manifest.gate is not None and manifest.gate.int8_mac_share == 1.0


def test_tflite_runtime_is_for_static_int8_and_float_alone() -> None:
    precisions: tuple[Precision, ...] = ("float32", "int8", *SMALLER)
    taken = [precision for precision in precisions if "tflite_runtime" in runtimes_for("tflite", precision)]
    assert taken == ["float32", "int8"]
    assert all(runtimes_for("onnx", precision) == ("onnxruntime",) for precision in precisions)


@pytest.mark.slow
def test_weight_that_embedding_and_head_share_stays_right_in_both() -> None:
    graph = exported("tied_encoder", "onnx")[2]
    least: dict[Precision, float] = {"int8-dynamic": 30.0, "int4-weights": 10.0}
    for precision, decibels in least.items():
        quantised = quantise_as(graph, precision)
        assert worst_db("tied_encoder", quantised) > decibels
        proto = onnx.load_from_string(quantised.data)
        names = [initialiser.name for initialiser in proto.graph.initializer]
        assert len(names) == len(set(names))
        kinds = [node.op_type for node in proto.graph.node]
        assert "GatherBlockQuantized" in kinds and "Gemm" not in kinds
        table = [i for i in proto.graph.initializer if tuple(i.dims) in ((500, 64), (64, 500))]
        assert all(numpy_helper.to_array(i).dtype != np.float32 for i in table)


def of_nodes(*nodes: onnx.NodeProto, **weights: Any) -> ExportedGraph:
    value = helper.make_tensor_value_info
    proto = helper.make_graph(
        list(nodes),
        "g",
        [value("x", TensorProto.FLOAT, [4, 8])],
        [value("y", TensorProto.FLOAT, [4, 8])],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    model = helper.make_model(proto, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return ExportedGraph("onnx", model.SerializeToString(), (), ())


def test_gemm_with_factors_is_split_into_the_same_function() -> None:
    import onnxruntime as ort

    from edgewright_converters.quantise.onnx_weights import split_gemms

    random = np.random.default_rng(0)
    weight, bias = random.standard_normal((8, 8), np.float32), random.standard_normal(8, np.float32)
    gemm = helper.make_node("Gemm", ["x", "w", "b"], ["y"], name="g", alpha=0.5, beta=2.0, transB=1)
    graph = of_nodes(gemm, w=weight, b=bias)
    proto = onnx.load_from_string(graph.data)
    split_gemms(proto.graph)
    assert [(node.op_type, node.name) for node in proto.graph.node] == [("MatMul", "g"), ("Add", "g_bias")]
    x = random.standard_normal((4, 8), np.float32)
    (y,) = ort.InferenceSession(proto.SerializeToString()).run(None, {"x": x})
    np.testing.assert_allclose(y, 0.5 * x @ weight.T + 2.0 * bias, rtol=1e-5, atol=1e-5)


def test_dynamic_int8_of_a_graph_without_matrices_is_refused() -> None:
    graph = of_nodes(helper.make_node("Relu", ["x"], ["y"], name="r"))
    with pytest.raises(ConversionError, match="no product by a constant matrix") as caught:
        quantise_as(graph, "int8-dynamic")
    assert "\n" not in str(caught.value)


def test_static_int8_is_refused_without_ranges_and_float32_is_the_graph_itself() -> None:
    graph = of_nodes(helper.make_node("Relu", ["x"], ["y"], name="r"))
    assert quantise_as(graph, "float32").data == graph.data
    with pytest.raises(ConversionError, match="calibrated ranges"):
        quantise_as(graph, "int8")


@pytest.mark.slow
@pytest.mark.parametrize("model_format", FORMATS)
@pytest.mark.parametrize("name", ["lstm", "encoder"])
def test_dynamic_int8_comes_first_for_recurrent_layers_and_attention(name: str, model_format: Any) -> None:
    graph = exported(name, model_format)[2]
    made_of = composition(graph)
    assert (made_of.recurrent > 0.5) == (name == "lstm") and (made_of.attention > 0) == (name == "encoder")
    pi4, pi5 = (alternatives(graph, load_profile(f"raspberry-pi-{n}")) for n in (4, 5))
    assert [one.precision for one in pi4] == ["int8-dynamic"]
    assert [one.precision for one in pi5] == ["int8-dynamic", "float16"]
    assert ("recurrent" if name == "lstm" else "attention") in pi4[0].reason
    assert all("\n" not in one.reason for one in (*pi4, *pi5))
    if model_format == "onnx":
        gpu = alternatives(graph, load_profile("jetson-orin-nano-tensorrt"))
        assert [one.precision for one in gpu] == ["float16"]


@pytest.mark.slow
@pytest.mark.parametrize("model_format", FORMATS)
def test_convolutional_model_has_no_alternative_where_float16_is_slow(model_format: Any) -> None:
    model = load_source("toy_models:small")
    images = np.random.default_rng(0).standard_normal((2, 2, 12, 12)).astype(np.float32)
    examples = [sample.inputs for sample in load_samples({"x": images}, model.input_names).head(2)]
    graph = optimise(export(model, examples, check_takes(model, examples[0]), model_format))
    assert composition(graph).convolution > 0.9
    assert alternatives(graph, load_profile("raspberry-pi-4")) == ()


@pytest.mark.slow
@pytest.mark.parametrize("model_format", FORMATS)
@pytest.mark.parametrize(
    ("share", "expected"), [(0.8, ["int8-weights"]), (0.1, ["int8-weights", "int4-weights"])]
)
def test_small_weights_are_offered_where_the_file_is_over_budget(
    model_format: Any, share: float, expected: list[str]
) -> None:
    graph = exported("mlp", model_format)[2]
    profile = load_profile("raspberry-pi-4")
    budgets = profile.budgets.model_copy(update={"artifact_bytes": int(len(graph.data) * share)})
    found = alternatives(graph, profile.model_copy(update={"budgets": budgets}))
    assert [one.precision for one in found] == ["int8-dynamic", *expected]
