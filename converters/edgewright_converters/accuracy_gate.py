"""The gate's questions about accuracy: did the labelled samples, or the outputs themselves, hold the limits?

Every verdict here has three values, and none is a guess: a limit is held or missed when the whole 95 % interval is
on one side of it. Figures from the data that the model was calibrated on can show a loss but never rule one out.
"""

from __future__ import annotations

from dataclasses import dataclass

from edgewright.artifact.manifest import AccuracyReport, Difference, GateCheck, Proportion, Verdict
from edgewright_converters.statistics import samples_to_decide_difference, samples_to_decide_share

BROKEN_SQNR_DB = 3.0
"""Below this the noise carries half of the signal's power: no metric can rescue such outputs."""
CALIBRATION_REMEDY = "give --evaluation with labelled samples that were not calibrated on"
MATCH_REMEDY = (
    "check that 'y' numbers the classes as the model does, and that preprocessing is the training's"
)
RETRY_REMEDY = "calibrate on more data that is like the field's, or allow a larger --max-drop"
LABELS_REMEDY = "give --evaluation with labels ('y'), so that accuracy itself can be measured"


@dataclass(frozen=True)
class GateLimits:
    """What is asked of an artifact's accuracy."""

    max_drop: float = 1.0
    """Points of accuracy that INT8 may lose against float. 1.0: what four of five published classifiers hold."""
    min_sqnr_db: float | None = None
    """Decibels that each output's SQNR must reach; None asks only that no output is broken."""


def accuracy_checks(
    report: AccuracyReport, limits: GateLimits, classes: int | None = None
) -> tuple[GateCheck, ...]:
    """The check `accuracy` of a classifier with so many `classes`, and the check `outputs` of any model."""
    checks = []
    if report.data == "generated":
        checks.append(_unmeasured(limits.max_drop))
    elif report.change is not None:
        checks.append(_labelled(report.change, report, limits.max_drop, classes))
    elif report.agreement is not None:
        checks.append(_unlabelled(report.agreement, report, limits.max_drop))
    return (*checks, _outputs(report, limits.min_sqnr_db, judged_otherwise=bool(checks)))


def change_verdict(change: Difference, max_drop: float) -> Verdict:
    """Three-valued, for a limit in points: the whole interval decides, not the value."""
    if change.low >= -max_drop / 100:
        return "pass"
    return "fail" if change.high < -max_drop / 100 else "inconclusive"


def _labelled(change: Difference, report: AccuracyReport, max_drop: float, classes: int | None) -> GateCheck:
    verdict = change_verdict(change, max_drop)
    seen = (
        f"accuracy changed by {change.value * 100:+.2f} points ({change.low * 100:+.2f} to "
        f"{change.high * 100:+.2f}) on {change.samples} labelled samples"
    )
    limit = f"the limit is -{max_drop:g}"
    needed: int | None = None
    remedy: str | None = None
    if verdict == "fail":
        says, remedy = f"{seen}; {limit}, and the whole interval is below it", RETRY_REMEDY
    elif (right := report.float_accuracy) is not None and classes and right.low <= 1 / classes:
        # Against labels that are not the model's own, any two models lose nothing against each other.
        says = (
            f"{seen}, but float itself is right on {right.value:.1%} ({right.low:.1%}–{right.high:.1%}), which "
            f"may be chance among {classes} classes"
        )
        verdict, remedy = "inconclusive", MATCH_REMEDY
    elif report.data == "calibration":
        says = f"{seen}, but on the data that it was calibrated on, which proves nothing about other data"
        verdict, remedy = "inconclusive", CALIBRATION_REMEDY
    elif verdict == "pass":
        says = f"{seen}; {limit}, and the whole interval is above it"
    else:
        needed = samples_to_decide_difference(change, -max_drop / 100)
        says = f"{seen}; {limit}, inside the interval"
        remedy = f"about {needed} labelled samples would decide it, if the models differ as often as on these"
        if needed is None:
            remedy = (
                "no reasonable number of samples decides it: the change sits at the limit; set another one"
            )
    return _check("accuracy", verdict, -max_drop, says, remedy, needed, _points(change))


def _unmeasured(max_drop: float) -> GateCheck:
    return GateCheck(
        name="accuracy",
        verdict="inconclusive",
        limit=-max_drop,
        unit="points",
        how="not measured",
        says="accuracy was not measured: there was neither calibration nor evaluation data",
        remedy=LABELS_REMEDY,
    )


def _unlabelled(agreement: Proportion, report: AccuracyReport, max_drop: float) -> GateCheck:
    """|change of accuracy| <= share of samples whose top class changed: a sample that kept it kept its rightness.

    So the bound can pass, but not fail: a class may change from wrong to right.
    """
    changed = Proportion(
        value=1 - agreement.value,
        low=1 - agreement.high,
        high=1 - agreement.low,
        samples=agreement.samples,
    )
    seen = (
        f"the top class changed on {changed.value:.2%} ({changed.low * 100:.2f}–{changed.high * 100:.2f}) of "
        f"{changed.samples} samples without labels"
    )
    verdict: Verdict = "inconclusive"
    needed = None
    remedy: str | None
    if report.data == "calibration":
        says = f"{seen}, but on the data that it was calibrated on; accuracy itself was not measured"
        remedy = CALIBRATION_REMEDY
    elif changed.high <= max_drop / 100:
        verdict, remedy = "pass", None
        says = f"{seen}: bounded by agreement within {max_drop:g} points; accuracy itself was not measured"
    else:
        needed = samples_to_decide_share(changed, max_drop / 100)
        says = f"{seen}, which bounds the loss at {changed.high * 100:.2f} points, not at {max_drop:g}"
        says = f"{says}; accuracy itself was not measured"
        remedy = LABELS_REMEDY
        if needed is not None:
            remedy = f"{LABELS_REMEDY}; or {needed} samples without labels, if they agree as often"
    bounds = (-changed.value * 100, -changed.high * 100, -changed.low * 100)
    return _check("accuracy", verdict, -max_drop, says, remedy, needed, bounds)


def _outputs(report: AccuracyReport, min_sqnr_db: float | None, *, judged_otherwise: bool) -> GateCheck:
    name, worst = min(report.sqnr_db.items(), key=lambda item: item[1], default=("none", 200.0))
    seen = f"output '{name}' has an SQNR of {worst:.1f} dB"
    if name in report.cosine:
        seen += f" and a cosine of {report.cosine[name]:.4f}"
    if report.data == "generated":
        seen += " on generated noise"
    limit = BROKEN_SQNR_DB if min_sqnr_db is None else max(min_sqnr_db, BROKEN_SQNR_DB)
    verdict: Verdict = "pass"
    says, remedy = f"{seen}; at least {limit:g} dB were asked for", None
    if worst < BROKEN_SQNR_DB:
        verdict, says = "fail", f"{seen}: it is broken, under {BROKEN_SQNR_DB:g} dB nothing of float is left"
        remedy = "check that the calibration data is like the data in the field"
    elif worst < limit:
        verdict, remedy = "fail", "calibrate on more data, or ask for less with --min-sqnr"
    elif report.data == "generated" and min_sqnr_db is not None:
        verdict, remedy = "inconclusive", "give --evaluation"
        says = f"{seen}, which says little of real data"
    elif judged_otherwise and min_sqnr_db is None:
        says = f"{seen}: not broken"
    elif report.data == "calibration":
        verdict, remedy = "inconclusive", "give --evaluation with samples that were not calibrated on"
        says = f"{seen}, on the data that it was calibrated on; accuracy itself was not measured"
    elif min_sqnr_db is None:
        verdict, remedy = "inconclusive", "say with --min-sqnr what the task needs, in decibels"
        says = f"{seen}: not broken, but what that does to the task was not measured"
    return GateCheck(
        name="outputs",
        verdict=verdict,
        actual=worst,
        limit=limit,
        unit="dB",
        how="measured on host",
        says=says,
        remedy=remedy,
    )


def _points(change: Difference) -> tuple[float, float, float]:
    return change.value * 100, change.low * 100, change.high * 100


def _check(
    name: str,
    verdict: Verdict,
    limit: float,
    says: str,
    remedy: str | None,
    needed: int | None,
    bounds: tuple[float, float, float],
) -> GateCheck:
    actual, low, high = bounds
    return GateCheck(
        name=name,
        verdict=verdict,
        actual=actual,
        low=low,
        high=high,
        limit=limit,
        unit="points",
        how="measured on host",
        samples_needed=needed,
        says=says,
        remedy=remedy,
    )
