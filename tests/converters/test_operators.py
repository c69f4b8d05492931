from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from static_int8 import static_int8

from edgewright.runtime.quantised_io import raw_input
from edgewright_converters.calibration import load_samples
from edgewright_converters.export import ExportedGraph, export
from edgewright_converters.operators import executed_operators, int8_mac_share
from edgewright_converters.optimise import optimise
from edgewright_converters.quantise import QuantisedModel
from edgewright_converters.source import load_source
from edgewright_converters.source_check import check_takes

IMAGES = np.random.default_rng(0).standard_normal((8, 2, 12, 12)).astype(np.float32)
# 8×2×9 + 8×9 MACs a pixel, and the head.
MACS = 12 * 12 * (8 * 2 * 9 + 8 * 9) + 8 * 4


def exported(model_format: Any) -> ExportedGraph:
    model = load_source("toy_models:small")
    samples = load_samples({"x": IMAGES}, model.input_names)
    examples = [sample.inputs for sample in samples.head(2)]
    return optimise(export(model, examples, check_takes(model, examples[0]), model_format))


def executed(graph: ExportedGraph, model: QuantisedModel) -> Any:
    raw = {spec.name: raw_input(IMAGES[:1], spec) for spec in model.inputs}
    return executed_operators(model, graph, raw)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model_format", "activations"), [("onnx", "uint8"), ("onnx", "int8"), ("tflite", "int8")]
)
def test_all_work_of_a_quantised_model_is_found_and_runs_in_integers(
    model_format: Any, activations: Any
) -> None:
    graph = exported(model_format)
    samples = load_samples({"x": IMAGES}, ["image"])
    operators = executed(graph, static_int8(graph, samples, activations))
    assert sum(operator.work.macs for operator in operators) == MACS
    assert int8_mac_share(operators) == 1.0
    assert all((operator.seconds is not None) == (model_format == "onnx") for operator in operators)


@pytest.mark.slow
@pytest.mark.parametrize("model_format", ["onnx", "tflite"])
def test_float_model_that_calls_itself_int8_is_found_out(model_format: Any) -> None:
    graph = exported(model_format)
    posing = QuantisedModel(graph.format, "int8", graph.data, graph.inputs, graph.outputs)
    operators = executed(graph, posing)
    assert sum(operator.work.macs for operator in operators) == MACS
    assert int8_mac_share(operators) == 0.0
