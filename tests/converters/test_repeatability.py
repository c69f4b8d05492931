from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
import toy_data
import toy_models
from onnx import TensorProto, helper

from edgewright.errors import ConversionError
from edgewright_converters.repeatability import check_repeatable
from edgewright_converters.source import load_source

SAMPLES = [{"image": toy_data.images()[i : i + 1]} for i in range(2)]


@pytest.mark.parametrize(
    ("model", "problem"),
    [
        (
            toy_models.AlwaysDrops,
            r"it behaves randomly \(dropout in toy_models\.py:\d+\)",
        ),
        (
            toy_models.AddsNoise,
            r"it behaves randomly \(rand in toy_models\.py:\d+\): output 'output' differs by",
        ),
        (toy_models.DrawsInPython, r"it behaves randomly: output"),
        (toy_models.RemembersOutput, r"hidden state in memory\.last from one call"),
        (toy_models.AveragesBuffer, r"hidden state in average from one call"),
        (toy_models.ComparesFrames, r"hidden state in frames from one call"),
    ],
)
def test_model_that_is_no_function_of_its_input_is_refused_and_says_why(
    model: type[torch.nn.Module], problem: str
) -> None:
    with pytest.raises(ConversionError, match=problem) as caught:
        check_repeatable(load_source(model()), SAMPLES)
    assert "\n" not in str(caught.value)


def test_state_is_found_with_one_sample_too() -> None:
    with pytest.raises(ConversionError, match=r"hidden state in memory\.last"):
        check_repeatable(load_source(toy_models.RemembersOutput()), SAMPLES[:1])


def test_exported_program_that_draws_is_refused() -> None:
    program = torch.export.export(toy_models.AddsNoise(), (torch.zeros(1, 2, 12, 12),))
    with pytest.raises(ConversionError, match="it behaves randomly"):
        check_repeatable(load_source(program.module()), SAMPLES)


def test_onnx_file_that_draws_is_refused(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("RandomNormalLike", ["image"], ["noise"]),
        helper.make_node("Add", ["image", "noise"], ["output"]),
    ]
    values = [
        helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, 2, 12, 12]) for n in ("image", "output")
    ]
    graph = helper.make_graph(nodes, "noisy", values[:1], values[1:])
    path = tmp_path / "noisy.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    with pytest.raises(ConversionError, match="it behaves randomly"):
        check_repeatable(load_source(path), SAMPLES)


def test_attribute_that_has_no_say_in_the_output_is_left_alone() -> None:
    rows = [{"x": np.ones((1, 4), np.float32)}, {"x": np.zeros((1, 4), np.float32)}]
    check_repeatable(load_source(toy_models.CountsCalls()), rows)
    check_repeatable(load_source(toy_models.small()), SAMPLES)


def test_random_generators_of_the_caller_are_left_as_they_were() -> None:
    def seed_all() -> None:
        torch.manual_seed(5)
        random.seed(5)
        np.random.seed(5)

    model = load_source(toy_models.small())
    seed_all()
    expected = torch.rand(1).item(), random.random(), np.random.random()
    seed_all()
    check_repeatable(model, SAMPLES)
    assert (torch.rand(1).item(), random.random(), np.random.random()) == expected


class CountsWhereNobodyLooks(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self._log: dict[str, int] = {"calls": 0}

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        self._log["calls"] += 1
        return image * self._log["calls"]


def test_what_changes_and_is_seen_nowhere_is_named_as_such() -> None:
    with pytest.raises(ConversionError, match="outside of its attributes, or reads a clock"):
        check_repeatable(load_source(CountsWhereNobodyLooks()), SAMPLES)


def test_exported_program_that_draws_names_no_line_of_ours() -> None:
    module = torch.jit.trace(toy_models.AlwaysDrops().eval(), torch.zeros(1, 2, 12, 12), check_trace=False)
    with pytest.raises(ConversionError, match=r"randomly \(dropout\): .*; export it again from the model"):
        check_repeatable(load_source(module), SAMPLES)
