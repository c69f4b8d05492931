"""Whether what all devices show together stops a rollout, and how many more may be asked meanwhile.

Each device is one observation, as soon as it has answered: it failed (it refused the release, left it, or is
past a limit of its gate) or it passed. One that is offline is censored and counts in nothing. Three things
stop a rollout:

1. a device that computed something else than the converter, or is past a limit, while no device has passed,
or no
   device of a wave that is over: what has not worked anywhere gets no second device. No α is spent on it:
   such a device is no chance;
2. more failures than a healthy release would show: `failure_test`, at `FAILURES_PART` of α;
3. a median device that is slower or hungrier than the specification allows: `median_exceeds`, for each
metric.

A download that broke or a full disk on the first device says nothing of a release: it is left to the test.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from edgewright.twin import GOLDEN_REFUSAL
from edgewright_fleet.rollout.gates import Evidence, GateResult, judge_device
from edgewright_fleet.rollout.limits import Gates
from edgewright_fleet.rollout.measured import METRICS, Measured, Metric, compare
from edgewright_fleet.rollout.records import ON_TRIAL, DeviceRecord, Devices, changed
from edgewright_fleet.rollout.spec import RolloutSpec
from edgewright_fleet.rollout.state import RolloutState
from edgewright_fleet.rollout.statistics import (
    FAILURES_PART,
    FailureTest,
    allowed_in_flight,
    failure_test,
    failures_to_go,
    median_interval,
    p_of_median,
)

MOST_COMPARED = 200
"""Devices that are compared: 18 are enough for a verdict where all are past a limit, 200 where two in three are,
and more would only be kept and stored."""


@dataclass(frozen=True)
class Tally:
    """What exposed devices showed so far; one that is offline without a verdict is in nothing.

    Counted when it is asked for, as a tick in which nobody failed needs none but `failed`.
    """

    devices: Devices

    @cached_property
    def failed(self) -> tuple[str, ...]:
        """Those that refused the release or left it, and those past a limit."""
        return (*self.devices.standing("failed"), *sorted(self.devices.past_a_limit))

    @cached_property
    def passed(self) -> int:
        """How many passed their gate."""
        return self.devices.count(*ON_TRIAL) - len(self.devices.undecided)

    @cached_property
    def open(self) -> tuple[str, ...]:
        """Reachable, and without a verdict yet."""
        return tuple(filter(self.is_open, sorted(self.devices.undecided)))

    def is_open(self, name: str) -> bool:
        """Whether one of those that did not pass can still be waited for."""
        record = self.devices[name]
        return record.verdict != "fail" and record.online and record.stand != "censored"

    @property
    def asked(self) -> int:
        """Devices that count, those without a verdict too."""
        return len(self.failed) + self.passed + len(self.open)


def tally(state: RolloutState) -> Tally:
    """What the devices of a rollout showed."""
    return Tally(state.devices)


def result_of(state: RolloutState, spec: RolloutSpec, name: str, *, words: bool = True) -> GateResult:
    """One exposed device's verdict with its reason; without `words` only a failure's is told in full."""
    record = state.devices[name]
    if record.stand == "failed":
        reason = record.reason or "no reason given"
        return GateResult("fail", f"{name} refused the release: {reason}", {"device": name, "reason": reason})
    before = record.baseline if record.before else None
    return judge_device(name, before, record.after, spec.gates, lambda: _errors_around(state), words=words)


def _errors_around(state: RolloutState) -> tuple[int, int]:
    """Errors and inferences of all controls since the wave began, while they waited."""
    measured = [control for name in state.controls if (control := state.devices[name].control)]
    return sum(each.errors for each in measured), sum(each.inferences for each in measured)


def failure_test_of(gates: Gates, devices: int) -> FailureTest:
    """The failure test of a rollout to so many devices."""
    return failure_test(
        gates.healthy_failure_share, gates.bad_failure_share, gates.alpha * FAILURES_PART, devices
    )


def metric_alpha(gates: Gates) -> float:
    """The part of α that each metric's test gets."""
    return gates.alpha * (1 - FAILURES_PART) / len(METRICS)


def why_stop(
    found: Tally, state: RolloutState, spec: RolloutSpec, *, compared: bool = True
) -> GateResult | None:
    """The reason to stop now, if there is one; without `compared`, no comparison was made since it was asked."""
    wrong = None if found.passed else blamed_on_release(state, spec, found.failed)
    return wrong or _too_many_failures(found, state, spec) or (_slower(state, spec) if compared else None)


def blamed_on_release(state: RolloutState, spec: RolloutSpec, names: Sequence[str]) -> GateResult | None:
    """The first of these failures that is the release's own: it computed something else, or is past a limit."""
    for name in names:
        record = state.devices[name]
        if record.stand != "failed" or (record.reason or "").startswith(GOLDEN_REFUSAL):
            return result_of(state, spec, name)
    return None


def more_allowed(found: Tally, state: RolloutState, spec: RolloutSpec) -> int:
    """How many devices may be asked now, before more of those asked have a verdict.

    One that went offline while it was asked keeps its place until it is censored: a release may be the reason.
    """
    if not spec.paced_by_evidence:
        return len(state.devices)
    unanswered = {*found.open, *state.devices.standing("asked")}
    to_go = failures_to_go(failure_test_of(spec.gates, len(state.devices)), found.asked, len(found.failed))
    return max(0, allowed_in_flight(to_go, found.passed) - len(unanswered))


def too_few(state: RolloutState, spec: RolloutSpec, names: Sequence[str]) -> GateResult:
    """What to say of devices that all failed, and are too few to tell."""
    first, gates = result_of(state, spec, names[0]), spec.gates
    sentence = (
        f"{len(names)} of {len(names)} devices failed, which is too few to tell a bad release from bad devices "
        f"(α {gates.alpha:g}, {gates.healthy_failure_share:.2g} of the devices may fail): {first.sentence}"
    )
    return GateResult("inconclusive", sentence, first.evidence | {"failed": len(names)})


def _too_many_failures(found: Tally, state: RolloutState, spec: RolloutSpec) -> GateResult | None:
    failed = len(found.failed)
    if not failed:
        return None
    test = failure_test_of(spec.gates, len(state.devices))
    if failed < test.limit(found.asked):
        return None
    healthy, first = spec.gates.healthy_failure_share, result_of(state, spec, found.failed[0])
    sentence = (
        f"{failed} of {found.asked} devices failed; where {healthy:.2g} of the devices may, so many ever do "
        f"with probability under {test.alpha:.2g}; {first.sentence}"
    )
    evidence: Evidence = {
        "failed": failed,
        "devices": found.asked,
        "limit": test.limit(found.asked),
        "alpha": test.alpha,
        "names": ", ".join(found.failed),
    }
    return GateResult("fail", sentence, evidence)


def _slower(state: RolloutState, spec: RolloutSpec) -> GateResult | None:
    alpha = metric_alpha(spec.gates)
    made = state.comparisons.values()
    for metric in METRICS:
        values = [value for each in made if (value := each.effect(metric)) is not None]
        limit = _typical_limit(metric, spec.gates)
        if (p := p_of_median(values, math.log(limit))) > alpha:
            continue
        low, high = (math.exp(min(max(end, -50.0), 50.0)) for end in median_interval(values, alpha))
        typical = math.exp(sorted(values)[len(values) // 2])
        controls = sum(each.control is not None for each in made)
        sentence = (
            f"{metric} of the median device is {typical:.2f} times what it was ({low:.2f} to {high:.2f}), at most "
            f"{limit:g} is allowed; {len(values)} devices, {controls} of them against one on the old release, "
            f"sequential p {p:.1g}"
        )
        evidence: Evidence = {
            "metric": metric,
            "median_ratio": typical,
            "low": low,
            "high": high,
            "limit": limit,
            "devices": len(values),
            "controls": controls,
            "p": p,
            "alpha": alpha,
        }
        return GateResult("fail", sentence, evidence)
    return None


def _typical_limit(metric: Metric, gates: Gates) -> float:
    return {
        "p50": gates.max_typical_p50_ratio,
        "p99": gates.max_typical_p99_ratio,
        "energy": gates.max_typical_energy_ratio,
    }[metric]


def compared(state: RolloutState, spec: RolloutSpec, name: str) -> RolloutState:
    """The state with a device's comparison, where it has measured enough by now; the very same where it has not.

    A device serves as a control once, and one that did is never compared itself, so that no two comparisons share
    a measurement. A control of the same profile comes first.
    """
    need, record, made = spec.gates.min_inferences, state.devices[name], state.comparisons
    if name in made or len(made) >= MOST_COMPARED or record.stand != "committed" or record.before is None:
        return state
    if min(record.baseline.latency.count, record.after.latency.count) < need:
        return state
    used = {each.control for each in made.values()}
    if name in used:
        return state
    ready = [
        (other, about)
        for other in state.controls
        if other not in used
        and (about := state.devices[other]).stand == "waiting"
        and about.control is not None
        and about.control.latency.count >= need
    ]
    same = [(other, about) for other, about in ready if about.profile == record.profile]
    against = None
    for other, about in (same or ready)[:1]:
        if about.control is not None:
            against = (other, about.baseline, about.control)
    new = compare(record.baseline, record.after, against)
    return state.model_copy(update={"comparisons": {**made, name: new}})


def with_controls(state: RolloutState, spec: RolloutSpec) -> RolloutState:
    """The state as a wave begins: what its controls measure from now on is kept apart.

    They are the last of those that wait, who get the release last; in the last wave nobody waits, and the controls
    of the one before are kept for what they showed. Which windows were heard of stays known, so that a repeat of
    an old one does not count as new.
    """
    devices, chosen = state.devices, dict[str, DeviceRecord]()
    for name in (name for wave in reversed(state.waves) for name in reversed(wave)):
        record = devices[name]
        if len(chosen) == MOST_COMPARED:
            break
        if record.stand == "waiting" and record.baseline.latency.count >= spec.gates.min_inferences:
            chosen[name] = changed(record, control=Measured(seen=record.baseline.seen))
    return state.model_copy(update={"devices": devices.with_records(chosen), "controls": tuple(chosen)})
