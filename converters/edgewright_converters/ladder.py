"""The ladder of quantisation: repairs from the cheapest to the dearest, until the goal is met.

Each of the `rungs` changes the `Decision`, is tried as the target executes it, on samples that it was not fitted
on (`held_out`), and is kept only if it helped. Rungs that cost nothing to run are climbed until there is more
than the goal asks for; those that take minutes, until it is met; leaving layers in float costs time on the
device, and is tried only where the goal is clearly missed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from numpy.typing import NDArray

from edgewright_converters.execution import Execution
from edgewright_converters.fine_tuning.rung import Tuner
from edgewright_converters.float_graph import FloatGraph
from edgewright_converters.layer_cost import LayerCosts
from edgewright_converters.observation import TensorStatistics, histograms, observe
from edgewright_converters.quantise.activation_range import choose_ranges
from edgewright_converters.quantise.adaptive_rounding import adaptively_rounded
from edgewright_converters.quantise.bias_absorption import absorb_high_biases
from edgewright_converters.quantise.bias_correction import corrected
from edgewright_converters.quantise.decision import Decision
from edgewright_converters.quantise.equalise import equalise
from edgewright_converters.quantise.reconstruction import reconstructed
from edgewright_converters.quantise.sensitivity import damage, most_for_least, most_of, relief
from edgewright_converters.quantise.spare_channels import spread_over_dead
from edgewright_converters.quantise.sweep import Repair, sweep, sweep_samples
from edgewright_converters.rungs import (
    ADAPTIVE,
    CORRECTION,
    EQUALISATION,
    FINE_TUNING,
    LAYERS,
    MIN_MAX,
    MIXED,
    RANGES,
    RECONSTRUCTION,
    SECONDS,
    Effort,
    Rung,
    climbed,
)
from edgewright_converters.trial import Goal, Trial

Array = NDArray[Any]
WORTH_DB = 3.0
"""What equalisation must gain. It leaves every channel without headroom, so that data unlike the calibration data
is clipped: on other photos it cost EfficientNet-Lite0 6 dB, while it gained 0.3 dB on the calibration photos."""

SENSITIVITY_SAMPLES = 8
ADAPTIVE_SHARE = 0.8
"""Of the damage done by all layers: those that do so much of it together are rounded adaptively."""


@dataclass(frozen=True)
class Attempt:
    """A rung that was tried: what the target made of it, whether it was kept, and the seconds it took."""

    rung: str
    trial: Trial
    kept: bool
    seconds: float


@dataclass(frozen=True)
class Climb:
    """The decision at the end, every attempt in order, and whether the goal was met."""

    decision: Decision
    attempts: tuple[Attempt, ...]
    met: bool
    statistics: Mapping[str, TensorStatistics]
    reference: FloatGraph
    """What `decision` repairs: equalised where that was kept, its weights unrounded as float has them."""
    costs: LayerCosts | None = None
    """What each layer costs in float, where mixed precision was tried."""
    notes: tuple[str, ...] = ()
    """What came of the training data, where there was some."""


@dataclass(frozen=True)
class Fit:
    """Samples that a decision is fitted on: so many of them, by names in the graph, as often as it is called."""

    samples: Callable[[int], Iterable[Mapping[str, Array]]]
    count: int


Try = Callable[[Sequence[Decision]], Trial]
"""Quantises the decisions, one for each fit, runs each as the target does on samples that its fit does not hold,
and measures what they come to together."""
Make = Callable[[Fit, Decision], Decision]
"""What a rung makes of a decision, fitted on samples."""


def climb(
    graph: FloatGraph,
    samples: Fit,
    fits: Sequence[Fit],
    attempt: Try,
    goal: Goal,
    effort: Effort,
    where: str,
    on_rung: Callable[[Rung], None],
    costs: Callable[[Decision], LayerCosts],
    *,
    symmetric: bool = False,
    tuner: Tuner | None = None,
    fast_enough: float = 0.0,
) -> Climb:
    """Climb until the goal is met, the effort is spent or the rungs are.

    `attempt` judges what was fitted on each of `fits`. Where there are several, what a kept rung makes of all
    `samples` is the decision. Minimum and maximum are those of all samples: a range is to hold whatever was seen.
    `costs` says what a layer left in float takes. `symmetric` is for a target whose grids have nought in the
    middle; `tuner` takes time beside the effort. INT8 that has less than `fast_enough` of float's speed will not
    go out whole, and so what is judged is INT8 of its layers alone, where that is faster. Raises `DataError` where
    the data drives a tensor to infinity.
    """
    started = time.perf_counter()
    allowed = climbed(effort)
    attempts: list[Attempt] = []
    counted: LayerCosts | None = None
    execution = Execution(graph)

    on_rung(MIN_MAX)
    statistics = observe(execution, samples.samples(samples.count), where)
    best = Decision(graph, choose_ranges(statistics, {}), symmetric=symmetric)
    fitted = [best] * len(fits)
    trial = attempt(fitted)
    attempts.append(Attempt(MIN_MAX.name, trial, True, time.perf_counter() - started))

    def spent() -> bool:
        return time.perf_counter() - started > SECONDS[effort]

    def done() -> bool:
        return goal.met(trial) or spent()

    def ample() -> bool:
        return goal.ample(trial) or spent()

    def better(tried: Trial, worth: float = 0.0) -> bool:
        return tried.sqnr_db >= trial.sqnr_db + worth

    def judge(
        rung: Rung,
        make: Make,
        begun: float,
        good: Callable[[Trial], bool] = better,
        base: tuple[Decision, Sequence[Decision]] | None = None,
    ) -> bool:
        nonlocal best, fitted, trial
        whole, parts = base or (best, fitted)
        candidates = [make(fit, decision) for fit, decision in zip(fits, parts, strict=True)]
        tried = attempt(candidates)
        kept = good(tried)
        if kept:
            best = candidates[0] if len(fits) == 1 else make(samples, whole)
            fitted, trial = candidates, tried
        attempts.append(Attempt(rung.name, tried, kept, time.perf_counter() - begun))
        return kept

    if LAYERS in allowed and trial.speedup < fast_enough and not ample():
        on_rung(LAYERS)
        begun, whole = time.perf_counter(), trial

        def faster(tried: Trial) -> bool:
            return tried.speedup > whole.speedup

        judge(LAYERS, lambda _fit, decision: replace(decision, layers_only=True), begun, faster)
    if RANGES in allowed and not ample():
        on_rung(RANGES)
        judge(RANGES, partial(_with_ranges, execution, statistics), time.perf_counter())
    if EQUALISATION in allowed and not ample():
        on_rung(EQUALISATION)
        begun = time.perf_counter()
        equalised = Execution(equalise(graph, statistics))
        again = observe(equalised, samples.samples(samples.count), where)
        absorbed = absorb_high_biases(equalised.graph, again)
        if absorbed is not equalised.graph:
            equalised = Execution(absorbed)
            again = observe(equalised, samples.samples(samples.count), where)
        worth_it = partial(better, worth=WORTH_DB)
        if judge(EQUALISATION, partial(_with_ranges, equalised, again), begun, worth_it):
            execution, statistics = equalised, again
    if not goal.met(trial):
        # The same function, so no rung of its own: what it brings shows once the repairs have centred the errors.
        spread = spread_over_dead(execution.graph, statistics, best.stored())
        if spread is not execution.graph:
            execution = Execution(spread)
            best = replace(best, graph=spread)
            fitted = [replace(one, graph=spread) for one in fitted]

    def swept(repair: Repair, in_float: frozenset[str], fit: Fit, decision: Decision) -> Decision:
        held = fit.samples(sweep_samples(graph, fit.count))
        found = sweep(execution, decision.stored(), held, repair, in_float)
        return replace(decision, graph=found.graph, in_float=in_float)

    repairs: dict[Rung, Repair] = {CORRECTION: corrected, RECONSTRUCTION: reconstructed}
    used = None
    for rung, repair in repairs.items():
        if rung in allowed and not ample():
            on_rung(rung)
            begun = time.perf_counter()
            used = repair if judge(rung, partial(swept, repair, frozenset()), begun) else used
    harm: dict[str, float] = {}

    def hurting(decision: Decision) -> dict[str, float]:
        held = list(samples.samples(SENSITIVITY_SAMPLES))
        if decision.trained:
            return relief(execution, decision.graph.weights, decision.bounds(), held)
        return harm or damage(execution, decision.bounds(), held)

    if ADAPTIVE in allowed and not done():
        on_rung(ADAPTIVE)
        begun = time.perf_counter()
        harm = hurting(best)
        wanted = frozenset(most_of(harm, ADAPTIVE_SHARE))

        def learnt(fit: Fit, decision: Decision) -> Decision:
            held = list(fit.samples(sweep_samples(graph, fit.count)))
            limit = (SECONDS[effort] - (time.perf_counter() - started)) / 2
            found = adaptively_rounded(execution, decision.graph, decision.bounds(), held, wanted, limit)
            return replace(decision, graph=found)

        judge(ADAPTIVE, learnt, begun)
    notes: tuple[str, ...] = ()
    untrained = best, fitted
    if tuner is not None and (tuner.always or not goal.met(trial)):
        on_rung(FINE_TUNING)
        begun = time.perf_counter()
        tuned = tuner(best)
        notes = (tuned.says,)
        if (learnt_all := tuned.decision) is not None:
            judge(FINE_TUNING, lambda _fit, _decision: learnt_all, begun, lambda _trial: tuned.kept)
        started += time.perf_counter() - begun

    def left(in_float: frozenset[str], fit: Fit, decision: Decision) -> Decision:
        if decision.trained:  # a sweep would start from the weights before
            return replace(decision, in_float=in_float)
        return swept(used or corrected, in_float, fit, decision)

    def leave_in_float(
        base: tuple[Decision, Sequence[Decision]], seconds: Mapping[str, float], good: Callable[[Trial], bool]
    ) -> None:
        begun = time.perf_counter()
        order = most_for_least(hurting(base[0]), seconds)

        def first(number: int) -> Make:
            return partial(left, frozenset(order[:number]))

        number, too_few = 1, 0
        while number < len(order):
            judge(MIXED, first(number), begun, good, base)
            if done():
                break
            number, too_few = number * 2, number
            begun = time.perf_counter()
        # The fewest that meet the goal lie between the last two numbers tried.
        while goal.met(trial) and number - too_few > 1 and not spent():
            middle = (number + too_few) // 2
            enough = judge(MIXED, first(middle), time.perf_counter(), goal.met, base)
            number, too_few = (middle, too_few) if enough else (number, middle)

    if MIXED in allowed and goal.clearly_missed(trial) and not spent():
        on_rung(MIXED)
        counted = costs(best)
        leave_in_float((best, fitted), counted.seconds, better)
        if best.trained and not done():
            # Training data is to cost nobody what mixed precision reaches without it.
            leave_in_float(untrained, counted.seconds, goal.met)
            if not best.trained:
                notes += ("mixed precision meets the goal without it, so its weights are not used",)
    return Climb(best, tuple(attempts), goal.met(trial), statistics, execution.graph, counted, notes)


def _with_ranges(
    execution: Execution, statistics: Mapping[str, TensorStatistics], fit: Fit, decision: Decision
) -> Decision:
    """The graph of `execution`, unrepaired, with ranges chosen anew."""
    counts = histograms(execution, fit.samples(fit.count), statistics)
    return replace(decision, graph=execution.graph, ranges=choose_ranges(statistics, counts))
