"""The gate: everything asked of an artifact before it may be released, and the one verdict over it.

`accuracy_gate` judges accuracy, `budgets` the profile's limits; here are the shares that run in INT8, speed and
size against float, and the whole. A check that could not be made is inconclusive, never a pass.
"""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import replace

from edgewright.artifact.manifest import FloatOperator, GateCheck, GateReport, LatencyFigure, Verdict
from edgewright.figures import size
from edgewright_converters.accuracy_gate import GateLimits, accuracy_checks
from edgewright_converters.budgets import Needs, budget_checks
from edgewright_converters.operators import ExecutedOperator, int8_mac_share
from edgewright_converters.precision_choice import HOLLOW
from edgewright_converters.prediction import seconds_of
from edgewright_converters.quantise import QuantisedModel
from edgewright_converters.target_rules import as_executed_there, rule_checks
from edgewright_converters.verify import VerifiedModel
from edgewright_profiles import HardwareProfile
from edgewright_profiles.cost import OperatorWork

ACCURACY_CHECKS = frozenset({"accuracy", "outputs"})
_MOVES_DATA = frozenset(
    {"Shape", "Constant", "Reshape", "Flatten", "RESHAPE", "ReorderInput", "ReorderOutput"}
)
"""Compute nothing, so that their numeric format says nothing."""
UNROLLED = 4
"""Times as many operators as the model has: what no other rewriting for TFLite comes to."""


def gate(
    verified: VerifiedModel,
    profile: HardwareProfile,
    limits: GateLimits,
    *,
    work: Sequence[OperatorWork] | None,
    predicted: Sequence[LatencyFigure],
    conversion_s: float,
) -> GateReport:
    """Ask every question of one artifact for one profile.

    `work` is that of one inference at a byte an element, `predicted` the latencies predicted there.
    """
    model = verified.model
    there = integer_share(verified, profile)
    verified = replace(verified, operators=as_executed_there(verified.operators, model, profile))
    share = int8_mac_share(verified.operators)
    needs = Needs(model.format, model.precision, len(model.data), verified.memory, work, there)
    left = _float_operators(verified.operators, verified.model, profile)
    checks = (
        *accuracy_checks(verified.accuracy, limits, _classes(model)),
        _int8_share(verified, share, left),
        *rule_checks(model, profile),
        _speed(verified, profile, predicted),
        _size(verified, profile, work),
        *budget_checks(profile, needs),
    )
    timed = any(operator.seconds is not None for operator in verified.operators)
    return GateReport(
        verdict=overall(checks),
        checks=checks,
        int8_mac_share=share,
        float_operators=left,
        operator_time="measured on host" if timed else "predicted",
        runtime_memory_bytes=verified.memory.runtime_bytes if verified.memory else None,
        peak_memory_bytes=verified.memory.peak_bytes if verified.memory else None,
        conversion_s=conversion_s,
    )


def _classes(model: QuantisedModel) -> int | None:
    """How many classes a classifier scores: its one output of two axes."""
    return next((s.source_shape[1] for s in model.outputs if len(s.source_shape) == 2), None)


def integer_share(verified: VerifiedModel, profile: HardwareProfile) -> float:
    """The part of the multiply-accumulates that the artifact runs in INT8 on the profile, where INT8 was asked for
    and there are any; else all."""
    if verified.model.precision not in ("int8", "int8-dynamic"):
        return 1.0
    share = int8_mac_share(as_executed_there(verified.operators, verified.model, profile))
    return 1.0 if share is None else share


def overall(checks: Sequence[GateCheck]) -> Verdict:
    """The verdict over all checks, as `GateReport` words it."""
    if any(check.verdict == "fail" for check in checks):
        return "fail"
    accuracy = [check for check in checks if check.name in ACCURACY_CHECKS]
    if not accuracy or any(check.verdict == "inconclusive" for check in accuracy):
        return "inconclusive"
    return "pass"


def worst(verdicts: Sequence[Verdict]) -> Verdict:
    """The verdict over several artifacts: no better than that of any of them."""
    order: tuple[Verdict, ...] = ("fail", "inconclusive", "pass")
    return min(verdicts, key=order.index, default="inconclusive")


def _int8_share(verified: VerifiedModel, share: float | None, left: tuple[FloatOperator, ...]) -> GateCheck:
    """A model that was asked to be INT8 and runs in float is a failure, however accurate it is."""
    computing = [o for o in verified.operators if not o.conversion and o.type not in _MOVES_DATA]
    integer = sum(o.integer for o in computing) / len(computing) if computing else 0.0
    actual, what = (share, "multiply-accumulates") if share is not None else (integer, "operators")
    verdict: Verdict = "pass"
    says, remedy = f"{actual:.1%} of the {what} run in INT8", None
    if all(o.seconds is None for o in verified.operators):
        says += ", by the types in the file"
    if left:
        says += f"; left in float: {', '.join(f'{o.type} {o.name}' for o in left[:3])}"
        says += f" and {len(left) - 3} more" if len(left) > 3 else ""
    if verified.model.precision not in ("int8", "int8-dynamic"):
        says = f"the artifact is {verified.model.precision}, which computes in float: {says}"
    elif actual == 0.0:
        verdict, says = "fail", f"none of the {what} run in INT8: the model was left in float"
        remedy = "replace the operators that have no INT8 form, or ask for the other --format"
    elif actual < HOLLOW:
        verdict, says = "inconclusive", f"MOSTLY FLOAT: only {says}"
        remedy = "leave --precision to the converter, or see what another --format comes to"
    return GateCheck(
        name="int8-share",
        verdict=verdict,
        actual=actual,
        limit=0.0,
        unit=f"share of {what}",
        how="measured on host" if any(o.seconds is not None for o in verified.operators) else "predicted",
        says=says,
        remedy=remedy,
    )


def _float_operators(
    operators: Sequence[ExecutedOperator], model: QuantisedModel, profile: HardwareProfile
) -> tuple[FloatOperator, ...]:
    """Each with its share of the time: measured where the runtime tells any, else predicted on the profile."""
    timed = any(operator.seconds is not None for operator in operators)
    times = [
        operator.seconds or 0.0
        if timed
        else seconds_of(operator.work, profile, model.format, integer=operator.integer)
        for operator in operators
    ]
    macs, whole = sum(operator.work.macs for operator in operators), sum(times)
    return tuple(
        FloatOperator(
            name=operator.name,
            type=operator.type,
            mac_share=operator.work.macs / macs if macs else None,
            time_share=min(1.0, time / whole) if whole else None,
        )
        for operator, time in zip(operators, times, strict=True)
        if not operator.integer and not operator.conversion and operator.type not in _MOVES_DATA
    )


def _speed(
    verified: VerifiedModel, profile: HardwareProfile, predicted: Sequence[LatencyFigure]
) -> GateCheck:
    """Slower than float on this host is said, not failed: the host is not the device, and size may be the aim."""
    speedup = verified.speedup
    accelerator = profile.accelerator_for(verified.model.format)
    if verified.model.precision == "float32":
        return GateCheck(
            name="speed",
            verdict="pass",
            actual=1.0,
            limit=1.0,
            unit="times float's speed",
            how="measured on host",
            says="the artifact is float itself",
        )
    by_precision = {figure.precision: figure.p50_s for figure in predicted}
    own = by_precision.get(verified.model.precision)
    there = f"; predicted on {profile.name}: {by_precision['float32'] / own:.2f} times" if own else ""
    if speedup is None or accelerator is not None:
        not_here = f" on the {accelerator.name}, which is not here" if accelerator else ""
        return GateCheck(
            name="speed",
            verdict="inconclusive",
            limit=1.0,
            unit="times float's speed",
            how="not measured",
            says=f"speed against float was not measured{not_here}{there}",
            remedy="measure both on the device with 'edgewright bench'",
        )
    interval = f"({speedup.low:.2f}–{speedup.high:.2f}, {speedup.pairs} pairs)"
    where = f"on this host ({platform.machine()}, one thread)"
    verdict: Verdict = "inconclusive"
    remedy: str | None = "measure both on the device with 'edgewright bench' before relying on it"
    if speedup.low > 1.0:
        verdict, remedy = "pass", None
        says = f"{speedup.ratio:.2f} times as fast as float {interval} {where}{there}"
    elif speedup.high < 1.0:
        says = f"SLOWER than float: {speedup.ratio:.2f} times its speed {interval} {where}{there}"
    else:
        says = f"as fast as float or not, that is open: {speedup.ratio:.2f} times {interval} {where}{there}"
    return GateCheck(
        name="speed",
        verdict=verdict,
        actual=speedup.ratio,
        low=speedup.low,
        high=speedup.high,
        limit=1.0,
        unit="times float's speed",
        how="measured on host",
        says=says,
        remedy=remedy,
    )


def _size(
    verified: VerifiedModel, profile: HardwareProfile, work: Sequence[OperatorWork] | None
) -> GateCheck:
    """A file larger than float's is said, not failed: it may be worth its speed, and a budget is the profile's."""
    model, whole = verified.model, verified.float_bytes
    count = len(model.data)
    larger = round(count / whole, 2) > 1
    says = f"the model file takes {size(count)}, {count / whole:.2f} times float's {size(whole)}"
    remedy = None
    if larger:
        operators = len(verified.operators)
        unrolled = model.format == "tflite" and work is not None and operators > UNROLLED * len(work)
        of = f" (the model has {len(work)}: TFLite unrolls a recurrent layer)" if work and unrolled else ""
        says = (
            f"LARGER than float: {says}: the scales and conversions of its {operators} operators{of} weigh more "
            f"than {model.precision} saves of the weights"
        )
        remedy = "--precision float32 is smaller, where size matters more than speed"
        if unrolled and "onnx" in profile.formats:
            remedy += "; --format onnx holds a recurrent layer as one operator"
    return GateCheck(
        name="size",
        verdict="inconclusive" if larger else "pass",
        actual=count,
        limit=whole,
        unit="bytes",
        how="measured on host",
        says=says,
        remedy=remedy,
    )
