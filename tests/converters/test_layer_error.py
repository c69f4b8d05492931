from __future__ import annotations

import collections
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from static_int8 import static_int8
from test_operators import IMAGES, exported

from edgewright.runtime.onnxruntime import session_options
from edgewright_converters.calibration import load_samples
from edgewright_converters.execution import Execution
from edgewright_converters.float_graph import FloatGraph
from edgewright_converters.layer_error import (
    LayerError,
    Stored,
    exposed,
    float_activations,
    layer_errors,
    stored_activations,
)
from edgewright_converters.observation import observe
from edgewright_converters.quantise.activation_range import choose_ranges
from edgewright_converters.quantise.decision import Decision, as_onnx
from edgewright_converters.verify import open_specs

SAMPLES = [{"image": image[None]} for image in IMAGES]


def by_name(errors: tuple[LayerError, ...]) -> dict[str, LayerError]:
    return {error.name: error for error in errors}


def test_error_is_noise_against_signal_over_all_samples_in_the_order_of_float() -> None:
    reference = np.array([3.0, -1.0, 2.0, 2.0], np.float32)
    runs = [
        (
            {"b": reference, "a": reference, "gone": reference},
            {
                "a": Stored(reference + sign * 0.1),
                "b": Stored(reference.reshape(2, 2)),
                "own": Stored(reference),
            },
        )
        for sign in (1, -1)
    ]
    first, second = layer_errors(runs)
    assert (first.name, first.sqnr_db, second.name) == ("b", 200.0, "a")
    assert second.sqnr_db == pytest.approx(10 * np.log10(18 / 0.04), abs=1e-4)
    assert first.clipped is second.clipped is None


def test_share_beyond_the_grid_is_counted_and_what_rounds_onto_its_end_is_not() -> None:
    reference = np.array([0.0, 1.0, 1.4, 1.6, 9.0], np.float32)
    runs = [({"a": reference}, {"a": Stored(np.clip(reference, 0, 1), (-0.5, 1.5))})] * 2
    assert layer_errors(runs)[0].clipped == pytest.approx(2 / 5)


def kernels(data: bytes, folder: Path) -> Mapping[str, int]:
    options = session_options(threads=1)
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(folder / "optimised.onnx")
    ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    return collections.Counter(
        node.op_type for node in onnx.load(options.optimized_model_filepath).graph.node
    )


@pytest.mark.slow
@pytest.mark.parametrize("activation", ["uint8", "int8"])
def test_fused_integer_kernels_run_as_before_when_their_results_are_looked_at(
    tmp_path: Path, activation: Any
) -> None:
    model = static_int8(exported("onnx"), load_samples({"x": IMAGES}, ["image"]), activation)
    looked_at = exposed(model)
    before = kernels(model.data, tmp_path)
    assert before["QLinearConv"] == 2 and "Conv" not in before
    assert kernels(looked_at.data, tmp_path) == before
    plain = open_specs(tmp_path / "plain", model)
    for sample, seen in zip(SAMPLES, stored_activations(model, SAMPLES), strict=True):
        assert np.array_equal(seen["output"].values, plain.run(sample)["output"])


@pytest.mark.slow
def test_every_stored_activation_of_both_formats_is_compared_and_close() -> None:
    samples = load_samples({"x": IMAGES}, ["image"])
    for model_format in ("onnx", "tflite"):
        graph = exported(model_format)
        model = static_int8(graph, samples, "uint8" if model_format == "onnx" else "int8")
        reference = FloatGraph.of(graph) if model_format == "onnx" else graph
        found = layer_errors(
            zip(float_activations(reference, SAMPLES), stored_activations(model, SAMPLES), strict=True)
        )
        assert len(found) >= 5
        # True minimum and maximum clip nothing, and float's own ends round onto the grid.
        assert all(error.sqnr_db > 20 and not error.clipped for error in found), found
        # ONNX Runtime gives the scores as the sums that they are.
        scores = ["output"] if model_format == "onnx" else []
        assert [error.name for error in found if error.clipped is None] == scores
        if isinstance(reference, FloatGraph):
            assert {error.name for error in found} == reference.quantised_tensors
            assert [e.name for e in found] == [n for n in reference.float_tensors if n in by_name(found)]


@pytest.mark.slow
def test_layer_with_a_bad_range_stands_out_from_those_before_it() -> None:
    graph = FloatGraph.of(exported("onnx"))
    statistics = observe(Execution(graph), [graph.feed(sample) for sample in SAMPLES], "data")
    ranges = choose_ranges(statistics, {})
    (relu,) = graph.consumers[graph.layers[1].output]
    bad = relu.output[0]
    ranges[bad] = replace(ranges[bad], low=0.0, high=ranges[bad].high / 20)
    model = as_onnx(Decision(graph, ranges), "uint8")
    found = by_name(
        layer_errors(zip(float_activations(graph, SAMPLES), stored_activations(model, SAMPLES), strict=True))
    )
    before = list(found.values())[: list(found).index(bad)]
    assert found[bad].sqnr_db < 3 and (found[bad].clipped or 0) > 0.1
    assert before and all(error.sqnr_db > 25 and error.clipped == 0 for error in before)


@pytest.mark.slow
def test_model_that_computes_in_float_is_compared_tensor_by_tensor() -> None:
    from edgewright_converters.quantise.quantised_model import quantise_as

    graph = exported("onnx")
    model = quantise_as(graph, "int8-weights")
    reference = FloatGraph.of(graph)
    found = layer_errors(
        zip(float_activations(reference, SAMPLES), stored_activations(model, SAMPLES), strict=True)
    )
    assert found[-1].name == "output" and all(error.clipped is None for error in found)
