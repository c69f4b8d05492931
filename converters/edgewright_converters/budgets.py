"""The gate's questions about a profile's budgets: bytes and memory as measured, latency as predicted there.

A budget is a decision of the profile's. Where one is missed, the nearest profile of the catalog that could hold
the artifact is named.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgewright.artifact.manifest import GateCheck, ModelFormat, Precision, Verdict
from edgewright.figures import seconds, size
from edgewright.runtime.memory import PeakMemory
from edgewright_converters.prediction import latency_of
from edgewright_profiles import HardwareProfile, load_profile, profile_names
from edgewright_profiles.cost import OperatorWork


@dataclass(frozen=True)
class Needs:
    """What an artifact takes wherever it runs; None: could not be found out."""

    format: ModelFormat
    precision: Precision
    artifact_bytes: int
    memory: PeakMemory | None
    work: Sequence[OperatorWork] | None
    """Of one inference at a byte an element, from which the latency on a profile is predicted."""
    int8_share: float = 1.0
    """Of the multiply-accumulates of INT8, the part that runs in it."""


def budget_checks(profile: HardwareProfile, needs: Needs) -> tuple[GateCheck, ...]:
    """One check for each budget that the profile sets, with where it would fit in case of a miss."""
    checks = _checks(profile, needs)
    if all(check.verdict != "fail" for check in checks):
        return checks
    fits = _nearest_that_fits(profile, needs)
    where = f"fits {fits}" if fits else "no profile of the catalog takes it"
    return tuple(
        check.model_copy(update={"remedy": f"make the model smaller, or choose another device: {where}"})
        if check.verdict == "fail"
        else check
        for check in checks
    )


def _nearest_that_fits(profile: HardwareProfile, needs: Needs) -> str | None:
    """The least of the other profiles, by its INT8 peak, none of whose budgets is missed."""
    others = [load_profile(name) for name in profile_names() if name != profile.name]
    fitting = [
        other
        for other in others
        if needs.format in other.formats and all(c.verdict != "fail" for c in _checks(other, needs))
    ]
    return min(fitting, key=lambda p: p.peak_macs_per_s("int8", 1)).name if fitting else None


def _checks(profile: HardwareProfile, needs: Needs) -> tuple[GateCheck, ...]:
    budgets = profile.budgets
    checks = []
    if budgets.artifact_bytes is not None:
        checks.append(
            _bytes_check("artifact-size", "the model file", needs.artifact_bytes, budgets.artifact_bytes)
        )
    if budgets.peak_memory_bytes is not None:
        checks.append(_memory(needs.memory, budgets.peak_memory_bytes))
    if budgets.latency_p99_s is not None:
        checks.append(_latency(profile, needs, budgets.latency_p99_s))
    if budgets.power_w is not None:
        checks.append(
            GateCheck(
                name="power",
                verdict="inconclusive",
                limit=budgets.power_w,
                unit="W",
                how="not measured",
                says=f"power was not measured; the budget of {profile.name} is {budgets.power_w:g} W",
                remedy="measure it on the device: its agent reports energy where there is a sensor",
            )
        )
    return tuple(checks)


def _bytes_check(name: str, what: str, actual: int, limit: int) -> GateCheck:
    verdict: Verdict = "pass" if actual <= limit else "fail"
    says = f"{what} takes {size(actual)}; the budget is {size(limit)}"
    return GateCheck(
        name=name,
        verdict=verdict,
        actual=actual,
        limit=limit,
        unit="bytes",
        how="measured on host",
        says=says,
    )


def _memory(memory: PeakMemory | None, limit: int) -> GateCheck:
    if memory is not None:
        whole = f"the model at run time (the whole process {size(memory.peak_bytes)}, " + (
            f"{size(memory.runtime_bytes)} of it before the model)"
        )
        return _bytes_check("peak-memory", whole, memory.model_bytes, limit)
    return GateCheck(
        name="peak-memory",
        verdict="inconclusive",
        limit=limit,
        unit="bytes",
        how="not measured",
        says=f"peak memory was not measured: this system does not tell it; the budget is {size(limit)}",
        remedy="convert on Linux",
    )


def _latency(profile: HardwareProfile, needs: Needs, limit: float) -> GateCheck:
    budget = f"the budget of {profile.name} is {seconds(limit)}"
    if needs.work is None:
        return GateCheck(
            name="latency",
            verdict="inconclusive",
            limit=limit,
            unit="s",
            how="not measured",
            says=f"latency on the device could be neither measured nor predicted; {budget}",
            remedy="measure it on the device with 'edgewright bench'",
        )
    accelerator = profile.accelerator_for(needs.format)
    predicted = latency_of(needs.work, profile, needs.format, needs.precision, needs.int8_share)
    place = f"the {accelerator.name}" if accelerator else "one core"
    low, high = predicted.low_seconds, predicted.high_seconds
    verdict: Verdict = "pass" if high <= limit else "fail" if low > limit else "inconclusive"
    remedy = "measure it on the device with 'edgewright bench'" if verdict == "inconclusive" else None
    return GateCheck(
        name="latency",
        verdict=verdict,
        actual=predicted.seconds,
        low=low,
        high=high,
        limit=limit,
        unit="s",
        how="predicted",
        says=f"predicted {seconds(predicted.seconds)} ({seconds(low)}–{seconds(high)}) on {place}; {budget}",
        remedy=remedy,
    )
