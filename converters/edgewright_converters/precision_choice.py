"""Which precision an artifact gets: static INT8, unless another one is faster or the only one near enough.

INT8 that is slower than float is the commonest complaint about converters, found after deployment; INT8 in name
alone is the second, INT8 that is larger the third. So what was quantised is timed against float in the target's
runtime, and where it loses, or most of it is left in float, or its file is hardly smaller or over the budget, the
alternatives and float itself are tried too; of those that are near enough to float, within the budget of bytes
and as fast as the fastest of them, the smallest is taken, with the reason.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from edgewright.artifact.manifest import Precision, computed_in
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
"""Another precision must be this much faster, or smaller: smaller differences are those between two runs."""
BULKY = 0.9
"""INT8 that takes more than this share of float's bytes saves none to speak of: TFLite unrolls a recurrent layer
into hundreds of operators with scales of their own."""
SIZE_WORTH = 1.05
"""How much of the speed of such INT8 a smaller file is worth: for its bytes, too, INT8 was asked for."""


@dataclass(frozen=True)
class Tried:
    """What one candidate for the precision came to, and whether it was taken."""

    name: str
    trial: Trial
    taken: bool


@dataclass(frozen=True)
class Choice:
    """The model to go on with, and in one line why it is not static INT8, or that this saves no bytes; None where
    there is nothing to say."""

    model: QuantisedModel
    reason: str | None
    tried: tuple[Tried, ...]


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
    """Keep `static` where it is fast, near and small enough, else take what is better and fits.

    `variants` are other ways of static INT8, by what they are; `others` precisions that need no calibration. What
    is not `here`, as an accelerator, is not judged by the time on this host. `integer_share` is the part of the
    multiply-accumulates that `static` computes in integers, None where it has none.
    """
    trial = attempt(static)
    slow = here and trial.speedup < LEAST_SPEED[same_architecture]
    missed = goal.clearly_missed(trial)
    hollow = here and integer_share is not None and integer_share < HOLLOW
    large = budget_bytes is not None and len(static.data) > budget_bytes
    bulky = here and len(static.data) > BULKY * len(graph.data)
    if not (slow or missed or hollow or large or bulky):
        return Choice(static, None, (Tried("INT8", trial, True),))
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
    fits = {
        name: (model, tried)
        for name, (model, tried) in candidates.items()
        if not goal.clearly_missed(tried)
        and (budget_bytes is None or len(model.data) <= budget_bytes)
        and not (hollow and model is static)
    }
    only_bulky = bulky and not (slow or missed or hollow or large)
    if only_bulky:
        # Where its speed against float there is not known, only what computes in INT8 too may stand in for it.
        fits = {
            name: (model, tried)
            for name, (model, tried) in fits.items()
            if model is static
            or (
                len(model.data) * WORTH <= len(static.data)
                and (same_architecture or computed_in(model.precision, graph.format) == "int8")
            )
        }
    # Where speeds are not known, the order in which they are offered has to do.
    chosen = _smallest_of_the_fast(fits, SIZE_WORTH if bulky else WORTH) if here else next(iter(fits), "INT8")
    kept = "INT8" in (chosen, *(() if bulky else _as_fast(fits, WORTH)))
    if kept:
        chosen = "INT8"
    tried_all = tuple(Tried(name, tried, name == chosen) for name, (_, tried) in candidates.items())
    own, whole = size(len(static.data)), size(len(graph.data))
    than = "more than" if len(static.data) > len(graph.data) else "hardly less than"
    saves_none = f"INT8 takes {own}, {'as much as' if own == whole else than} float's {whole}"
    if kept:
        said = f"{saves_none}, and nothing smaller is as fast and near enough" if bulky else None
        return Choice(static, said, tried_all)
    best, quickest = candidates[chosen]
    why = [f"INT8 has {trial.speedup:.2f} times float's speed on this host"] if slow else []
    if hollow:
        why.append(f"static INT8 would run {integer_share:.1%} of the multiply-accumulates in INT8")
    if missed:
        why.append(f"INT8 is too far from float ({trial.sqnr_db:.1f} dB)")
    if large:
        why.append(f"INT8 takes {size(len(static.data))}, over the budget")
    elif bulky:
        why.append(saves_none)
    instead = f"{chosen} is taken"
    if best.precision != "float32":
        instead += f", {size(len(best.data))}"
        instead += (
            f" and {quickest.speedup:.2f} times float's speed" if here else ", whose speed there is not known"
        )
    return Choice(best, f"{' and '.join(why)}; {instead}", tried_all)


Candidates = Mapping[str, tuple[QuantisedModel, Trial]]


def _as_fast(candidates: Candidates, within: float) -> list[str]:
    """Those that are as fast as the fastest of them, but for so much."""
    most = max((trial.speedup for _, trial in candidates.values()), default=0.0)
    return [name for name, (_, trial) in candidates.items() if trial.speedup * within >= most]


def _smallest_of_the_fast(candidates: Candidates, within: float) -> str:
    """Of what is as fast as the fastest, the smallest; of what is as small, the nearest to float; else "INT8"."""
    fast = {name: candidates[name] for name in _as_fast(candidates, within)}
    least = min((len(model.data) for model, _ in fast.values()), default=0)
    small = {name: trial for name, (model, trial) in fast.items() if len(model.data) <= WORTH * least}
    return max(small, key=lambda name: small[name].sqnr_db, default="INT8")
