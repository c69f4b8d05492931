from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from onnx_graphs import Array
from torch import nn
from torch_layers import Prepared, prepare

from edgewright_converters.calibration import SampleSet, load_samples
from edgewright_converters.execution import Execution
from edgewright_converters.fine_tuning.rung import Tuner
from edgewright_converters.fine_tuning.training import TrainingLimits
from edgewright_converters.fine_tuning.training_data import share_out
from edgewright_converters.observation import observe
from edgewright_converters.quantise.activation_range import ActivationRange, choose_ranges
from edgewright_converters.quantise.decision import Decision, as_onnx

RNG = np.random.default_rng(5)
INPUTS: Array = RNG.standard_normal((400, 12)).astype(np.float32)


@pytest.fixture(scope="module")
def one() -> Prepared:
    torch.manual_seed(2)
    net = nn.Sequential(nn.Linear(12, 24), nn.Hardswish(), nn.Linear(24, 5))
    return prepare(net, (12,), 64)


def decided(one: Prepared, narrower: float = 1.0) -> Decision:
    """Minimum and maximum; or hidden activations cut off at a share of them, as no calibration would."""
    graph = one.graphs.graph
    assert graph is not None
    samples = [graph.feed(sample.inputs) for sample in one.samples]
    ranges = choose_ranges(observe(Execution(graph), samples, "data"), {})
    inside = {n for n in graph.quantised_tensors if n not in graph.output_names and n in graph.producers}

    def cut(name: str, found: ActivationRange) -> ActivationRange:
        factor = narrower if name in inside else 1.0
        return replace(found, low=factor * found.low, high=factor * found.high)

    return Decision(graph, {name: cut(name, found) for name, found in ranges.items()})


def tuner(one: Prepared, samples: SampleSet, limits: TrainingLimits, scores: str | None = "output") -> Tuner:
    graph = one.graphs.graph
    assert graph is not None
    return Tuner(
        graph,
        share_out(samples),
        one.source.run,
        lambda decision: [as_onnx(decision, "uint8")],
        scores,
        limits,
    )


def samples(one: Prepared, labels: Callable[[Array], Array] | None = None) -> SampleSet:
    data = {"x": INPUTS}
    if labels is not None:
        data["y"] = labels(one.source.run({one.source.input_names[0]: INPUTS})["output"].argmax(1))
    return load_samples(data, one.source.input_names)


LIMITS = TrainingLimits(steps=60, batch=32)


@pytest.mark.slow
@pytest.mark.parametrize("labels", [None, lambda classes: classes], ids=["distilled", "labels too"])
def test_what_helps_on_samples_held_out_is_kept(
    one: Prepared, labels: Callable[[Array], Array] | None
) -> None:
    tuned = tuner(one, samples(one, labels), LIMITS)(decided(one, 0.25))
    assert tuned.kept and tuned.decision is not None
    assert (
        "300 samples" in tuned.says
        and "60 steps" in tuned.says
        and "100 training samples held out" in tuned.says
    )
    assert ("accuracy" if labels else "agreement with float") in tuned.says
    assert ("labels and the float model" if labels else "(float model") in tuned.says


@pytest.mark.slow
def test_what_does_not_help_is_dropped_and_said_so(one: Prepared) -> None:
    wild = TrainingLimits(steps=8, batch=32, learning_rate=1.0)
    tuned = tuner(one, samples(one), wild)(decided(one))
    assert not tuned.kept and "not kept" in tuned.says


@pytest.mark.slow
def test_model_that_is_no_classifier_learns_its_outputs(one: Prepared) -> None:
    tuned = tuner(one, samples(one), LIMITS, None)(decided(one, 0.25))
    assert tuned.kept and "accuracy" not in tuned.says and "agreement" not in tuned.says


@pytest.mark.slow
def test_same_seed_gives_the_same_weights_and_another_seed_others(one: Prepared) -> None:
    def weights(seed: int) -> dict[str, Array]:
        tuned = tuner(one, samples(one), replace(LIMITS, steps=5, seed=seed))(decided(one))
        assert tuned.decision is not None
        return dict(tuned.decision.graph.weights)

    first, again, other = weights(0), weights(0), weights(1)
    assert all(np.array_equal(first[name], again[name]) for name in first)
    assert any(not np.array_equal(first[name], other[name]) for name in first)


@pytest.mark.slow
def test_time_ends_training_before_its_steps_do(one: Prepared) -> None:
    told: list[tuple[int, int, float, float]] = []
    short = TrainingLimits(seconds=2.5, steps=1_000_000, batch=32)
    made = replace(tuner(one, samples(one), short), on_progress=lambda *progress: told.append(progress))(
        decided(one)
    )
    assert made.decision is not None and "1000000 steps" not in made.says
    assert told and all(0 <= left <= 2.5 and steps == 1_000_000 for _, steps, _, left in told)


@pytest.mark.slow
def test_loss_that_is_no_number_ends_it_with_a_word(one: Prepared) -> None:
    endless = TrainingLimits(steps=200, batch=32, learning_rate=1e30)
    tuned = tuner(one, samples(one), endless)(decided(one))
    assert tuned.decision is None and not tuned.kept and "given up: the loss is" in tuned.says


@pytest.mark.slow
def test_graph_without_gradients_is_left_out_with_the_operator(one: Prepared) -> None:
    class Rounds(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.round(x) * 0.5

    other = prepare(Rounds(), (12,), 16)
    tuned = tuner(other, samples(other), LIMITS)(decided(other))
    assert tuned.decision is None and "left out: operator Round" in tuned.says
