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
from dataclasses import dataclass, field

from edgewright.twin import GOLDEN_REFUSAL
from edgewright_fleet.rollout.gates import Evidence, GateResult, judge_device
from edgewright_fleet.rollout.measured import METRICS, Measured, Metric, compare
from edgewright_fleet.rollout.spec import Gates, RolloutSpec
from edgewright_fleet.rollout.state import DeviceRecord, RolloutState
from edgewright_fleet.rollout.statistics import (
    FAILURES_PART,
    FailureTest,
    allowed_in_flight,
    failure_test,
    failures_to_go,
    median_exceeds,
    median_interval,
)


@dataclass
class Tally:
    """What exposed devices showed so far; a device's result is in one of the three."""

    failed: dict[str, GateResult] = field(default_factory=dict)
    passed: dict[str, GateResult] = field(default_factory=dict)
    open: dict[str, GateResult] = field(default_factory=dict)
    """Reachable, and without a verdict yet."""

    @property
    def asked(self) -> int:
        """Devices that count, those without a verdict too."""
        return len(self.failed) + len(self.passed) + len(self.open)


def tally(state: RolloutState, spec: RolloutSpec) -> Tally:
    """Every exposed device's result."""
    found = Tally()
    for name, record in state.standing("asked", "censored", "committed", "failed").items():
        if record.stand == "failed":
            reason = record.reason or "no reason given"
            evidence: Evidence = {"device": name, "reason": reason}
            found.failed[name] = GateResult("fail", f"{name} refused the release: {reason}", evidence)
            continue
        result = judge_device(name, record.baseline if record.before else None, record.after, spec.gates)
        if result.verdict == "fail":
            found.failed[name] = result
        elif result.verdict == "pass" and record.stand == "committed":
            found.passed[name] = result
        elif record.online and record.stand != "censored":
            found.open[name] = result
    return found


def failure_test_of(gates: Gates, devices: int) -> FailureTest:
    """The failure test of a rollout to so many devices."""
    return failure_test(
        gates.healthy_failure_share, gates.bad_failure_share, gates.alpha * FAILURES_PART, devices
    )


def metric_alpha(gates: Gates) -> float:
    """The part of α that each metric's test gets."""
    return gates.alpha * (1 - FAILURES_PART) / len(METRICS)


def why_stop(found: Tally, state: RolloutState, spec: RolloutSpec) -> GateResult | None:
    """The reason to stop now, if there is one."""
    wrong = None if found.passed else blamed_on_release(found, state, list(found.failed))
    return wrong or _too_many_failures(found, state, spec) or _slower(state, spec)


def blamed_on_release(found: Tally, state: RolloutState, names: list[str]) -> GateResult | None:
    """The first of these failures that is the release's own: it computed something else, or is past a limit."""
    for name in names:
        record = state.devices[name]
        if record.stand != "failed" or (record.reason or "").startswith(GOLDEN_REFUSAL):
            return found.failed[name]
    return None


def more_allowed(found: Tally, state: RolloutState, spec: RolloutSpec) -> int:
    """How many devices may be asked now, before more of those asked have a verdict."""
    to_go = failures_to_go(failure_test_of(spec.gates, len(state.devices)), found.asked, len(found.failed))
    return max(0, allowed_in_flight(to_go, len(found.passed)) - len(found.open))


def undecided(found: Tally, names: list[str], spec: RolloutSpec) -> GateResult:
    """What to say of devices that all failed, and are too few to tell."""
    first = found.failed[names[0]]
    gates = spec.gates
    sentence = (
        f"{len(names)} of {len(names)} devices failed, which is too few to tell a bad release from bad devices "
        f"(α {gates.alpha:g}, {gates.healthy_failure_share:.2g} of the devices may fail): {first.sentence}"
    )
    return GateResult("inconclusive", sentence, first.evidence | {"failed": len(names)})


def _too_many_failures(found: Tally, state: RolloutState, spec: RolloutSpec) -> GateResult | None:
    test = failure_test_of(spec.gates, len(state.devices))
    failed = len(found.failed)
    if failed < test.limit(found.asked):
        return None
    healthy = spec.gates.healthy_failure_share
    sentence = (
        f"{failed} of {found.asked} devices failed; where {healthy:.2g} of the devices may, so many ever do "
        f"with probability under {test.alpha:.2g}; {next(iter(found.failed.values())).sentence}"
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
    made = [record.compared for record in state.devices.values() if record.compared is not None]
    for metric in METRICS:
        values = [value for each in made if (value := each.effect(metric)) is not None]
        limit = _typical_limit(metric, spec.gates)
        if not median_exceeds(values, math.log(limit), alpha):
            continue
        low, high = (math.exp(min(max(end, -50.0), 50.0)) for end in median_interval(values, alpha))
        typical = math.exp(sorted(values)[len(values) // 2])
        controls = sum(each.control is not None for each in made)
        sentence = (
            f"{metric} of the median device is {typical:.2f} times what it was ({low:.2f} to {high:.2f}, with "
            f"probability {1 - alpha:.4%} at all times), at most {limit:g} is allowed; {len(values)} devices, "
            f"{controls} of them against one on the old release"
        )
        evidence: Evidence = {
            "metric": metric,
            "median_ratio": typical,
            "low": low,
            "high": high,
            "limit": limit,
            "devices": len(values),
            "controls": controls,
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


def compared(state: RolloutState, spec: RolloutSpec) -> RolloutState:
    """The state with a comparison for each device that has measured enough by now; the very same where none
    has.

    A device serves as a control once, and one that did is never compared itself, so that no two comparisons
    share a measurement. Controls of the same profile come first.
    """
    need = spec.gates.min_inferences
    used = {r.compared.control for r in state.devices.values() if r.compared is not None}
    ready = {
        name: record
        for name, record in state.standing("committed").items()
        if record.compared is None
        and name not in used
        and record.before is not None
        and min(record.baseline.latency.count, record.after.latency.count) >= need
    }
    if not ready:
        return state
    controls = {
        name: record
        for name, record in state.standing("waiting").items()
        if name not in used and record.control is not None and record.control.latency.count >= need
    }
    devices = dict(state.devices)
    for name, record in ready.items():
        same = (other for other, about in controls.items() if about.profile == record.profile)
        chosen = next(same, next(iter(controls), None))
        against = None
        if chosen is not None and (control := controls.pop(chosen)).control is not None:
            against = (chosen, control.baseline, control.control)
        made = compare(record.baseline, record.after, against)
        devices[name] = record.model_copy(update={"compared": made})
    return state.model_copy(update={"devices": devices})


def with_controls(state: RolloutState, spec: RolloutSpec) -> dict[str, DeviceRecord]:
    """The devices as a wave begins: what those not asked yet measure from now on is kept apart.

    Which windows were heard of stays known, so that a repeat of an old one does not count as new.
    """
    need = spec.gates.min_inferences
    from_now = {
        name: record.model_copy(update={"control": Measured(seen=record.baseline.seen)})
        for name, record in state.standing("waiting").items()
        if record.before is not None and record.baseline.latency.count >= need
    }
    return {**state.devices, **from_now}
