from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import cast

import numpy as np
import pytest
import torch
from onnx_graphs import float_graph, node
from torch import nn
from torch.nn import functional
from torch_layers import Prepared, prepare

from edgewright.errors import ConversionError, DataError
from edgewright_converters.ascent import Fit
from edgewright_converters.calibration import SampleSet
from edgewright_converters.fine_tuning.rung import Tuned, Tuner
from edgewright_converters.float_graph import FloatGraph
from edgewright_converters.held_out import parts
from edgewright_converters.ladder import Climb, climb
from edgewright_converters.layer_cost import LayerCosts
from edgewright_converters.quantise.decision import Decision, as_onnx
from edgewright_converters.quantise.quantised_model import ActivationDtype, QuantisedModel
from edgewright_converters.rungs import ADAPTIVE, LAYERS, MIXED, RUNGS, Effort, Rung, climbed
from edgewright_converters.trial import Goal, Trial, Tryout

NAMES = [rung.name for rung in RUNGS]


class Hard(nn.Module):
    """A mobile network's block whose channels lie three orders of magnitude apart, as batch norm leaves them."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 16, 3, stride=2, padding=1), nn.ReLU(),
            nn.Conv2d(16, 16, 3, padding=1, groups=16), nn.ReLU(),
            nn.Conv2d(16, 24, 1), nn.ReLU(),
            nn.Conv2d(24, 24, 3, padding=1, groups=24), nn.ReLU(),
        )  # fmt: skip
        self.head = nn.Linear(24, 10)
        with torch.no_grad():
            for layer, after in ((self.body[0], self.body[2]), (self.body[4], self.body[6])):
                factors = torch.logspace(-3, 0, layer.out_channels)[torch.randperm(layer.out_channels)]
                layer.weight.mul_(factors[:, None, None, None])
                layer.bias.mul_(factors)
                after.weight.div_(factors[:, None, None, None])

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(image).mean((2, 3)))


class Coarse(nn.Module):
    """A dead channel with large weights on it: they set the scale, and all that matters is rounded away.

    Hard-swish stands between the layers, through which channels cannot be rescaled.
    """

    def __init__(self) -> None:
        super().__init__()
        self.first, self.coarse = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.last = nn.Conv2d(8, 8, 3, padding=1)
        with torch.no_grad():
            self.first.weight[0], self.first.bias[0] = 0.0, -4.0
            self.coarse.weight[:, 0] = 300.0

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        x = functional.hardswish(self.coarse(functional.hardswish(self.first(image))))
        return self.last(x)


@functools.cache
def model(kind: str) -> Prepared:
    torch.manual_seed(1)
    if kind == "easy":
        return prepare(nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 4)), (16,), 32)
    return prepare(Hard() if kind == "hard" else Coarse(), (3, 16, 16), 32)


@dataclass(frozen=True)
class ByHand:
    """In the place of a training: the decision that it is said to have come to."""

    learnt: Callable[[Decision], Decision]
    always: bool = True

    def __call__(self, decision: Decision) -> Tuned:
        return Tuned(replace(self.learnt(decision), trained=True), True, "fine-tuned by hand")


def climbing(
    kind: str,
    goal: Goal,
    effort: Effort = "standard",
    fast_enough: float = 0.0,
    tuner: ByHand | None = None,
) -> tuple[Climb, list[Rung], list[Decision]]:
    one = model(kind)
    graph = one.graphs.graph
    assert graph is not None
    split = parts(one.samples)
    tryout = Tryout.on(one.source.run, [part.judged for part in split])
    announced: list[Rung] = []
    tried: list[Decision] = []

    def attempt(decisions: Sequence[Decision]) -> Trial:
        assert len(decisions) == len(split)
        tried.append(decisions[0])
        return tryout.run([as_onnx(one, "uint8") for one in decisions], one.graphs.exported["onnx"])

    def fit(part: SampleSet) -> Fit:
        return Fit(lambda wanted: (graph.feed(sample.inputs) for sample in part.spread(wanted)), part.count)

    found = climb(
        graph,
        fit(one.samples),
        [fit(part.fitted) for part in split],
        attempt,
        goal,
        effort,
        one.samples.where,
        announced.append,
        lambda decision: LayerCosts({layer.name: 1e-3 for layer in decision.graph.layers}, "predicted"),
        tuner=cast("Tuner | None", tuner),
        fast_enough=fast_enough,
    )
    return found, announced, tried


def test_efforts_climb_more_and_more_and_what_costs_run_time_comes_last() -> None:
    efforts: tuple[Effort, ...] = ("quick", "standard", "thorough")
    quick, standard, thorough = (climbed(effort) for effort in efforts)
    assert set(quick) < set(standard) <= set(thorough)
    assert [rung.costs_run_time for rung in RUNGS] == [False] * (len(RUNGS) - 1) + [True]


@pytest.mark.slow
def test_easy_model_stays_on_the_first_rung() -> None:
    found, announced, tried = climbing("easy", Goal(50.0, 20.0))
    assert found.met and [attempt.rung for attempt in found.attempts] == [NAMES[0]]
    assert [rung.name for rung in announced] == [NAMES[0]] and len(tried) == 1
    assert found.decision.graph is model("easy").graphs.graph and not found.decision.in_float


@pytest.mark.slow
def test_hard_model_climbs_until_it_is_good_and_records_every_attempt() -> None:
    found, announced, tried = climbing("hard", Goal(100.0, 30.0))
    assert len(found.attempts) == len(tried) > 1
    order = [NAMES.index(attempt.rung) for attempt in found.attempts]
    assert order == sorted(order) and [NAMES.index(rung.name) for rung in announced] == sorted(set(order))
    kept = [attempt.trial.sqnr_db for attempt in found.attempts if attempt.kept]
    assert kept[-1] > kept[0] + 3
    assert all(later >= earlier for earlier, later in itertools.pairwise(kept))
    assert all(attempt.seconds > 0 for attempt in found.attempts)


@pytest.mark.slow
def test_what_is_too_slow_whole_is_judged_and_repaired_as_its_layers_alone() -> None:
    # Hard-swish in INT8 is what costs this one's time; no speed would be enough.
    found, announced, tried = climbing("coarse", Goal(0.0, 150.0), "quick", fast_enough=100.0)
    whole, layers = found.attempts[:2]
    assert announced[1] is LAYERS and layers.rung == LAYERS.name
    assert [decision.layers_only for decision in tried[:2]] == [False, True]
    assert layers.kept == (layers.trial.speedup > whole.trial.speedup)
    assert all(decision.layers_only == layers.kept for decision in (*tried[2:], found.decision))
    assert LAYERS not in climbing("coarse", Goal(0.0, 150.0), "quick")[1]


@pytest.mark.slow
def test_what_is_fitted_on_each_half_is_judged_on_the_other_and_deployed_from_all() -> None:
    found, _, tried = climbing("hard", Goal(0.0, 150.0), "quick")
    assert len(parts(model("hard").samples)) == 2
    kept = [attempt for attempt in found.attempts if attempt.kept]
    assert len(kept) > 1 and all(attempt.trial.samples == 32 for attempt in found.attempts)
    # Neither half's decision is the one that goes out: that has seen all samples.
    assert all(found.decision is not one for one in tried)


@pytest.mark.slow
def test_thorough_effort_rounds_adaptively_and_keeps_it_only_where_it_helps() -> None:
    found, announced, _ = climbing("hard", Goal(0.0, 150.0), "thorough")
    assert ADAPTIVE in announced
    scores = {attempt.rung: attempt for attempt in found.attempts}
    before = max(
        a.trial.sqnr_db for a in found.attempts if a.kept and a.rung not in (ADAPTIVE.name, MIXED.name)
    )
    assert scores[ADAPTIVE.name].kept == (scores[ADAPTIVE.name].trial.sqnr_db >= before)


@pytest.mark.slow
def test_no_layer_stays_in_float_for_a_goal_that_is_nearly_met() -> None:
    found, announced, _ = climbing("hard", Goal(100.0))
    # No classifier's miss: all changed classes are allowed, so that only the noise keeps the ladder going.
    assert MIXED not in announced and not found.decision.in_float


@pytest.mark.slow
def test_repair_that_the_target_does_not_take_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    made = as_onnx

    def refuses(decision: Decision, activation: ActivationDtype) -> QuantisedModel:
        if decision.layers_only:
            raise ConversionError("the runtime does not take it")
        return made(decision, activation)

    monkeypatch.setitem(climbing.__globals__, "as_onnx", refuses)
    found, announced, _ = climbing("coarse", Goal(0.0, 150.0), "quick", fast_enough=100.0)
    assert announced[1] is LAYERS and LAYERS.name not in {attempt.rung for attempt in found.attempts}
    assert len(found.attempts) > 2 and not found.decision.layers_only


@pytest.mark.slow
def test_layers_stay_in_float_where_nothing_else_helps() -> None:
    found, announced, tried = climbing("coarse", Goal(1.0))
    assert MIXED in announced
    mixed = [attempt for attempt in found.attempts if attempt.rung == MIXED.name]
    assert mixed and 0 < len(found.decision.in_float) < len(found.decision.graph.layers)
    others = [attempt.trial.sqnr_db for attempt in found.attempts if attempt.rung != MIXED.name]
    assert max(attempt.trial.sqnr_db for attempt in mixed) > max(others)
    assert found.costs is not None and found.costs.how == "predicted"
    sizes = [len(decision.in_float) for decision in tried if decision.in_float]
    assert sizes[0] == 1 and len(set(sizes)) == len(sizes)
    missed = [
        attempt.trial
        for attempt, size in zip(mixed, sizes, strict=True)
        if size < len(found.decision.in_float)
    ]
    assert not found.met or not any(Goal(1.0).met(trial) for trial in missed)


@pytest.mark.slow
def test_layers_left_in_float_after_fine_tuning_have_the_weights_that_were_learnt() -> None:
    """Learnt is here nothing: float's weights, which their rounding harms."""

    def learnt(decision: Decision) -> Decision:
        graph = model("coarse").graphs.graph
        assert graph is not None
        return replace(decision, graph=graph)

    found, _, tried = climbing("coarse", Goal(1.0), tuner=ByHand(learnt))
    assert found.met and found.decision.trained and found.notes == ("fine-tuned by hand",)
    trained = next(decision for decision in tried if decision.trained)
    assert found.decision == replace(trained, in_float=frozenset({trained.graph.layers[1].name}))


@pytest.mark.slow
def test_what_mixed_precision_reaches_without_fine_tuning_is_not_lost_to_it() -> None:
    """Kept is a training that is no better than what was before: its weights lie on their grids already, so that
    none of its layers gains by float."""
    found, _, _ = climbing("coarse", Goal(1.0), tuner=ByHand(lambda decision: decision))
    without, _, _ = climbing("coarse", Goal(1.0))
    assert found.met and not found.decision.trained
    assert found.decision.in_float == without.decision.in_float
    assert found.notes == (
        "fine-tuned by hand",
        "mixed precision meets the goal without it, so its weights are not used",
    )


@pytest.mark.slow
def test_quick_effort_fits_no_weights_and_leaves_no_layer_in_float() -> None:
    found, announced, _ = climbing("coarse", Goal(0.0, 150.0), "quick")
    assert not found.met and not found.decision.in_float
    assert {rung.effort for rung in announced} == {"quick"}


def test_data_that_drives_the_model_to_infinity_is_said_so() -> None:
    graph = float_graph([node("Exp", "x", "e"), node("Exp", "e", "y")], {"x": (1, 4)}, ["y"], {})

    def never(decisions: Sequence[Decision]) -> Trial:
        raise AssertionError(decisions)

    with pytest.raises(DataError, match="to infinity"):
        climb_on(graph, np.full((1, 4), 10, np.float32), never)


def climb_on(graph: FloatGraph, x: np.ndarray, attempt: object) -> None:
    one = Fit(lambda wanted: [{"x": x}], 1)
    climb(
        graph,
        one,
        [one],
        attempt,
        Goal(1.0),
        "quick",
        "data",
        lambda rung: None,
        lambda decision: LayerCosts({}, "predicted"),
    )  # type: ignore[arg-type]
