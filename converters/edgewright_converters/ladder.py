"""The ladder of quantisation: repairs from the cheapest to the dearest, until the goal is met.

Each of the `rungs` changes the `Decision`, is tried as the target executes it, on samples that it was not fitted
on (`held_out`), and is kept only if it helped. Rungs that cost nothing to run are climbed until there is more
than the goal asks for; those that take minutes, until it is met; leaving layers in float costs time on the
device, and is tried only where the goal is clearly missed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from edgewright_converters.ascent import Ascent, Attempt, Base, Fit, Make, Try
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
    Effort,
    Rung,
)
from edgewright_converters.trial import Goal, Trial

WORTH_DB = 3.0
"""What equalisation must gain. It leaves every channel without headroom, so that data unlike the calibration data
is clipped: on other photos it cost EfficientNet-Lite0 6 dB, while it gained 0.3 dB on the calibration photos."""

SENSITIVITY_SAMPLES = 8
ADAPTIVE_SHARE = 0.8
"""Of the damage done by all layers: those that do so much of it together are rounded adaptively."""


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

    `attempt` judges what was fitted on each of `fits`. Minimum and maximum are those of all samples: a range is to
    hold whatever was seen. `costs` says what a layer left in float takes. `symmetric` is for a target whose grids
    have nought in the middle; `tuner` takes time beside the effort. INT8 that has less than `fast_enough` of
    float's speed will not go out whole, and so what is judged is INT8 of its layers alone, where that is faster.
    Raises `DataError` where the data drives a tensor to infinity.
    """
    started = time.perf_counter()
    on_rung(MIN_MAX)
    execution = Execution(graph)
    statistics = observe(execution, samples.samples(samples.count), where)
    first = Decision(graph, choose_ranges(statistics, {}), symmetric=symmetric)
    base = Base(first, [first] * len(fits))
    trial = attempt(base.fitted)
    ascent = Ascent(
        samples, fits, attempt, goal, effort, on_rung, execution, statistics, base, trial, started,
        [Attempt(MIN_MAX.name, trial, True, time.perf_counter() - started)],
    )  # fmt: skip

    _layers_alone(ascent, fast_enough)
    _ranges(ascent)
    _equalisation(ascent, where)
    _spare_channels(ascent)
    repair = _repairs(ascent)
    harm = _adaptive_rounding(ascent)
    untrained = ascent.best
    notes = _fine_tuning(ascent, tuner) if tuner is not None else ()
    counted = None
    if ascent.allows(MIXED) and goal.clearly_missed(ascent.trial) and not ascent.spent():
        ascent.begin(MIXED)
        counted = costs(ascent.best.whole)
        _leave_in_float(ascent, ascent.best, counted, repair, harm, ascent.better)
        if ascent.best.whole.trained and not ascent.done():
            # Training data is to cost nobody what mixed precision reaches without it.
            _leave_in_float(ascent, untrained, counted, repair, harm, goal.met)
            if not ascent.best.whole.trained:
                notes += ("mixed precision meets the goal without it, so its weights are not used",)
    return Climb(
        ascent.best.whole,
        tuple(ascent.attempts),
        goal.met(ascent.trial),
        ascent.statistics,
        ascent.execution.graph,
        counted,
        notes,
    )


def _layers_alone(ascent: Ascent, fast_enough: float) -> None:
    if not ascent.allows(LAYERS) or ascent.trial.speedup >= fast_enough or ascent.ample():
        return
    ascent.begin(LAYERS)
    before = ascent.trial.speedup
    ascent.judge(
        LAYERS,
        lambda _fit, decision: replace(decision, layers_only=True),
        lambda tried: tried.speedup > before,
    )


def _ranges(ascent: Ascent) -> None:
    if ascent.allows(RANGES) and not ascent.ample():
        ascent.begin(RANGES)
        ascent.judge(RANGES, partial(_with_ranges, ascent.execution, ascent.statistics))


def _with_ranges(
    execution: Execution, statistics: Mapping[str, TensorStatistics], fit: Fit, decision: Decision
) -> Decision:
    """The graph of `execution`, unrepaired, with ranges chosen anew."""
    counts = histograms(execution, fit.samples(fit.count), statistics)
    return replace(decision, graph=execution.graph, ranges=choose_ranges(statistics, counts))


def _equalisation(ascent: Ascent, where: str) -> None:
    if not ascent.allows(EQUALISATION) or ascent.ample():
        return
    ascent.begin(EQUALISATION)
    samples = ascent.samples
    execution = Execution(equalise(ascent.execution.graph, ascent.statistics))
    statistics = observe(execution, samples.samples(samples.count), where)
    absorbed = absorb_high_biases(execution.graph, statistics)
    if absorbed is not execution.graph:
        execution = Execution(absorbed)
        statistics = observe(execution, samples.samples(samples.count), where)
    worth_it = partial(ascent.better, worth_db=WORTH_DB)
    if ascent.judge(EQUALISATION, partial(_with_ranges, execution, statistics), worth_it):
        ascent.execution, ascent.statistics = execution, statistics


def _spare_channels(ascent: Ascent) -> None:
    """The same function, so no rung of its own: what it brings shows once the repairs have centred the errors."""
    if ascent.goal.met(ascent.trial):
        return
    best, graph = ascent.best, ascent.execution.graph
    spread = spread_over_dead(graph, ascent.statistics, best.whole.stored())
    if spread is not graph:
        ascent.execution = Execution(spread)
        ascent.best = Base(
            replace(best.whole, graph=spread), [replace(one, graph=spread) for one in best.fitted]
        )


def _repairs(ascent: Ascent) -> Repair:
    """Return the dearest that was kept, for whoever repairs again; bias correction where none was."""
    used: Repair = corrected
    repairs: dict[Rung, Repair] = {CORRECTION: corrected, RECONSTRUCTION: reconstructed}
    for rung, repair in repairs.items():
        if ascent.allows(rung) and not ascent.ample():
            ascent.begin(rung)
            if ascent.judge(rung, partial(_swept, ascent.execution, repair, frozenset())):
                used = repair
    return used


def _swept(
    execution: Execution, repair: Repair, in_float: frozenset[str], fit: Fit, decision: Decision
) -> Decision:
    held = fit.samples(sweep_samples(execution.graph, fit.count))
    found = sweep(execution, decision.stored(), held, repair, in_float)
    return replace(decision, graph=found.graph, in_float=in_float)


def _adaptive_rounding(ascent: Ascent) -> Mapping[str, float]:
    """Return the harm that each layer did, where it was measured."""
    if not ascent.allows(ADAPTIVE) or ascent.done():
        return {}
    ascent.begin(ADAPTIVE)
    execution = ascent.execution
    harm = _harm(ascent, ascent.best.whole)
    wanted = frozenset(most_of(harm, ADAPTIVE_SHARE))

    def learnt(fit: Fit, decision: Decision) -> Decision:
        held = list(fit.samples(sweep_samples(execution.graph, fit.count)))
        limit = ascent.seconds_left() / 2
        found = adaptively_rounded(execution, decision.graph, decision.bounds(), held, wanted, limit)
        return replace(decision, graph=found)

    ascent.judge(ADAPTIVE, learnt)
    return harm


def _harm(ascent: Ascent, decision: Decision) -> dict[str, float]:
    """What rounding each layer does to the output."""
    held = list(ascent.samples.samples(SENSITIVITY_SAMPLES))
    if decision.trained:
        return relief(ascent.execution, decision.graph.weights, decision.bounds(), held)
    return damage(ascent.execution, decision.bounds(), held)


def _fine_tuning(ascent: Ascent, tuner: Tuner) -> tuple[str, ...]:
    """Return what came of it; its time is none of the effort's."""
    if not tuner.always and ascent.goal.met(ascent.trial):
        return ()
    ascent.begin(FINE_TUNING)
    begun = ascent.begun
    tuned = tuner(ascent.best.whole)
    if (learnt := tuned.decision) is not None:
        ascent.judge(FINE_TUNING, lambda _fit, _decision: learnt, lambda _trial: tuned.kept)
    ascent.started += time.perf_counter() - begun
    return (tuned.says,)


def _leave_in_float(
    ascent: Ascent,
    base: Base,
    costs: LayerCosts,
    repair: Repair,
    harm: Mapping[str, float],
    good: Callable[[Trial], bool],
) -> None:
    """Leave the layers of `base` that do most harm for their time in float: the fewest that meet the goal."""
    whole = base.whole
    order = most_for_least(_harm(ascent, whole) if whole.trained or not harm else harm, costs.seconds)

    def first(number: int) -> Make:
        in_float = frozenset(order[:number])
        if whole.trained:  # a sweep would start from the weights before
            return lambda _fit, decision: replace(decision, in_float=in_float)
        return partial(_swept, ascent.execution, repair, in_float)

    number, too_few = 1, 0
    while number < len(order):
        ascent.judge(MIXED, first(number), good, base)
        if ascent.done():
            break
        number, too_few = number * 2, number
    # The fewest lie between the last two numbers tried.
    while ascent.goal.met(ascent.trial) and number - too_few > 1 and not ascent.spent():
        middle = (number + too_few) // 2
        enough = ascent.judge(MIXED, first(middle), ascent.goal.met, base)
        number, too_few = (middle, too_few) if enough else (number, middle)
