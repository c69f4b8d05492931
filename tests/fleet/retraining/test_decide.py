"""What fires a retraining and what does not, and that the document says all that it was decided on."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from edgewright.contract import from_json, to_json
from edgewright.errors import ConfigError
from edgewright_fleet.retraining.triggers.decide import decide
from edgewright_fleet.retraining.triggers.groups import GroupDrift
from edgewright_fleet.retraining.triggers.policy import (
    DAY_S,
    AccuracyRule,
    BenefitRule,
    DriftRule,
    SamplesRule,
    ScheduleRule,
    TriggerPolicy,
)
from edgewright_fleet.retraining.triggers.trigger import (
    GroupEvidence,
    LabelledAnswers,
    ManualRequest,
    NotFired,
    Trigger,
)

DRIFT = TriggerPolicy(drift=DriftRule())


def drift(
    drifting: int = 8, settled: int = 10, psi: float = 0.06, flapping: int = 0, **more: Any
) -> GroupDrift:
    return GroupDrift.model_validate({
        "by": "profile", "group": "pi", "model": "net", "devices": settled + 1, "settled": settled,
        "drifting": drifting, "flapping": flapping, "by_days": 0, "streams": {"classes": drifting},
        "samples_before": 10**6, "samples_now": 10**5, "psi": psi, "distance": 0.1, **more,
    })  # fmt: skip


def evidence(**more: Any) -> GroupEvidence:
    known = {"fleet": "kiosks", "model": "net", "release": "net:1.0.0", "group": "pi", "at_s": 100 * DAY_S}
    return GroupEvidence.model_validate(known | more)


def fired(policy: TriggerPolicy, seen: GroupEvidence) -> Trigger:
    decision = decide(policy, seen)
    assert isinstance(decision, Trigger), decision
    return decision


def refused(policy: TriggerPolicy, seen: GroupEvidence) -> str:
    decision = decide(policy, seen)
    assert isinstance(decision, NotFired), decision
    return "; ".join(decision.because)


def test_a_group_that_drifts_fires_and_says_why() -> None:
    trigger = fired(DRIFT, evidence(drift=drift()))
    assert trigger.kind == "drift" and trigger.says.startswith("8 of 10 devices (80%) drift")
    assert "0.060" in trigger.says and "Jensen–Shannon" in trigger.says


@pytest.mark.parametrize(
    ("seen", "why"),
    [
        (None, "no sketches of the model are known"),
        (drift(settled=0, drifting=0), "no device has sent sketches for long enough"),
        (drift(drifting=2), "3 devices and 20% must"),
        (drift(drifting=3, settled=100), "3 of 100 devices (3%)"),
        (drift(psi=0.01), "index of 0.02 is the least"),
        (drift(drifting=0, flapping=9), "9 flap and do not count"),
        (drift(streams={"inputs": 8}), "0 of 10 devices"),
    ],
)
def test_a_single_device_a_flapping_one_and_a_small_shift_do_not_fire(
    seen: GroupDrift | None, why: str
) -> None:
    assert why in refused(DRIFT, evidence(drift=seen))


def test_inputs_count_where_they_are_named() -> None:
    policy = TriggerPolicy(drift=DriftRule(streams=("inputs",)))
    assert fired(policy, evidence(drift=drift(streams={"inputs": 8}, psi=0.0))).kind == "drift"


def test_labels_that_are_certainly_too_often_wrong_fire_and_few_do_not() -> None:
    policy = TriggerPolicy(accuracy=AccuracyRule(least=0.9))
    assert "no answer was labelled" in refused(policy, evidence())
    assert "70.0% of 10" in refused(policy, evidence(labels=LabelledAnswers(labelled=10, correct=7)))
    trigger = fired(policy, evidence(labels=LabelledAnswers(labelled=300, correct=240)))
    assert trigger.kind == "accuracy" and "80.0% of 300" in trigger.says
    assert "91.0%" in refused(policy, evidence(labels=LabelledAnswers(labelled=3000, correct=2730)))


def test_an_accuracy_that_is_good_enough_fires_no_more_often_than_was_said_over_all_looks() -> None:
    chance, policy, runs = (
        np.random.default_rng(1),
        TriggerPolicy(accuracy=AccuracyRule(least=0.9, alpha=0.1)),
        200,
    )
    alarms = 0
    for _ in range(runs):
        correct = np.cumsum(chance.random(500) < 0.9)
        looks = (
            evidence(labels=LabelledAnswers(labelled=n, correct=int(correct[n - 1])))
            for n in range(10, 500, 10)
        )
        alarms += any(isinstance(decide(policy, look), Trigger) for look in looks)
    assert alarms / runs < 0.1 + 2 * (0.1 * 0.9 / runs) ** 0.5


@given(st.integers(1, 500), st.data())
def test_more_wrong_answers_never_speak_for_a_model(labelled: int, data: st.DataObject) -> None:
    policy = TriggerPolicy(accuracy=AccuracyRule(least=0.8))
    few = data.draw(st.integers(0, labelled))
    more = data.draw(st.integers(few, labelled))
    decisions = [
        decide(policy, evidence(labels=LabelledAnswers(labelled=labelled, correct=labelled - wrong)))
        for wrong in (few, more)
    ]
    assert not (isinstance(decisions[0], Trigger) and isinstance(decisions[1], NotFired))


def test_samples_and_schedule_fire_when_they_are_due() -> None:
    samples = TriggerPolicy(samples=SamplesRule(count=1000))
    assert "999 new samples" in refused(samples, evidence(new_samples=999))
    assert fired(samples, evidence(new_samples=1000)).kind == "samples"
    schedule = TriggerPolicy(schedule=ScheduleRule(every_s=30 * DAY_S))
    assert "neither a training nor a rollout" in refused(schedule, evidence())
    assert "29.0 days ago" in refused(schedule, evidence(released_s=0.0, last_trained_s=71 * DAY_S))
    assert fired(schedule, evidence(released_s=70 * DAY_S)).kind == "schedule"


def test_after_a_trigger_there_is_none_for_a_while_but_by_hand() -> None:
    seen = evidence(drift=drift(), last_trigger_s=95 * DAY_S)
    assert "2.0 days are left" in refused(DRIFT, seen)
    asked = seen.model_copy(update={"request": ManualRequest(who="anna", why="new shops")})
    trigger = fired(DRIFT, asked)
    assert trigger.kind == "manual" and trigger.says == "asked for by anna: new shops"
    assert fired(TriggerPolicy(drift=DriftRule(), cooldown_s=4 * DAY_S), seen).kind == "drift"


def test_a_training_that_costs_more_than_it_brings_does_not_fire() -> None:
    worth = BenefitRule(cost=50, value_per_1000=1)
    seen = evidence(drift=drift(psi=0.04), inferences_per_day=1e5)
    trigger = fired(TriggerPolicy(drift=DriftRule(), benefit=worth), seen)
    assert trigger.benefit is not None
    # At most 10 % of the answers lie elsewhere, a fifth of them is put right, 100,000 a day for 30 days.
    assert trigger.benefit.gain == pytest.approx(0.02) and trigger.benefit.value == pytest.approx(60)
    assert "is worth 60, and a training costs 61" in refused(
        TriggerPolicy(drift=DriftRule(), benefit=worth.model_copy(update={"cost": 61})), seen
    )
    unknown = evidence(drift=drift())
    assert "how often the group infers is not known" in refused(
        TriggerPolicy(drift=DriftRule(), benefit=worth), unknown
    )


def test_the_first_rule_that_holds_is_the_trigger_and_one_that_does_not_pay_gives_way_to_the_next() -> None:
    policy = TriggerPolicy(
        accuracy=AccuracyRule(least=0.9),
        samples=SamplesRule(count=10),
        benefit=BenefitRule(cost=1e9, value_per_1000=1),
    )
    labels = LabelledAnswers(labelled=300, correct=200)
    seen = evidence(labels=labels, drift=drift(), new_samples=10, inferences_per_day=10)
    assert fired(policy.model_copy(update={"benefit": None}), seen).kind == "accuracy"
    assert fired(policy, seen).kind == "samples", "nobody said what samples bring"


def test_a_policy_without_rules_says_so() -> None:
    assert refused(TriggerPolicy(), evidence()) == "the policy has no rule"


policies = st.builds(
    TriggerPolicy,
    accuracy=st.none() | st.builds(AccuracyRule, least=st.floats(0.1, 0.95)),
    drift=st.none() | st.builds(DriftRule, min_devices=st.integers(1, 20), min_share=st.floats(0, 1)),
    samples=st.none() | st.builds(SamplesRule, count=st.integers(1, 100)),
    schedule=st.none() | st.builds(ScheduleRule, every_s=st.floats(1, 1e8)),
    benefit=st.none() | st.builds(BenefitRule, cost=st.floats(0, 1e6), value_per_1000=st.floats(0, 1e3)),
)
seen_by_a_group = st.builds(
    evidence,
    drift=st.none() | st.builds(drift, drifting=st.integers(0, 10), psi=st.floats(0, 5)),
    labels=st.none() | st.integers(0, 500).map(lambda n: LabelledAnswers(labelled=500, correct=n)),
    new_samples=st.integers(0, 200),
    inferences_per_day=st.none() | st.floats(0, 1e7),
    last_trained_s=st.none() | st.floats(0, 8e6),
    last_trigger_s=st.none() | st.floats(0, 8e6),
    request=st.none() | st.builds(ManualRequest, who=st.just("anna"), why=st.text(min_size=1, max_size=40)),
)


@given(policies, seen_by_a_group)
def test_a_decision_survives_json_and_is_the_same_when_it_is_made_again(
    policy: TriggerPolicy, seen: GroupEvidence
) -> None:
    decision = decide(policy, seen)
    assert from_json(type(decision), to_json(decision), where="") == decision
    if isinstance(decision, Trigger):
        assert decide(decision.policy, decision.evidence) == decision


def test_an_unknown_key_of_a_policy_is_an_error() -> None:
    with pytest.raises(ConfigError, match=r"drift\.min_device: no such key"):
        from_json(TriggerPolicy, b'{"drift": {"min_device": 3}}', where="spec")
    with pytest.raises(ValidationError):
        LabelledAnswers(labelled=1, correct=2)
