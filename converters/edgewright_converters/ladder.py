"""The ladder of quantisation: repairs from the cheapest to the dearest, until the goal is met.

Each rung changes the `Decision`, is tried as the target executes it, and is kept only if it helped. Rungs that
cost nothing to run are climbed for every model that has not met the goal; leaving layers in float costs time on
the device, and is tried only where the goal is clearly missed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from numpy.typing import NDArray

from edgewright_converters.execution import Execution
from edgewright_converters.float_graph import FloatGraph
from edgewright_converters.layer_cost import LayerCosts
from edgewright_converters.observation import TensorStatistics, histograms, observe
from edgewright_converters.quantise.activation_range import ActivationRange, choose_ranges
from edgewright_converters.quantise.bias_absorption import absorb_high_biases
from edgewright_converters.quantise.bias_correction import corrected
from edgewright_converters.quantise.decision import Decision
from edgewright_converters.quantise.equalise import equalise
from edgewright_converters.quantise.reconstruction import reconstructed
from edgewright_converters.quantise.sensitivity import damage, most_for_least
from edgewright_converters.quantise.sweep import Repair, sweep, sweep_samples
from edgewright_converters.trial import Goal, Trial

Array = NDArray[Any]
Effort = Literal["quick", "standard", "thorough"]
SECONDS: Mapping[Effort, float] = {"quick": 15.0, "standard": 60.0, "thorough": 900.0}
"""When a ladder starts no further rung; a rung that has begun is finished."""
CALIBRATION_SAMPLES: Mapping[Effort, int] = {"quick": 64, "standard": 256, "thorough": 2048}
HARM_DB = 0.5
"""A rung may lose this much by itself and still be kept for what later rungs make of it."""

WORTH_DB = 3.0
"""What equalisation must gain. It leaves every channel without headroom, so that data unlike the calibration data
is clipped: on other photos it cost EfficientNet-Lite0 6 dB, while it gained 0.3 dB on the calibration photos."""


@dataclass(frozen=True)
class Rung:
    """One step: its name, what it does in words, what it costs, and the least effort that climbs it."""

    name: str
    what: str
    cost: str
    effort: Effort
    costs_run_time: bool = False


MIN_MAX = Rung(
    "min-max", "per-channel weights, activations over their true minimum and maximum", "1 pass", "quick"
)
RANGES = Rung(
    "ranges",
    "for each tensor the range (min-max, percentile, MSE, entropy) that leaves the least error",
    "1 pass",
    "quick",
)
EQUALISATION = Rung(
    "equalisation",
    "channels rescaled between layers so that each uses its whole range; high biases absorbed",
    "2 passes",
    "quick",
)
CORRECTION = Rung(
    "bias correction", "the mean and the slope that rounding gave each channel taken out", "1 sweep", "quick"
)
RECONSTRUCTION = Rung(
    "reconstruction",
    "weights fitted and rounded so that each layer gives float's outputs",
    "1 sweep and least squares",
    "standard",
)
MIXED = Rung(
    "mixed precision",
    # Not at 16 bits: no layer is faster so than in float, in either runtime (benchmarks/sixteen_bit.py).
    "the layers whose rounding damages the output most left in float (16-bit activations are slower in both "
    "runtimes; TensorRT takes float16), as few as meet the goal by their time",
    "1 sensitivity pass, some trials",
    "standard",
    costs_run_time=True,
)
RUNGS = (MIN_MAX, RANGES, EQUALISATION, CORRECTION, RECONSTRUCTION, MIXED)
_EFFORTS: tuple[Effort, ...] = ("quick", "standard", "thorough")


def climbed(effort: Effort) -> tuple[Rung, ...]:
    """The rungs that an effort may climb."""
    return tuple(r for r in RUNGS if _EFFORTS.index(r.effort) <= _EFFORTS.index(effort))


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


Try = Callable[[Decision], Trial]
"""Quantises a decision, runs it as the target does, and measures it."""


def climb(
    graph: FloatGraph,
    samples: Callable[[int], Iterable[Mapping[str, Array]]],
    count: int,
    attempt: Try,
    goal: Goal,
    effort: Effort,
    where: str,
    on_rung: Callable[[Rung], None],
    costs: Callable[[Decision], LayerCosts],
    *,
    symmetric: bool = False,
) -> Climb:
    """Climb until the goal is met, the effort is spent or the rungs are.

    `samples` gives so many calibration samples, by names in the graph, as often as it is called; `count` of
    them set the ranges. `attempt` judges, and `costs` says what a layer left in float takes. `symmetric` is
    for a target whose grids have nought in the middle. Raises `DataError` where the data drives a tensor to
    infinity.
    """
    started = time.perf_counter()
    allowed = climbed(effort)
    attempts: list[Attempt] = []
    counted: LayerCosts | None = None
    execution = Execution(graph)

    on_rung(MIN_MAX)
    statistics = observe(execution, samples(count), where)
    best = Decision(graph, _min_max(statistics), symmetric=symmetric)
    trial = attempt(best)
    attempts.append(Attempt(MIN_MAX.name, trial, True, time.perf_counter() - started))

    def done() -> bool:
        return goal.met(trial) or time.perf_counter() - started > SECONDS[effort]

    def judge(rung: Rung, candidate: Decision, begun: float, harm: float = 0.0) -> bool:
        nonlocal best, trial
        tried = attempt(candidate)
        kept = tried.sqnr_db >= trial.sqnr_db - harm
        attempts.append(Attempt(rung.name, tried, kept, time.perf_counter() - begun))
        if kept:
            best, trial = candidate, tried
        return kept

    if RANGES in allowed and not done():
        on_rung(RANGES)
        begun = time.perf_counter()
        chosen = choose_ranges(statistics, histograms(execution, samples(count), statistics))
        judge(RANGES, replace(best, ranges=chosen), begun, HARM_DB)
    if EQUALISATION in allowed and not done():
        on_rung(EQUALISATION)
        begun = time.perf_counter()
        equalised = Execution(equalise(graph, statistics))
        again = observe(equalised, samples(count), where)
        absorbed = absorb_high_biases(equalised.graph, again)
        if absorbed is not equalised.graph:
            equalised = Execution(absorbed)
            again = observe(equalised, samples(count), where)
        chosen = choose_ranges(again, histograms(equalised, samples(count), again))
        if judge(EQUALISATION, Decision(equalised.graph, chosen, symmetric=symmetric), begun, -WORTH_DB):
            execution, statistics = equalised, again
    # A model that met the goal by now is not read once more.
    held = [] if done() else list(samples(sweep_samples(graph, count)))
    repairs: dict[Rung, Repair] = {CORRECTION: corrected, RECONSTRUCTION: reconstructed}
    used = None
    for rung, repair in repairs.items():
        if rung in allowed and not done():
            on_rung(rung)
            begun = time.perf_counter()
            swept = sweep(execution, best.bounds(), held, repair)
            candidate = replace(best, graph=swept.graph, noise_db=swept.noise_db)
            used = repair if judge(rung, candidate, begun) else used
    if MIXED in allowed and goal.clearly_missed(trial) and time.perf_counter() - started < SECONDS[effort]:
        on_rung(MIXED)
        begun = time.perf_counter()
        found = damage(execution, best.bounds(), held[:8])
        counted = costs(best)
        order = most_for_least(found, counted.seconds)

        def in_float(layers: Sequence[str]) -> Decision:
            kept = frozenset(layers)
            swept = sweep(execution, best.bounds(), held, used or corrected, kept)
            return replace(best, graph=swept.graph, in_float=kept, noise_db=swept.noise_db)

        number, too_few = 1, 0
        while number < len(order):
            judge(MIXED, in_float(order[:number]), begun)
            if done():
                break
            number, too_few = number * 2, number
            begun = time.perf_counter()
        # The fewest that meet the goal lie between the last two numbers tried.
        while goal.met(trial) and number - too_few > 1 and time.perf_counter() - started < SECONDS[effort]:
            begun, middle = time.perf_counter(), (number + too_few) // 2
            candidate = in_float(order[:middle])
            tried = attempt(candidate)
            enough = goal.met(tried)
            attempts.append(Attempt(MIXED.name, tried, enough, time.perf_counter() - begun))
            if enough:
                best, trial, number = candidate, tried, middle
            else:
                too_few = middle
    return Climb(best, tuple(attempts), goal.met(trial), statistics, execution.graph, counted)


def _min_max(statistics: Mapping[str, TensorStatistics]) -> dict[str, ActivationRange]:
    return choose_ranges(statistics, {})
