from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx_graphs import Array, bounds_of, conv_chain, float_graph, node, normal, run_whole, samples_of

from edgewright.errors import ConversionError
from edgewright_converters.execution import Execution
from edgewright_converters.float_graph import FloatGraph
from edgewright_converters.quantise import QuantisedModel, onnx_static
from edgewright_converters.quantise.onnx_static import quantise_onnx
from edgewright_converters.quantise.sweep import rounded_only, sweep
from edgewright_converters.tensorrt_rules import TensorRtFile
from edgewright_converters.verify import open_specs
from edgewright_profiles import load_delegate


def decibels(
    graph: FloatGraph, quantised: QuantisedModel, samples: list[dict[str, Array]]
) -> dict[str, float]:
    """Signal to noise of each output as ONNX Runtime executes the quantised model."""
    power: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        model = open_specs(Path(folder) / "model", quantised)
        for sample in samples:
            got = model.run(sample)
            for name, expected in run_whole(graph, sample).items():
                sums = power.setdefault(name, [0.0, 1e-30])
                sums[0] += float(np.square(expected).sum())
                sums[1] += float(np.square(expected - got[name]).sum())
    return {name: 10 * np.log10(signal / noise) for name, (signal, noise) in power.items()}


def quantised(graph: FloatGraph, samples: list[dict[str, Array]], **options: Any) -> QuantisedModel:
    return quantise_onnx(
        graph.exported(), bounds_of(graph, samples), options.pop("activation", "uint8"), **options
    )


def graph_of(
    *nodes: onnx.NodeProto, x: tuple[int, ...] = (4, 4), outputs: tuple[str, ...] = ("y",), **weights: Array
) -> FloatGraph:
    return float_graph(nodes, {"x": x}, outputs, weights)


IMAGE = (1, 4, 6, 6)
GRAPHS: dict[str, tuple[FloatGraph, float]] = {
    "chain": (conv_chain(unequal=False), 25.0),
    "head without bias": (graph_of(node("Gemm", "x w", "y"), w=normal(4, 3)), 25.0),
    "factors": (graph_of(node("Gemm", "x w b", "y", alpha=0.5, beta=2.0), w=normal(4, 3), b=normal(3)), 25.0),
    "computed bias": (graph_of(node("Gemm", "x w x", "y"), w=normal(4, 4)), 25.0),
    "constant on the left": (graph_of(node("MatMul", "w x", "y"), w=normal(4, 4)), 25.0),
    "output that is used inside": (
        graph_of(
            node("Conv", "x w b", "y"), node("Relu", "y", "z"), node("Mul", "z z", "q"),
            x=IMAGE, outputs=("y", "z", "q"), w=normal(4, 4, 2, 2), b=normal(4),
        ),
        25.0,
    ),
    "output that is reshaped": (
        graph_of(
            node("Conv", "x w b", "c"), node("Reshape", "c s", "y"), x=IMAGE, w=normal(4, 4, 2, 2), b=normal(4),
            s=np.array([1, -1]),
        ),
        25.0,
    ),
    "weight of two layers": (
        graph_of(
            node("Gemm", "x w b", "h"), node("Relu", "h", "r"), node("Gemm", "r w b", "y"),
            w=normal(4, 4), b=normal(4),
        ),
        25.0,
    ),
    "weight of two layers, once transposed": (
        graph_of(
            node("Gemm", "x w b", "h", transB=1), node("Relu", "h", "r"), node("Gemm", "r w b", "y"),
            w=normal(4, 4) * np.float32([[1], [0.1], [0.01], [0.3]]), b=normal(4),
        ),
        25.0,
    ),
    "bias that is added as well": (
        graph_of(node("Gemm", "x w b", "h"), node("Add", "h b", "y"), w=normal(4, 4), b=normal(4)),
        25.0,
    ),
    "transposed in groups": (
        graph_of(
            node("ConvTranspose", "x w b", "c", group=2), node("Relu", "c", "r"), node("Conv", "r v d", "y"),
            x=IMAGE, w=normal(4, 3, 2, 2), b=normal(6), v=normal(2, 6, 1, 1), d=normal(2),
        ),
        25.0,
    ),
}  # fmt: skip


@pytest.mark.parametrize("activation", ["uint8", "int8"])
@pytest.mark.parametrize("name", GRAPHS)
def test_quantised_graph_runs_and_is_near_to_float(name: str, activation: str) -> None:
    graph, least = GRAPHS[name]
    samples = samples_of(graph)
    model = quantised(graph, samples, activation=activation)
    for output, found in decibels(graph, model, samples).items():
        assert found > least, output
    assert all(spec.dtype in (activation, "float32") for spec in (*model.inputs, *model.outputs))


def test_inputs_and_outputs_are_integers_and_weights_a_scale_for_each_channel() -> None:
    graph = conv_chain()
    model = quantised(graph, samples_of(graph))
    assert [spec.dtype for spec in (*model.inputs, *model.outputs)] == ["uint8", "uint8"]
    proto = onnx.load_from_string(model.data)
    stored = {i.name: onnx.numpy_helper.to_array(i) for i in proto.graph.initializer}
    assert stored["w1_quantized"].dtype == np.int8 and stored["w1_scale"].shape == (6,)
    assert np.abs(stored["w1_quantized"]).max(axis=(1, 2, 3)).tolist() == [127] * 6


@pytest.mark.parametrize("name", GRAPHS)
def test_symmetric_file_holds_every_rule_of_tensorrt_and_is_near_to_float(name: str) -> None:
    graph, least = GRAPHS[name]
    samples = samples_of(graph)
    model = quantised(graph, samples, activation="int8", symmetric=True)
    file = TensorRtFile.of(model.data)
    assert file.breaches(load_delegate("tensorrt")) == ()
    assert all(spec.dtype == "float32" for spec in (*model.inputs, *model.outputs))
    assert min(decibels(graph, model, samples).values()) > least


def test_symmetric_file_quantises_every_layer_and_lets_it_be_fused_with_its_activation() -> None:
    graph = conv_chain(unequal=False)
    model = quantised(graph, samples_of(graph), activation="int8", symmetric=True)
    file = TensorRtFile.of(model.data)
    assert file.integer == {layer.name for layer in graph.layers}
    kinds = [one.op_type for one in file.proto.graph.node]
    assert kinds[kinds.index("Conv") + 1 :][:2] == ["Relu", "QuantizeLinear"]
    assert {file.constants[f"b{i}"].dtype for i in (1, 2)} == {np.dtype(np.float32)}


def test_layer_named_to_stay_in_float_has_a_float_weight() -> None:
    graph = conv_chain()
    samples = samples_of(graph)
    model = quantised(graph, samples, in_float=frozenset({graph.layers[0].name}))
    stored = {i.name: i.data_type for i in onnx.load_from_string(model.data).graph.initializer}
    assert stored["w1"] == onnx.TensorProto.FLOAT and stored["w2_quantized"] == onnx.TensorProto.INT8
    assert decibels(graph, model, samples)["y"] > decibels(graph, quantised(graph, samples), samples)["y"]


@pytest.mark.parametrize("activation", ["Relu", "LeakyRelu"])
def test_layer_left_in_float_is_not_rounded_by_the_runtime_either(activation: str) -> None:
    # ONNX Runtime quantises float weights between integer tensors by itself, with one scale for all channels.
    nodes = [
        node("Conv", "x w0 b0", "c"), node(activation, "c", "a"),
        node("Conv", "a w1 b1", "d"), node(activation, "d", "e"),
        node("Conv", "e w2 b2", "y"),
    ]  # fmt: skip
    weights = {f"w{i}": normal(6, 6, 1, 1) for i in range(3)} | {f"b{i}": normal(6) for i in range(3)}
    weights["w1"] = weights["w1"] * np.geomspace(0.01, 1, 6, dtype=np.float32)[:, None, None, None]
    weights["b1"] = weights["b1"] * np.geomspace(0.01, 1, 6, dtype=np.float32)
    graph = float_graph(nodes, {"x": (1, 6, 8, 8)}, ["y"], weights)
    samples = samples_of(graph)
    names = frozenset({graph.layers[1].name})
    expected = sweep(Execution(graph), bounds_of(graph, samples), samples, rounded_only, names).noise_db["y"]
    assert decibels(graph, quantised(graph, samples, in_float=names), samples)["y"] == pytest.approx(
        expected, abs=0.5
    )


def test_embedding_tied_to_the_head_keeps_both_near_to_float() -> None:
    table, ids = normal(50, 8) * np.geomspace(0.05, 1, 50, dtype=np.float32)[:, None], np.array([[3, 7, 49]])
    weights = {"e": table, "ids": ids, "w": normal(6, 8), "b": normal(6), "v": normal(8, 6), "c": normal(50)}
    nodes = [
        node("Gather", "e ids", "g"),
        node("Add", "g x", "s"),
        node("ReduceMean", "s axis", "m", keepdims=0),
        node("Gemm", "m w b", "h", transB=1),
        node("Relu", "h", "r"),
        node("Gemm", "r v", "k", transB=1),
        node("Gemm", "k e c", "y", transB=1),
    ]
    graph = float_graph(nodes, {"x": (1, 3, 8)}, ["y"], weights | {"axis": np.array([1])})
    samples = samples_of(graph)
    assert decibels(graph, quantised(graph, samples), samples)["y"] > 25


def test_token_ids_that_are_laid_out_anew_stay_integers() -> None:
    nodes = [
        node("Unsqueeze", "ids axis", "u"),
        node("Transpose", "u", "t", perm=[0, 2, 1]),
        node("Gather", "e t", "g"),
        node("ReduceMean", "g axes", "m", keepdims=0),
        node("Gemm", "m w", "y"),
    ]
    weights = {"axis": np.array([1]), "axes": np.array([1, 2]), "e": normal(50, 8), "w": normal(8, 3)}
    graph = float_graph(nodes, {"ids": (1, 12)}, ["y"], weights, dtype="int64")
    samples = [{"ids": np.random.default_rng(i).integers(0, 50, (1, 12))} for i in range(8)]
    model = quantised(graph, samples)
    assert [spec.dtype for spec in (*model.inputs, *model.outputs)] == ["int64", "float32"]
    assert decibels(graph, model, samples)["y"] > 25


def test_scores_of_a_last_gemm_are_told_apart_though_one_step_of_a_byte_holds_them() -> None:
    weight = normal(3, 8)
    weight[1] = weight[0] * 1.001
    graph = float_graph([node("Gemm", "x w", "y", transB=1)], {"x": (1, 8)}, ["y"], {"w": weight})
    samples = samples_of(graph)
    model = quantised(graph, samples)
    assert [spec.dtype for spec in (*model.inputs, *model.outputs)] == ["uint8", "float32"]
    with tempfile.TemporaryDirectory() as folder:
        running = open_specs(Path(folder) / "model", model)
        scores = [running.run(sample)["y"][0] for sample in samples]
    # The two rows have the same integers, and scales that differ by a thousandth.
    assert all(0 < abs(row[1] - row[0]) < abs(row[0]) / 100 for row in scores if row[0])


def test_image_of_three_channels_gets_a_fourth_and_the_same_outputs(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = float_graph(
        [node("Conv", "x w b", "c", pads=[1, 1, 1, 1]), node("Relu", "c", "y")],
        {"x": (1, 3, 12, 12)},
        ["y"],
        {"w": normal(8, 3, 3, 3), "b": normal(8)},
    )
    samples = samples_of(graph)
    wide = quantised(graph, samples)
    monkeypatch.setattr(onnx_static, "CHANNELS", 1)
    plain = quantised(graph, samples)
    shapes = [
        [tuple(i.dims) for i in onnx.load_from_string(m.data).graph.initializer if len(i.dims) == 4]
        for m in (plain, wide)
    ]
    assert shapes == [[(8, 3, 3, 3)], [(8, 4, 3, 3)]]
    assert [spec.shape for spec in wide.inputs] == [(1, 3, 12, 12)]
    with tempfile.TemporaryDirectory() as folder:
        running = [open_specs(Path(folder) / str(i), model) for i, model in enumerate((plain, wide))]
        for sample in samples:
            assert np.array_equal(running[0].run(sample)["y"], running[1].run(sample)["y"])


def test_graph_that_cannot_be_quantised_is_one_line() -> None:
    graph = conv_chain()
    ranges = {name: bounds for name, bounds in bounds_of(graph, samples_of(graph)).items() if name != "a"}
    with pytest.raises(ConversionError, match="cannot be quantised") as caught:
        quantise_onnx(graph.exported(), ranges, "uint8")
    assert "\n" not in str(caught.value)
