from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from edgewright.errors import DataError
from edgewright_converters.calibration import SampleSet, load_samples
from edgewright_converters.execution import Execution
from edgewright_converters.graphs import FloatGraphs, float_graphs, with_own_ranges
from edgewright_converters.observation import observe
from edgewright_converters.quantise import quantise_as
from edgewright_converters.quantise.activation_range import choose_ranges
from edgewright_converters.quantise.decision import Decision, as_onnx, as_tflite
from edgewright_converters.source import SourceModel, load_source
from edgewright_converters.source_check import check_takes
from edgewright_converters.tflite_graph import open_tflite
from edgewright_converters.verify import compare

TOKENS, WIDTH, HEADS = 12, 16, 2
KINDS = ("added infinity", "filled infinity", "filled minimum", "computed minimum", "causal")


class Attention(nn.Module):
    """One head of attention masked in each of the ways that models do it."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.query_key_value, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        later = torch.triu(torch.ones(TOKENS, TOKENS, dtype=torch.bool), 1)
        self.register_buffer("later", later)
        first = torch.arange(TOKENS)[:, None] == 0  # may look at nothing, not even at itself
        self.register_buffer("none_first", later | first)
        self.register_buffer("added", torch.zeros(TOKENS, TOKENS).masked_fill(later, -math.inf))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        split = self.query_key_value(x).reshape(1, TOKENS, 3, HEADS, WIDTH // HEADS)
        query, key, value = split.permute(2, 0, 3, 1, 4).unbind(0)
        if self.kind == "causal":
            mixed = nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        else:
            scores = query @ key.transpose(-2, -1) * (WIDTH // HEADS) ** -0.5
            least = torch.finfo(scores.dtype).min
            if self.kind == "added infinity":
                scores = scores + self.added
            elif self.kind == "filled infinity":
                scores = scores.masked_fill(self.later, -math.inf)
            elif self.kind == "filled minimum":
                scores = scores.masked_fill(self.later, least)
            elif self.kind == "empty rows":
                scores = scores.masked_fill(self.none_first, -math.inf)
            elif self.kind == "computed minimum":
                scores = scores + self.later.float() * least
            weights = scores.softmax(-1)
            mixed = (weights.nan_to_num() if self.kind == "empty rows" else weights) @ value
        result: torch.Tensor = self.out(mixed.transpose(1, 2).reshape(1, TOKENS, WIDTH))
        return result


class Transformer(nn.Module):
    def __init__(self, kind: str) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.norms = nn.ModuleList(nn.LayerNorm(WIDTH) for _ in range(2))
        self.blocks = nn.ModuleList(Attention(kind) for _ in range(2))
        self.head = nn.Linear(WIDTH, 5)
        with torch.no_grad():
            for block in self.blocks:
                block.query_key_value.weight.mul_(4)  # scores that a softmax tells apart

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for norm, block in zip(self.norms, self.blocks, strict=True):
            x = x + block(norm(x))
        result: torch.Tensor = self.head(x)
        return result


SAMPLES = np.random.default_rng(0).standard_normal((24, TOKENS, WIDTH)).astype(np.float32)


def prepared(kind: str) -> tuple[SourceModel, SampleSet, FloatGraphs]:
    model, samples = load_source(Transformer(kind)), load_samples({"x": SAMPLES}, ["x"])
    examples = [sample.inputs for sample in samples.head(2)]
    graphs = float_graphs(model, examples, check_takes(model, examples[0]), ["onnx", "tflite"])
    return model, samples, with_own_ranges(graphs, samples)


def quantised_db(kind: str) -> dict[str, tuple[float, float]]:
    """SQNR at INT8 of min-max ranges, and the share of tokens whose greatest output is float's, by format."""
    model, samples, graphs = prepared(kind)
    assert graphs.graph is not None and graphs.tflite is not None
    found = observe(Execution(graphs.graph), (graphs.graph.feed(s.inputs) for s in samples), "samples")
    decision = Decision(graphs.graph, choose_ranges(found, {}))
    results = {}
    for one in (as_onnx(decision, "uint8"), as_tflite(decision, graphs.tflite)):
        (compared,) = compare([one], samples, model.run, "evaluation")
        results[one.format] = (compared.accuracy.sqnr_db["output"], compared.accuracy.cosine["output"])
    return results


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_masked_attention_is_as_near_to_float_as_attention_without_a_mask(kind: str) -> None:
    plain, masked = quantised_db("none"), quantised_db(kind)
    for model_format in plain:
        assert masked[model_format][0] > plain[model_format][0] - 1.0
        assert masked[model_format][1] > 0.99


@pytest.mark.parametrize("kind", ["added infinity", "filled minimum"])
def test_both_formats_get_the_same_finite_mask_and_compute_what_they_did(kind: str) -> None:
    model, samples, graphs = prepared(kind)
    assert graphs.graph is not None and graphs.tflite is not None
    constants = [w for w in graphs.graph.weights.values() if w.dtype == np.float32]
    others = open_tflite(graphs.tflite.exported).constants.values()
    (value,) = {float(w.min()) for w in constants if w.size and w.min() < -16}
    (other,) = {float(w.min()) for w in others if w.size and w.min() < -16}
    assert value == other and math.isfinite(value)
    expected = model.run(samples.head(1)[0].inputs)["output"]
    made = Execution(graphs.graph).run(graphs.graph.feed(samples.head(1)[0].inputs), lambda *_: None)
    assert np.allclose(expected, next(iter(made.values())), atol=1e-4)


def test_floor_of_a_softmax_costs_less_than_half_a_step_of_its_output() -> None:
    _, samples, graphs = prepared("added infinity")
    graph = graphs.graph
    assert graph is not None
    found = observe(Execution(graph), (graph.feed(s.inputs) for s in samples), "samples")
    scores = [node.input[0] for node in graph.nodes if node.op_type == "Softmax"]
    checked: list[Any] = []

    def visit(name: str, value: np.ndarray) -> None:
        if name in scores:
            held = np.maximum(value, found[name].range[0])
            weights = [np.exp(v - v.max(-1, keepdims=True)) for v in (value, held)]
            exact, cut = (w / w.sum(-1, keepdims=True) for w in weights)
            checked.append(np.abs(exact - cut).max())

    for sample in samples:
        Execution(graph).run(graph.feed(sample.inputs), visit)
    assert checked and max(checked) <= 1 / 512
    assert all(found[name].range[0] > found[name].low.min() for name in scores)


def test_mask_that_leaves_a_row_empty_stays_infinite_as_nothing_finite_means_the_same() -> None:
    model, samples, graphs = prepared("empty rows")
    assert graphs.graph is not None
    expected = model.run(samples.head(1)[0].inputs)["output"]
    dynamic = quantise_as(graphs.exported["onnx"], "int8-dynamic")
    (compared,) = compare([dynamic], samples, model.run, "evaluation")
    assert np.isfinite(expected).all() and compared.accuracy.sqnr_db["output"] > 30
    with pytest.raises(DataError, match=r"to infinity.*--precision int8-dynamic"):
        observe(Execution(graphs.graph), (graphs.graph.feed(s.inputs) for s in samples), "samples")
