from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx_graphs import Array, statistics_of
from torch_layers import MODELS, Prepared, prepared

from edgewright_converters.execution import Execution
from edgewright_converters.observation import histograms
from edgewright_converters.quantise import QuantisedModel
from edgewright_converters.quantise.activation_range import choose_ranges
from edgewright_converters.quantise.bias_correction import corrected
from edgewright_converters.quantise.decision import Decision, as_onnx, as_tflite, own_ranges
from edgewright_converters.quantise.sweep import sweep
from edgewright_converters.tflite_graph import open_tflite
from edgewright_converters.verify import compare, open_specs

pytestmark = pytest.mark.slow


def decided(one: Prepared, in_float: frozenset[str] = frozenset()) -> tuple[Decision, Any]:
    """A decision as the ladder comes to it, and the TFLite target with ranges of its own."""
    graph, target = one.graphs.graph, one.graphs.tflite
    assert graph is not None and target is not None
    feeds = [graph.feed(sample.inputs) for sample in one.samples]
    statistics = statistics_of(graph, feeds)
    ranges = choose_ranges(statistics, histograms(Execution(graph), feeds, statistics))
    decision = Decision(graph, ranges, in_float)
    swept = sweep(Execution(graph), decision.bounds(), feeds, corrected, in_float)
    own = own_ranges(target.exported, (s.inputs for s in one.samples), target.found.unmatched)
    return replace(decision, graph=swept.graph), replace(target, own_ranges=own)


def outputs(model: QuantisedModel, one: Prepared) -> list[Array]:
    with tempfile.TemporaryDirectory() as folder:
        opened = open_specs(Path(folder) / "model", model)
        return [next(iter(opened.run(dict(sample.inputs)).values())) for sample in one.samples]


@pytest.mark.parametrize("name", MODELS)
def test_both_formats_of_one_decision_agree_within_about_a_step(name: str) -> None:
    one = prepared(name)
    decision, target = decided(one)
    made = as_onnx(decision, "uint8"), as_tflite(decision, target)
    steps = [model.outputs[0].quantisation.scale for model in made if model.outputs[0].quantisation]
    # A matrix product at the end is given unrounded in ONNX.
    assert steps and steps[0] == pytest.approx(steps[-1], rel=0.02)
    assert (len(steps) == 1) == (made[0].outputs[0].dtype == "float32")
    difference = np.abs(np.array(outputs(made[0], one)) - np.array(outputs(made[1], one)))
    # Both round each operator's result, and may do so to either side of a tie. TFLite has no layer normalisation:
    # it rounds each of a dozen operators in its place.
    most = 8 if name == "LayerNorm" else 4
    assert difference.mean() < 0.25 * most * steps[0] and difference.max() < (most + 0.01) * steps[0]
    for compared in compare(made, one.samples, one.source.run, "calibration"):
        assert min(compared.accuracy.sqnr_db.values()) > 25


def test_layer_left_in_float_is_float_in_both_formats() -> None:
    one = prepared("Conv2d")
    graph = one.graphs.graph
    assert graph is not None
    layer = graph.layers[1]
    decision, target = decided(one, frozenset({layer.name}))
    made = as_onnx(decision, "uint8"), as_tflite(decision, target)
    stored = {i.name: i.data_type for i in onnx.load_from_string(made[0].data).graph.initializer}
    assert stored[layer.weight] == onnx.TensorProto.FLOAT
    kept = [value for value in open_tflite(made[1]).constants.values() if value.shape == (4, 3, 3, 4)]  # type: ignore[arg-type]
    assert len(kept) == 1
    np.testing.assert_allclose(kept[0], graph.weights[layer.weight].transpose(0, 2, 3, 1), atol=1e-5)


def test_repaired_weights_are_found_on_the_same_grid_by_both_quantisers() -> None:
    one = prepared("separable")
    decision, _ = decided(one)
    graph = decision.graph
    stored = {
        i.name: onnx.numpy_helper.to_array(i)
        for i in onnx.load_from_string(as_onnx(decision, "uint8").data).graph.initializer
    }
    for layer in graph.layers:
        weight = graph.weights[layer.weight]
        scale = stored[f"{layer.weight}_scale"].reshape(-1, *[1] * (weight.ndim - 1))
        # Channels that the input was widened by have weights of nought.
        integers, wider = np.split(stored[f"{layer.weight}_quantized"], weight.shape[1:2], axis=1)
        assert not wider.any()
        np.testing.assert_allclose(integers * scale, weight, atol=1e-3 * np.abs(weight).max())
