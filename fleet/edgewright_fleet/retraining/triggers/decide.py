"""`decide`: policy and evidence in, a `Trigger` or the reasons against one out. Pure: no clock, no file.

Accuracy is judged by the same sequential test as failed devices are (`rollout.statistics.log_ratio`): a mixture of
likelihood ratios of shares that are too bad against the greatest that is not, which exceeds 1/α with probability
at most α over all looks (Ville 1939), however often labels arrive and are looked at. It is a supermartingale at
every better accuracy too, as the ratio grows with each wrong answer.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from edgewright_converters.statistics import score_interval
from edgewright_fleet.retraining.triggers.policy import (
    AccuracyRule,
    BenefitRule,
    DriftRule,
    SamplesRule,
    ScheduleRule,
    TriggerPolicy,
)
from edgewright_fleet.retraining.triggers.trigger import Benefit, GroupEvidence, Kind, NotFired, Trigger
from edgewright_fleet.rollout.statistics import log_ratio

Judged = tuple[bool, str]
"""Whether a rule holds, and a sentence that says what it saw."""


def decide(policy: TriggerPolicy, evidence: GroupEvidence) -> Trigger | NotFired:
    """The trigger that the evidence is, or why it is none. The same for the same arguments, at any time."""
    if evidence.request is not None:
        says = f"asked for by {evidence.request.who}: {evidence.request.why}"
        return Trigger(kind="manual", says=says, evidence=evidence, policy=policy)
    because = []
    for kind, judge in _RULES.items():
        if (rule := getattr(policy, kind)) is None:
            continue
        fires, says = judge(rule, evidence)
        if not fires:
            because.append(f"{kind}: {says}")
            continue
        if (wait := _cooling(policy, evidence)) is not None:
            because.append(f"{kind}: {says}; but {wait}")
            continue
        benefit, objection = _worth(policy.benefit, kind, policy, evidence)
        if objection is not None:
            because.append(f"{kind}: {says}; but {objection}")
            continue
        return Trigger(kind=kind, says=says, evidence=evidence, policy=policy, benefit=benefit)
    return NotFired(because=tuple(because) or ("the policy has no rule",), evidence=evidence)


def judge_accuracy(rule: AccuracyRule, evidence: GroupEvidence) -> Judged:
    """Whether the labelled answers are certainly right less often than they must be."""
    labels = evidence.labels
    if labels is None or not labels.labelled:
        return False, "no answer was labelled"
    wrong, most = labels.labelled - labels.correct, 1 - rule.least
    ratio = log_ratio(labels.labelled, wrong, most, min(most + rule.margin, (1 + most) / 2))
    low, high = score_interval(labels.correct / labels.labelled, labels.labelled)
    says = (
        f"{labels.correct / labels.labelled:.1%} of {labels.labelled} labelled answers are right "
        f"(95 %: {low:.1%} to {high:.1%}), at least {rule.least:.1%} must be"
    )
    fires = ratio >= -math.log(rule.alpha)
    return fires, says + (f"; chance alone gives that once in {1 / rule.alpha:.0f} releases" if fires else "")


def judge_drift(rule: DriftRule, evidence: GroupEvidence) -> Judged:
    """Whether enough devices drift, far enough."""
    drift = evidence.drift
    if drift is None:
        return False, "no sketches of the model are known; `hub` names the store of 'edgewright fleet hub'"
    if not drift.settled:
        return False, "no device has sent sketches for long enough"
    counted = max((drift.streams.get(name, 0) for name in rule.streams), default=0)
    share = counted / drift.settled
    indices = [x for x in (drift.psi, drift.confidence_psi) if x is not None]
    psi = max(indices, default=0.0)
    says = f"{counted} of {drift.settled} devices ({share:.0%}) drift"
    if drift.flapping:
        says += f", {drift.flapping} flap and do not count"
    says += f"; population stability index of all {psi:.3f}"
    if drift.distance is not None:
        says += f", Jensen–Shannon distance {drift.distance:.3f}"
    if counted < rule.min_devices or share < rule.min_share:
        return False, f"{says}; {rule.min_devices} devices and {rule.min_share:.0%} must"
    if psi < rule.min_psi and "inputs" not in rule.streams:
        return False, f"{says}; an index of {rule.min_psi:g} is the least that counts"
    return True, says


def judge_samples(rule: SamplesRule, evidence: GroupEvidence) -> Judged:
    """Whether there is enough new data."""
    says = f"{evidence.new_samples} new samples, {rule.count} are wanted"
    return evidence.new_samples >= rule.count, says


def judge_schedule(rule: ScheduleRule, evidence: GroupEvidence) -> Judged:
    """Whether it is time."""
    since_s = evidence.last_trained_s if evidence.last_trained_s is not None else evidence.released_s
    if since_s is None:
        return False, "neither a training nor a rollout is known to count from"
    age_s = evidence.at_s - since_s
    return (
        age_s >= rule.every_s,
        f"the last training was {_days(age_s)} ago, one is due every {_days(rule.every_s)}",
    )


_RULES: dict[Kind, Callable[..., Judged]] = {
    "accuracy": judge_accuracy,
    "drift": judge_drift,
    "samples": judge_samples,
    "schedule": judge_schedule,
}


def _cooling(policy: TriggerPolicy, evidence: GroupEvidence) -> str | None:
    if evidence.last_trigger_s is None:
        return None
    left_s = evidence.last_trigger_s + policy.cooldown_s - evidence.at_s
    return f"the last trigger was too short a time ago, {_days(left_s)} are left" if left_s > 0 else None


def _worth(
    rule: BenefitRule | None, kind: Kind, policy: TriggerPolicy, evidence: GroupEvidence
) -> tuple[Benefit | None, str | None]:
    """What it brings, and what speaks against it."""
    if rule is None or (gain := _gain(rule, kind, policy, evidence)) is None:
        return None, None
    if evidence.inferences_per_day is None:
        return None, "how often the group infers is not known, and so not what a training is worth"
    answers = gain * evidence.inferences_per_day * rule.horizon_s / 86400
    benefit = Benefit(gain=gain, value=answers / 1000 * rule.value_per_1000, cost=rule.cost)
    if benefit.value > benefit.cost:
        return benefit, None
    return benefit, (
        f"putting {gain:.2%} of the answers right for {_days(rule.horizon_s)} is worth {benefit.value:.6g}, and a "
        f"training costs {benefit.cost:.6g}"
    )


def _gain(rule: BenefitRule, kind: Kind, policy: TriggerPolicy, evidence: GroupEvidence) -> float | None:
    if kind == "accuracy" and policy.accuracy is not None and evidence.labels is not None:
        return max(policy.accuracy.least - evidence.labels.correct / evidence.labels.labelled, 0.0)
    if kind == "drift" and evidence.drift is not None and evidence.drift.psi is not None:
        # An index of x moves at most √x / 2 of the answers: it is no less than 4 times the squared variation.
        return rule.recoverable * min(math.sqrt(evidence.drift.psi) / 2, 1.0)
    return rule.assumed_gain


def _days(duration_s: float) -> str:
    return f"{duration_s / 86400:.1f} days" if duration_s >= 86400 else f"{duration_s / 3600:.1f} hours"
