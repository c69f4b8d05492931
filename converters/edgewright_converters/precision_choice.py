"""Which precision an artifact gets: static INT8, unless another one is faster or the only one near enough.

INT8 that is slower than float is the commonest complaint about converters, found after deployment; INT8 in name
alone is the second. So what was quantised is timed against float in the target's runtime, and where it loses, or
most of it is left in float, or its file is over the budget, the alternatives and float itself are tried too; the
fastest that is near enough to float and within the budget of bytes is taken, with the reason.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from edgewright.artifact.manifest import Precision
from edgewright.errors import ConversionError
from edgewright.figures import size
from edgewright_converters.export import ExportedGraph
from edgewright_converters.quantise import QuantisedModel, quantise_as
from edgewright_converters.trial import Goal, Trial

STRUCTURAL = 0.67
"""Under this share of float's speed on a host of another architecture than the device's, INT8 is given up: kernels
of another processor do not make up for operators that have none."""
HOLLOW = 0.5
"""Static INT8 that computes less than this share of its multiply-accumulates in integers is INT8 in name alone:
ONNX Runtime has no static kernel for a recurrent layer, and leaves it in float without a word."""
LEAST_SPEED = {True: 1.0, False: STRUCTURAL}
"""Of float's on this host, by whether it is of the device's architecture: what has less is given up."""
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
    variants: Mapping[str, Callable[[], QuantisedModel]],
    graph: ExportedGraph,
    others: Sequence[Precision],
    attempt: Callable[[QuantisedModel], Trial],
    goal: Goal,
    *,
    same_architecture: bool,
    here: bool = True,
    budget_bytes: int | None,
    integer_share: float | None = None,
) -> Choice:
    """Keep `static` where it is fast, near and small enough, else the fastest candidate near enough that fits.

    `variants` are other ways of static INT8, by what they are; `others` precisions that need no calibration. What
    is not `here`, as an accelerator, is not judged by the time on this host. `integer_share` is the part of the
    multiply-accumulates that `static` computes in integers, None where it has none.
    """
    trial = attempt(static)
    slow = here and trial.speedup < LEAST_SPEED[same_architecture]
    missed = goal.clearly_missed(trial)
    hollow = here and integer_share is not None and integer_share < HOLLOW
    large = budget_bytes is not None and len(static.data) > budget_bytes
    if not (slow or missed or hollow or large):
        return Choice(static, None, (trial,))
    candidates = {"INT8": (static, trial)}
    precisions: tuple[Precision, ...] = (*others, "float32")
    makers = {} if hollow else dict(variants)  # they leave more in float, not less
    makers.update({name: partial(quantise_as, graph, name) for name in precisions})
    for name, make in makers.items():
        try:
            made = make()
            candidates[name] = (made, attempt(made))
        except ConversionError:
            continue  # an alternative that this graph does not have is none
    fits = [
        (name, model, tried)
        for name, (model, tried) in candidates.items()
        if not goal.clearly_missed(tried)
        and (budget_bytes is None or len(model.data) <= budget_bytes)
        and not (hollow and model is static)
    ]
    tried_all = tuple(tried for _, tried in candidates.values())
    if not fits:
        return Choice(static, None, tried_all)
    # Elsewhere the order in which they are offered has to do.
    chosen, best, quickest = max(fits, key=lambda candidate: candidate[2].speedup) if here else fits[0]
    if hollow:
        # Float is the measure now: of what is as fast, the smallest file is worth most.
        level = [fit for fit in fits if fit[2].speedup * WORTH >= quickest.speedup]
        chosen, best, quickest = min(level, key=lambda candidate: len(candidate[1].data))
    elif best is static or (not missed and not large and quickest.speedup < trial.speedup * WORTH):
        return Choice(static, None, tried_all)
    why = [f"INT8 has {trial.speedup:.2f} times float's speed on this host"] if slow else []
    if hollow:
        why.append(f"static INT8 would run {integer_share:.1%} of the multiply-accumulates in INT8")
    if missed:
        why.append(f"INT8 is too far from float ({trial.sqnr_db:.1f} dB)")
    if large:
        why.append(f"INT8 takes {size(len(static.data))}, over the budget")
    whose = "its" if slow else "float's"
    speed = (
        f"has {quickest.speedup:.2f} times {whose} speed"
        if here
        else "is taken, whose speed there is not known"
    )
    return Choice(best, f"{' and '.join(why)}; {chosen} {speed}", tried_all)
