from __future__ import annotations

import numpy as np
import pytest
from toy_data import images

from edgewright_converters.calibration import SampleSet, load_samples
from edgewright_converters.export import ExportedGraph, export
from edgewright_converters.optimise import optimise
from edgewright_converters.quantise.decision import own_ranges
from edgewright_converters.quantise.tflite_static import quantise_tflite
from edgewright_converters.source import SourceModel, load_source
from edgewright_converters.source_check import check_takes
from edgewright_converters.tflite_graph import activations, open_tflite
from edgewright_converters.verify import compare

pytestmark = pytest.mark.slow


def opened(name: str) -> tuple[SourceModel, SampleSet, ExportedGraph]:
    random = np.random.default_rng(0)
    frames = random.standard_normal((12, 12, 16)).astype(np.float32)
    states = {key: 0.3 * random.standard_normal((12, 1, 64)).astype(np.float32) for key in ("state", "cell")}
    data = {
        "small": {"image": images()},
        "gru": {"frames": frames, "state": states["state"]},
        "lstm": {"frames": frames, **states},
    }[name]
    model = load_source(f"toy_models:{name}")
    samples = load_samples(data, model.input_names, model.optional_names)
    model = model.taking(samples.input_names)
    examples = [sample.inputs for sample in samples.head(2)]
    return model, samples, optimise(export(model, examples, check_takes(model, examples[0]), "tflite"))


@pytest.mark.parametrize("name", ["gru", "lstm"])
def test_state_that_comes_out_and_is_used_inside_is_found_again(name: str) -> None:
    model, samples, graph = opened(name)
    quantised = quantise_tflite(graph, own_ranges(graph, (sample.inputs for sample in samples)))
    assert [spec.name for spec in quantised.outputs] == [spec.name for spec in graph.outputs]
    assert {spec.dtype for spec in (*quantised.inputs, *quantised.outputs)} == {"int8"}
    (result,) = compare([quantised], samples, model.run, "calibration")
    assert min(result.accuracy.sqnr_db.values()) > 25


def test_ranges_are_the_true_minimum_and_maximum_over_all_samples() -> None:
    _, samples, graph = opened("small")
    ranges = own_ranges(graph, (sample.inputs for sample in samples))
    (spec,) = graph.inputs
    assert ranges[spec.runtime_name] == (images().min(), images().max())
    names = open_tflite(graph).names
    every = [made for made in activations(graph, (s.inputs for s in samples), open_tflite(graph)) if made]
    assert len(every) == samples.count and {names[index] for index in every[0]} == set(ranges)
    (output,) = graph.outputs
    assert set(own_ranges(graph, (s.inputs for s in samples), frozenset({output.runtime_name}))) == {
        output.runtime_name
    }


def test_layer_named_to_stay_in_float_makes_the_model_nearer_to_float() -> None:
    model, samples, graph = opened("small")
    ranges = own_ranges(graph, (sample.inputs for sample in samples))
    first = open_tflite(graph).names[open_tflite(graph).operators[0].outputs[0]]
    whole, mixed = quantise_tflite(graph, ranges), quantise_tflite(graph, ranges, frozenset({first}))
    noise = [
        one.accuracy.sqnr_db["output"] for one in compare([whole, mixed], samples, model.run, "calibration")
    ]
    assert len(mixed.data) != len(whole.data) and noise[1] > noise[0]
