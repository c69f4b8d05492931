from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch_layers import Prepared, prepare

from edgewright_converters.calibration import Sample
from edgewright_converters.execution import Execution
from edgewright_converters.fine_tuning.student import MOVES, Student
from edgewright_converters.graphs import with_own_ranges
from edgewright_converters.observation import observe
from edgewright_converters.quantise import QuantisedModel
from edgewright_converters.quantise.activation_range import choose_ranges
from edgewright_converters.quantise.decision import Decision, as_onnx, as_tflite
from edgewright_converters.quantise.decision import with_own_ranges as renewed
from edgewright_converters.torch_graph import TorchGraph
from edgewright_converters.verify import compare


def network() -> nn.Module:
    torch.manual_seed(3)
    model = nn.Sequential(
        nn.Conv2d(2, 8, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(8), nn.Hardswish(),
        nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(32, 5),
    )  # fmt: skip
    nn.init.uniform_(model[1].weight, 0.2, 2.0)
    return model


@pytest.fixture(scope="module")
def one() -> Prepared:
    return prepare(network(), (2, 8, 8), 40)


def decided(one: Prepared) -> Decision:
    graph = one.graphs.graph
    assert graph is not None
    samples = [graph.feed(sample.inputs) for sample in one.samples]
    return Decision(graph, choose_ranges(observe(Execution(graph), samples, "data"), {}))


def images(one: Prepared) -> torch.Tensor:
    return torch.from_numpy(np.concatenate([next(iter(s.inputs.values())) for s in one.samples]))


def moved(student: Student) -> Student:
    """As after some training: every parameter is another one."""
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return student


def test_untrained_student_gives_back_the_decision_it_was_made_of(one: Prepared) -> None:
    before = decided(one)
    after = Student(before).decision()
    for name, weight in before.graph.weights.items():
        np.testing.assert_array_equal(after.graph.weights[name], weight)
    for name, kept in before.bounds().items():
        step = (kept[1] - kept[0]) / 255
        assert after.bounds()[name] == pytest.approx(kept, abs=step)


def agreement(one: Prepared, student: Student, model: QuantisedModel) -> float:
    """SQNR of the artifact as its runtime executes it, with the student for its float model."""

    def simulated(inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        with torch.no_grad():
            made = student(*(torch.from_numpy(array) for array in inputs.values()))
        return {name: value.numpy() for name, value in made.items()}

    samples: list[Sample] = list(one.samples)
    return compare([model], samples, simulated, "evaluation")[0].accuracy.sqnr_db["output"]


@pytest.mark.slow
def test_trained_student_computes_what_the_artifacts_of_both_formats_do(one: Prepared) -> None:
    student = moved(Student(decided(one)))
    with torch.no_grad():
        float_output = TorchGraph(student.graph)(images(one))["output"]
        assert (student(images(one))["output"] - float_output).abs().max() > 0.1
    learnt = student.decision()
    # All values but those that the runtime's own order of sums puts on the other side of a half.
    assert agreement(one, student, as_onnx(learnt, "uint8")) > 50
    tflite = with_own_ranges(one.graphs, one.samples).tflite
    assert tflite is not None
    # LiteRT rounds between the multiplications of a hard-swish.
    assert agreement(one, student, as_tflite(learnt, tflite)) > 30


@pytest.mark.slow
def test_both_formats_compute_what_was_learnt_however_far_the_ranges_have_moved(one: Prepared) -> None:
    """A gate of a hard-swish, which TFLite does not have, learns no range: clipped, it is another function."""
    student = Student(decided(one))
    with torch.no_grad():
        student.log_steps.fill_(-0.5)
    learnt = student.decision()
    tflite = with_own_ranges(one.graphs, one.samples).tflite
    assert tflite is not None and one.graphs.graph is not None and one.graphs.graph.unshared
    assert agreement(one, student, as_onnx(learnt, "uint8")) > 50
    assert agreement(one, student, as_tflite(learnt, tflite)) > 30


def test_what_one_format_alone_stores_is_never_clipped_and_ends_with_the_range_that_it_takes_on(
    one: Prepared,
) -> None:
    before = decided(one)
    assert before.graph.unshared
    (gate,) = before.graph.unshared - {
        n for node in before.graph.nodes if node.op_type in MOVES for n in node.output
    }
    narrow = replace(before.ranges[gate], high=before.ranges[gate].high / 2)
    student = Student(replace(before, ranges={**before.ranges, gate: narrow}))
    assert gate in student.held and gate not in student.grids
    assert student.decision().bounds()[gate] == (narrow.low, narrow.high)
    samples = [(x[None],) for x in images(one)]
    low, high = student.decision(samples).bounds()[gate]
    assert (low, high) == pytest.approx(before.bounds()[gate], abs=0.02)


class Normed(nn.Module):
    """LayerNorm is one operator in ONNX, and many in TFLite, with activations of their own."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.last = nn.Linear(6, 16), nn.LayerNorm(16), nn.Linear(16, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(nn.functional.gelu(self.norm(self.first(x))))


@pytest.mark.slow
def test_what_tflite_alone_stores_gets_the_ranges_that_the_trained_weights_have() -> None:
    torch.manual_seed(0)
    other = prepare(Normed(), (7, 6), 40)
    target = with_own_ranges(other.graphs, other.samples).tflite
    assert target is not None and target.own_ranges
    student = Student(decided(other))
    with torch.no_grad():
        for value in student.values:
            value.mul_(1.5)
        student.log_steps.add_(float(np.log(1.5)))
    stale = student.decision()
    fresh = renewed(stale, target, [sample.inputs for sample in other.samples])
    assert fresh.own_ranges.keys() == target.own_ranges.keys() and fresh.own_ranges != target.own_ranges
    gain = agreement(other, student, as_tflite(fresh, target)) - agreement(
        other, student, as_tflite(stale, target)
    )
    assert gain > 3


def test_batch_of_samples_gives_what_each_gives_alone(one: Prepared) -> None:
    student, x = moved(Student(decided(one))), images(one)[:6]
    with torch.no_grad():
        together = student(x)["output"]
        alone = torch.cat([student(x[i : i + 1])["output"] for i in range(len(x))])
    torch.testing.assert_close(together, alone, atol=2 * float(student.scales.max()) / 100, rtol=0)


def test_every_parameter_has_a_gradient_and_constants_have_none(one: Prepared) -> None:
    student = Student(decided(one))
    student(images(one))["output"].square().sum().backward()
    assert all(p.grad is not None and bool(p.grad.abs().sum() > 0) for p in student.values)
    assert student.log_steps.grad is not None
    assert not any(buffer.requires_grad for buffer in student.buffers())


def test_a_pooled_or_reshaped_activation_keeps_the_grid_it_came_with(one: Prepared) -> None:
    learnt = moved(Student(decided(one))).decision()
    moves = [n for n in learnt.graph.nodes if n.op_type in ("MaxPool", "Reshape", "Flatten")]
    assert moves
    for node in moves:
        bounds = learnt.bounds()
        assert bounds[node.output[0]] == bounds[node.input[0]]


def test_weights_that_another_format_holds_otherwise_are_not_trained(one: Prepared) -> None:
    before = decided(one)
    layer = before.graph.layers[0]
    fixed = replace(before, graph=replace(before.graph, fixed=frozenset({layer.weight})))
    learnt = moved(Student(fixed)).decision()
    np.testing.assert_array_equal(learnt.graph.weights[layer.weight], before.graph.weights[layer.weight])
    other = before.graph.layers[1].weight
    assert not np.array_equal(learnt.graph.weights[other], before.graph.weights[other])
