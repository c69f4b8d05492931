"""Which precision an artifact gets: static INT8, unless another one is faster or the only one near enough.

INT8 that is slower than float is the commonest complaint about converters, found after deployment. So what was
quantised is timed against float in the target's runtime, and where it loses, the alternatives and float itself
are tried too; the fastest that is near enough to float and within the budget of bytes is taken, with the reason.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from edgewright.artifact.manifest import Precision
from edgewright.errors import ConversionError
from edgewright_converters.export import ExportedGraph
from edgewright_converters.quantise import QuantisedModel, quantise_as
from edgewright_converters.trial import Goal, Trial

STRUCTURAL = 0.67
"""Under this share of float's speed on a host of another architecture than the device's, INT8 is given up: kernels
of another processor do not make up for operators that have none."""
WORTH = 1.03
"""Another precision must be this much faster: smaller differences are those between two runs."""


@dataclass(frozen=True)
class Choice:
    """The model to go on with, and in one line why it is not static INT8; None where it is."""

    model: QuantisedModel
    reason: str | None
    tried: tuple[Trial, ...]


def choose(
    static: QuantisedModel,
    graph: ExportedGraph,
    others: Sequence[Precision],
    attempt: Callable[[QuantisedModel], Trial],
    goal: Goal,
    *,
    same_architecture: bool,
    budget_bytes: int | None,
) -> Choice:
    """Keep `static` where it is fast and near enough, else the fastest candidate that is near enough and fits."""
    trial = attempt(static)
    slow = trial.speedup < (1.0 if same_architecture else STRUCTURAL)
    missed = goal.clearly_missed(trial)
    if not slow and not missed:
        return Choice(static, None, (trial,))
    candidates = {static.precision: (static, trial)}
    for precision in (*others, "float32"):
        try:
            made = quantise_as(graph, precision)
            candidates[made.precision] = (made, attempt(made))
        except ConversionError:
            continue  # an alternative that this graph does not have is none
    fits = [
        (model, tried)
        for model, tried in candidates.values()
        if not goal.clearly_missed(tried) and (budget_bytes is None or len(model.data) <= budget_bytes)
    ]
    tried_all = tuple(tried for _, tried in candidates.values())
    if not fits:
        return Choice(static, None, tried_all)
    best, quickest = max(fits, key=lambda pair: pair[1].speedup)
    if best.precision == static.precision or (not missed and quickest.speedup < trial.speedup * WORTH):
        return Choice(static, None, tried_all)
    why = [f"INT8 has {trial.speedup:.2f} times float's speed on this host"] if slow else []
    if missed:
        why.append(f"INT8 is too far from float ({trial.sqnr_db:.1f} dB)")
    return Choice(
        best,
        f"{' and '.join(why)}; {best.precision} has {quickest.speedup:.2f} times its speed",
        tried_all,
    )
