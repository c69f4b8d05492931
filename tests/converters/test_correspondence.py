from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx_graphs import bounds_of, normal, run_whole
from torch_layers import MODELS, Prepared, prepared

from edgewright_converters.correspondence import carried_over
from edgewright_converters.execution import Execution
from edgewright_converters.export import ExportedGraph
from edgewright_converters.float_graph import FloatGraph
from edgewright_converters.quantise.bias_correction import corrected
from edgewright_converters.quantise.sweep import sweep
from edgewright_converters.tflite_graph import open_tflite
from edgewright_converters.verify import open_specs

pytestmark = pytest.mark.slow
IN_FULL = sorted(set(MODELS) - {"tied", "LayerNorm"})


def parts(name: str) -> tuple[Prepared, FloatGraph, Any]:
    one = prepared(name)
    assert one.graphs.graph is not None and one.graphs.tflite is not None
    return one, one.graphs.graph, one.graphs.tflite


def outputs(graph: ExportedGraph, one: Prepared) -> list[Any]:
    with tempfile.TemporaryDirectory() as folder:
        model = open_specs(Path(folder) / "model", graph)
        return [model.run(dict(sample.inputs)) for sample in one.samples.head(4)]


@pytest.mark.parametrize("name", IN_FULL)
def test_every_weight_and_bias_has_its_place_in_the_other_format(name: str) -> None:
    _, graph, tflite = parts(name)
    assert graph.layers and not graph.fixed
    opened = open_tflite(tflite.exported)
    for layer in graph.layers:
        for constant in filter(None, (layer.weight, layer.bias)):
            (place,) = tflite.found.constants[constant]
            np.testing.assert_allclose(
                place.placed(graph.weights[constant]), opened.constants[place.tensor], rtol=1e-3, atol=1e-5
            )
    places = [p.tensor for each in tflite.found.constants.values() for p in each]
    assert len(set(places)) == len(places)


@pytest.mark.parametrize("name", IN_FULL)
def test_changed_weights_carried_over_compute_the_same_in_both_formats(name: str) -> None:
    one, graph, tflite = parts(name)
    changed = graph.with_weights(
        {n: graph.weights[n] + normal(*graph.weights[n].shape, scale=0.3) for n in tflite.found.constants}
    )
    carried = outputs(carried_over(changed, tflite.exported, tflite.found), one)
    for sample, got in zip(one.samples.head(4), carried, strict=True):
        (expected,) = run_whole(changed, graph.feed(sample.inputs)).values()
        (value,) = got.values()
        assert np.abs(value - expected).max() < 1e-4 * max(np.abs(expected).max(), 1.0)
        (before,) = run_whole(graph, graph.feed(sample.inputs)).values()
        assert np.abs(before - expected).max() > 1e-2


@pytest.mark.parametrize("name", IN_FULL)
def test_every_activation_but_padding_is_known_by_what_it_takes_on(name: str) -> None:
    _, graph, tflite = parts(name)
    assert set(tflite.found.activations.values()) <= graph.quantised_tensors
    assert graph.shown & set(tflite.found.activations.values())
    assert {spec.runtime_name for spec in graph.inputs} <= set(tflite.found.activations.values())
    assert len(tflite.found.unmatched) <= 1


@pytest.mark.parametrize("name", ["tied", "LayerNorm"])
def test_what_has_no_place_is_fixed_and_not_repaired(name: str) -> None:
    one, graph, tflite = parts(name)
    assert graph.fixed
    feeds = [graph.feed(sample.inputs) for sample in one.samples]
    swept = sweep(Execution(graph), bounds_of(graph, feeds), feeds, corrected).graph
    for constant in graph.fixed:
        np.testing.assert_array_equal(swept.weights[constant], graph.weights[constant])
    got = outputs(carried_over(graph, tflite.exported, tflite.found), one)
    for expected, value in zip(outputs(tflite.exported, one), got, strict=True):
        assert all(np.abs(value[key] - expected[key]).max() < 1e-4 for key in expected)


def test_float_tflite_graph_with_biases_of_their_own_computes_what_the_source_does() -> None:
    for name in ("no biases", "zero biases", "Linear without bias", "transposed"):
        one, _, tflite = parts(name)
        for sample, got in zip(one.samples.head(4), outputs(tflite.exported, one), strict=True):
            for key, expected in one.source.run(sample.inputs).items():
                assert np.abs(got[key] - expected).max() < 1e-4 * np.abs(expected).max()
