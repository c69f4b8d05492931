"""Better, worse or inconclusive: what the figures of a comparison come to, against what was asked for.

A check passes or fails when the whole interval is on one side of its limit, and is inconclusive otherwise. One
that fails makes the candidate worse. All must hold for every artifact at once, which needs no correction: the
chance that a candidate which is no better is called so is at most that of one interval, 2.5 %.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from edgewright.artifact.comparison import (
    ArtifactComparison,
    Comparison,
    Criteria,
    PromotionVerdict,
    ReleaseId,
    SetComparison,
    alike,
)
from edgewright.artifact.manifest import GateCheck, GateReport, Verdict, failed_checks
from edgewright.artifact.release import Release, open_artifact
from edgewright.figures import points
from edgewright_converters.statistics import Z_95, samples_to_decide

MAX_NAMED = 3
"""Groups or reasons that a sentence names; the figures and checks hold all."""
SETTLED_LATER = "latency"
"""The one check that may stay open: the rollout compares each device with itself."""


def judge(
    serving: Release, candidate: Release, artifacts: Sequence[ArtifactComparison], criteria: Criteria
) -> Comparison:
    """The verdict on what `compare` found of the two releases, with its reasons. Raises `ArtifactError`."""
    checks: list[GateCheck] = []
    for found in artifacts:
        checks += _of_artifact(found, candidate, criteria)
    for where, found in alike(artifacts):
        checks += _of_quality(where, found.sets, criteria)
    if not any(check.name in ("gain", "quality") for check in checks):
        checks.append(_open("quality", "nothing was compared, so that nothing is known to be better"))
    verdict, says = _overall(checks)
    needed = [check.samples_needed for check in checks if check.verdict == "inconclusive" and _matters(check)]
    numbers = [number for number in needed if number is not None]
    return Comparison(
        serving=ReleaseId(name=serving.name, version=serving.version, digest=serving.digest),
        criteria=criteria,
        artifacts=tuple(artifacts),
        checks=tuple(checks),
        verdict=verdict,
        says=says,
        samples_needed=max(numbers) if verdict == "inconclusive" and len(numbers) == len(needed) else None,
    )


def _of_artifact(found: ArtifactComparison, candidate: Release, criteria: Criteria) -> Iterator[GateCheck]:
    where = f"{found.profile} {found.format}"
    if found.candidate is None:
        yield _open(
            "quality", f"{where}: {found.why_not}", "convert the candidate for every profile that is served"
        )
        return
    manifest = open_artifact(candidate.layout, candidate.artifacts[found.profile, found.format]).manifest
    yield _gate(where, manifest.gate, failed_checks(manifest))
    if found.serving is not None and not found.sets:
        why_not = found.why_not or "there was no labelled sample to compare on"
        yield _open("quality", f"{where}: {why_not}", "let a person decide, with what they know of the task")
    if found.latency is not None:
        latency, limit = found.latency, criteria.max_latency_ratio
        yield GateCheck(
            name=SETTLED_LATER,
            verdict="fail" if latency.low > limit else "pass" if latency.high <= limit else "inconclusive",
            actual=latency.ratio,
            low=latency.low,
            high=latency.high,
            limit=limit,
            unit="times",
            how="measured on host",
            says=f"{where}: {latency.ratio:.2f} ({latency.low:.2f} to {latency.high:.2f}) times the latency of "
            f"the model that serves, on this host; at most {limit:g} is asked",
            remedy="choose a smaller network, or allow more with max_latency_ratio"
            if latency.high > limit
            else None,
        )


def _of_quality(where: str, sets: Sequence[SetComparison], criteria: Criteria) -> Iterator[GateCheck]:
    by_role = {one.data: one for one in sets}
    held_out, field = by_role.get("held-out"), by_role.get("field")
    if field is not None:
        yield _gain(where, field, criteria.minimum_gain)
    elif held_out is not None and criteria.without_field_data == "held-out":
        yield _gain(where, held_out, criteria.minimum_gain)
    else:
        remedy = "label field data, or say without_field_data: held-out"
        yield _open(
            "gain", f"{where}: no field data is labelled, so that a gain there cannot be seen", remedy
        )
    if held_out is None:
        yield _open("loss", f"{where}: there is no held-out set", "give a labelled evaluation set")
    else:
        yield _loss(where, held_out, criteria.max_loss)
    for one in sets:
        yield _groups(where, one, criteria.max_group_loss)


def _gain(where: str, one: SetComparison, minimum: float) -> GateCheck:
    limit = minimum / 100
    verdict: Verdict = (
        "pass" if one.change.low > limit else "fail" if one.change.high < limit else "inconclusive"
    )
    asked = "more than nothing is asked" if minimum == 0 else f"more than {minimum:g} is asked"
    says = f"{where}: {points(one.change)} points on {_counted(one)}; {asked}"
    if verdict == "inconclusive":
        says += ", which is inside the interval"
    return _check("gain", verdict, one, minimum, says)


def _loss(where: str, one: SetComparison, most: float) -> GateCheck:
    limit = -most / 100
    verdict: Verdict = (
        "pass" if one.change.low >= limit else "fail" if one.change.high < limit else "inconclusive"
    )
    says = f"{where}: {points(one.change)} points on {_counted(one)}; a loss of {most:g} is allowed"
    if verdict == "inconclusive":
        says += ", which is inside the interval"
    return _check("loss", verdict, one, -most, says)


def _groups(where: str, one: SetComparison, most: float) -> GateCheck:
    worse = sorted((g for g in one.groups if g.high < -most / 100), key=lambda group: group.high)
    said = [
        f"{g.by} {g.group}: {g.change * 100:+.1f} ({g.low * 100:+.1f} to {g.high * 100:+.1f})"
        for g in worse[:MAX_NAMED]
    ]
    more = f" and {len(worse) - MAX_NAMED} more" if len(worse) > MAX_NAMED else ""
    level = "their intervals hold together with 95 %"
    if one.left_out:
        level += f"; too many values to look at: {', '.join(one.left_out)}"
    says = (
        f"{where}: {len(worse)} of {len(one.groups)} groups of the {one.data} data are worse for certain: "
        f"{'; '.join(said)}{more} points ({level})"
        if worse
        else f"{where}: none of {len(one.groups)} groups of the {one.data} data is worse for certain ({level})"
    )
    return GateCheck(
        name="groups",
        verdict="fail" if worse else "pass",
        actual=float(len(worse)),
        limit=0.0,
        unit="groups",
        how="measured on host",
        says=says,
        remedy="add samples of these groups to the training data" if worse else None,
    )


def _gate(where: str, gate: GateReport | None, failed: str | None) -> GateCheck:
    if gate is None:
        return _open(
            "gate", f"{where}: the converter's gate has not judged the candidate", "convert it again"
        )
    said = {
        "pass": "passed the converter's gate: accuracy against float, and the profile's budgets",
        "fail": f"failed the converter's gate: {failed}",
        "inconclusive": "was left open by the converter's gate: "
        + "; ".join(check.says for check in gate.checks if check.verdict == "inconclusive"),
    }[gate.verdict]
    return GateCheck(
        name="gate",
        verdict=gate.verdict,
        unit="verdict",
        how="measured on host",
        says=f"{where}: {said}",
        remedy=None if gate.verdict == "pass" else "'edgewright inspect' shows each check and what to do",
    )


def _overall(checks: Sequence[GateCheck]) -> tuple[PromotionVerdict, str]:
    failed = [check.says for check in checks if check.verdict == "fail"]
    if failed:
        return "worse", _joined(failed)
    still_open = [check.says for check in checks if check.verdict == "inconclusive" and _matters(check)]
    if still_open:
        return "inconclusive", _joined(still_open)
    return "better", _joined([check.says for check in checks if check.name in ("gain", "loss")])


def _joined(said: Sequence[str]) -> str:
    more = f"; and {len(said) - MAX_NAMED} more" if len(said) > MAX_NAMED else ""
    return "; ".join(said[:MAX_NAMED]) + more


def _matters(check: GateCheck) -> bool:
    return check.name != SETTLED_LATER


def _open(name: str, says: str, remedy: str | None = None) -> GateCheck:
    return GateCheck(
        name=name, verdict="inconclusive", unit="points", how="not measured", says=says, remedy=remedy
    )


def _check(name: str, verdict: Verdict, one: SetComparison, limit: float, says: str) -> GateCheck:
    needed = _needed(one, limit / 100) if verdict == "inconclusive" else None
    remedy = {
        "pass": None,
        "fail": "train on data like this, or keep the model that serves",
        "inconclusive": f"about {needed} labelled samples would decide it, if the models differ as on these"
        if needed
        else "no reasonable number of samples decides it: the models differ by as much as the limit",
    }[verdict]
    return GateCheck(
        name=name,
        verdict=verdict,
        actual=one.change.value * 100,
        low=one.change.low * 100,
        high=one.change.high * 100,
        limit=limit,
        unit="points",
        how="measured on host",
        samples_needed=needed,
        says=says,
        remedy=remedy,
    )


def _needed(one: SetComparison, limit: float) -> int | None:
    """More samples like those seen: the variance of one is read off the interval of all."""
    change = one.change
    variance = change.samples * ((change.high - change.low) / 2 / Z_95) ** 2
    return samples_to_decide(abs(change.value - limit), variance, Z_95**2, change.samples)


def _counted(one: SetComparison) -> str:
    words = "labelled field samples" if one.data == "field" else "held-out samples"
    if one.unweighted is None:
        return f"{one.change.samples} {words}"
    as_they_come = f"{points(one.unweighted)} as they come"
    return f"{one.change.samples} {words}, weighted by how likely each was selected ({as_they_come})"
