"""Gates: whether what one device measured lets a rollout go on. Three-valued, and closed where data is
missing.

What missing data means is decided here and nowhere else: too few inferences, before or after, is
`inconclusive`; a device that served nothing before has no baseline, so its latency is not compared, only its
errors are. An error share is the release's own only beyond what the device had before, and what devices on the
old release have meanwhile. Energy, temperature and drift are judged where a device reports them, and missed where
the specification requires them. A ratio that is no number fails. What all devices show together is `stopping.py`.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from edgewright.telemetry.sketch import jensen_shannon_distance
from edgewright_fleet.rollout.limits import Gates
from edgewright_fleet.rollout.measured import METRICS, Measured, Metric, Verdict

Evidence = dict[str, float | int | str]


@dataclass(frozen=True)
class GateResult:
    """A verdict with its reason in words and the figures behind it."""

    verdict: Verdict
    sentence: str
    evidence: Evidence


CHANCE = 3.0
"""Standard deviations of the difference of two counts that are left to chance: one device in a thousand."""
Around = Callable[[], tuple[int, int]]
"""Errors and inferences, meanwhile, of devices that wait on the old release; asked only where it matters."""


def judge_device(
    device: str,
    before: Measured | None,
    after: Measured,
    gates: Gates,
    around: Around | None = None,
    *,
    words: bool = True,
) -> GateResult:
    """One device on the new release against itself on the old; `before` is None where it served nothing.

    Without `words` a device that passes is not told why, which is most of the work.
    """
    need = gates.min_inferences
    evidence: Evidence = {"device": device, "inferences": after.inferences, "errors": after.errors}
    if before is not None and before.errors:
        evidence["errors_before"] = before.errors
    if (failing := _too_many_errors(before, after, gates, around)) is not None:
        sentence = f"{device}: {after.errors} of {after.inferences} inferences failed"
        return GateResult("fail", f"{sentence} ({after.errors / after.inferences:.1%}), {failing}", evidence)
    if (hot := _too_hot(device, before, after, gates)) is not None:
        return GateResult("fail", hot, evidence | {"temperature_c": after.temperature_c or 0.0})
    if after.latency.count < need:
        sentence = f"{device}: {after.latency.count} inferences on the new release, {need} are needed"
        return GateResult("inconclusive", sentence, evidence)
    if before is None:
        sentence = (
            f"{device}: {after.errors} of {after.inferences} inferences failed; it served nothing before"
        )
        return GateResult("pass", sentence, evidence)
    evidence["inferences_before"] = before.inferences
    if before.latency.count < need:
        sentence = f"{device}: {before.latency.count} inferences before, {need} are needed"
        return GateResult("inconclusive", sentence, evidence)
    ratios = []
    for metric in METRICS:
        old, new, limit = before.figure(metric), after.figure(metric), _limit(metric, gates)
        if old is None or new is None or (metric == "energy" and old <= 0):
            continue  # energy above idle that is nought or less is within the sensor's error
        if not words and new <= limit * old:
            continue
        unit = "j" if metric == "energy" else "s"
        evidence |= {f"{metric}_before_{unit}": old, f"{metric}_after_{unit}": new, f"{metric}_limit": limit}
        # Written so that a comparison with no number fails.
        if not new <= limit * old:
            times = f"{new / old:.1f} times" if old > 0 else "not comparable with"
            sentence = (
                f"{device}: {_LABELS[metric]} {_shown(metric, new)}, {times} the {_shown(metric, old)} before"
            )
            return GateResult("fail", f"{sentence}; at most {limit:g} times is allowed", evidence)
        ratios.append(f"{metric} {_shown(metric, new)} against {_shown(metric, old)} before")
    distance = _distance(before, after, need)
    if distance is not None:
        evidence |= {"class_distance": distance, "class_distance_limit": gates.max_class_distance}
        if not distance <= gates.max_class_distance:
            sentence = f"{device}: its answers lie {distance:.2f} from those of the release before"
            return GateResult(
                "fail", f"{sentence} (Jensen–Shannon), at most {gates.max_class_distance:g} may", evidence
            )
    known = {
        "energy": after.energy_inferences > 0 and before.energy_inferences > 0,
        "temperature": after.temperature_c is not None,
        "drift": distance is not None,
    }
    if missing := [figure for figure in gates.required if not known[figure]]:
        return GateResult("inconclusive", f"{device}: no {' and no '.join(missing)} measured", evidence)
    return GateResult("pass", f"{device}: {', '.join(ratios)}", evidence)


def judge(results: Iterable[GateResult]) -> GateResult:
    """All devices together: one failure fails, an inconclusive one leaves it so, nothing passes on nothing.

    One after the other, as those of a large fleet are not to be held all at once.
    """
    counts, shown = Counter[Verdict](), dict[Verdict, GateResult]()
    for result in results:
        counts[result.verdict] += 1
        kept = shown.setdefault(result.verdict, result)
        if result.verdict == "pass" and _ratio(result.evidence) > _ratio(kept.evidence):
            shown["pass"] = result
    for verdict in ("fail", "inconclusive"):
        if (found := shown.get(verdict)) is not None:
            more = f" (and {counts[verdict] - 1} more)" if counts[verdict] > 1 else ""
            return GateResult(found.verdict, found.sentence + more, found.evidence)
    if (worst := shown.get("pass")) is None:
        return GateResult("inconclusive", "no device that could be judged", {})
    passed = counts["pass"]
    sentence = f"{passed} device{'s' if passed > 1 else ''} passed; {worst.sentence}"
    return GateResult("pass", sentence, worst.evidence)


_LABELS: dict[Metric, str] = {"p50": "p50 latency", "p99": "p99 latency", "energy": "energy an inference"}


def _limit(metric: Metric, gates: Gates) -> float:
    if metric == "p50":
        return gates.max_p50_ratio
    return gates.max_p99_ratio if metric == "p99" else gates.max_energy_ratio


def _shown(metric: Metric, value: float) -> str:
    return f"{value * 1e3:.3g} mJ" if metric == "energy" else f"{value * 1e3:.3g} ms"


def _too_many_errors(
    before: Measured | None, after: Measured, gates: Gates, around: Around | None
) -> str | None:
    """What an error share is past, where the release is the reason: the device did not fail as often before, and
    those that wait on the old release do not now.

    What is allowed beyond theirs is `max_error_share`; two Poisson counts differ by chance as their sum does.
    """
    # So many errors that no number of successes up to `min_inferences` can mend it: known early, said early.
    inferences = max(after.inferences, gates.min_inferences)
    allowed = gates.max_error_share * inferences
    if after.errors <= allowed:
        return None
    had = [(before.errors, before.inferences)] if before is not None else []
    for errors, of in (*had, *([around()] if around is not None else [])):
        if errors and of:
            expected = errors / of * inferences
            chance = CHANCE * math.sqrt(expected * (1 + inferences / of))
            if after.errors <= allowed + expected + chance:
                return None
    shares = "".join(f" beyond its {errors / of:.1%} before" for errors, of in had if errors and of)
    return f"at most {gates.max_error_share:.1%} may{shares}"


def _too_hot(device: str, before: Measured | None, after: Measured, gates: Gates) -> str | None:
    """A device that was as hot before is not made so by the release."""
    then = before.temperature_c if before is not None else None
    now, limit = after.temperature_c, gates.max_temperature_c
    if now is None or now <= limit or (then is not None and then > limit):
        return None
    return f"{device}: {now:.0f} °C, at most {limit:g} °C is allowed"


def _distance(before: Measured, after: Measured, need: int) -> float | None:
    """Between the top classes of the two releases; None where there are none, or too few to compare."""
    then, now = before.sketch, after.sketch
    if then is None or now is None or min(then.samples, now.samples) < need:
        return None
    if not then.classes or len(then.classes) != len(now.classes):
        return None
    return jensen_shannon_distance(now.classes, then.classes)


def _ratio(evidence: Evidence) -> float:
    before, after = evidence.get("p50_before_s"), evidence.get("p50_after_s")
    return float(after) / float(before) if before and after else 0.0
