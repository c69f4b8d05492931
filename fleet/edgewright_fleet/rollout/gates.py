"""Gates: whether what devices measured lets a rollout go on. Three-valued, and closed where data is missing.

What missing data means is decided here and nowhere else: too few inferences, before or after, is
`inconclusive`; a device that served nothing before has no baseline, so its latency is not compared, only its
errors are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel

from edgewright.contract import CONTRACT
from edgewright.telemetry.histogram import ExponentialHistogram, merged
from edgewright_fleet.rollout.spec import Gates

Verdict = Literal["pass", "fail", "inconclusive"]


class Measured(BaseModel):
    """What a device measured of one release."""

    model_config = CONTRACT
    latency: ExponentialHistogram = ExponentialHistogram(scale=20)
    errors: int = 0

    @property
    def inferences(self) -> int:
        return self.latency.count + self.errors

    def plus(self, latency: ExponentialHistogram, errors: int) -> Measured:
        """With one more window."""
        return Measured(latency=merged((self.latency, latency)), errors=self.errors + errors)


@dataclass(frozen=True)
class GateResult:
    """A verdict with its reason in words and the figures behind it."""

    verdict: Verdict
    sentence: str
    evidence: dict[str, float | int | str]


def judge_device(device: str, before: Measured | None, after: Measured, gates: Gates) -> GateResult:
    """One device on the new release against itself on the old; `before` is None where it served nothing."""
    evidence: dict[str, float | int | str] = {
        "device": device,
        "inferences": after.inferences,
        "errors": after.errors,
    }
    if after.inferences < gates.min_inferences:
        sentence = (
            f"{device}: {after.inferences} inferences on the new release, {gates.min_inferences} are needed"
        )
        return GateResult("inconclusive", sentence, evidence)
    share = after.errors / after.inferences
    if share > gates.max_error_share:
        sentence = f"{device}: {after.errors} of {after.inferences} inferences failed ({share:.1%})"
        return GateResult("fail", f"{sentence}, at most {gates.max_error_share:.1%} may", evidence)
    if before is None:
        return GateResult("pass", f"{device}: {after.inferences} inferences, {share:.1%} errors", evidence)
    if before.latency.count < gates.min_inferences:
        sentence = f"{device}: {before.latency.count} inferences before, {gates.min_inferences} are needed"
        return GateResult("inconclusive", sentence, evidence)
    for label, quantile, limit in (("p50", 0.5, gates.max_p50_ratio), ("p99", 0.99, gates.max_p99_ratio)):
        old, new = before.latency.quantile(quantile), after.latency.quantile(quantile)
        evidence |= {f"{label}_before_s": old, f"{label}_after_s": new}
        # Written so that a ratio that is no number fails.
        if not new <= limit * old:
            times = f"{new / old:.1f} times" if old > 0 else "not comparable with"
            sentence = f"{device}: {label} latency {new * 1e3:.3g} ms, {times} the {old * 1e3:.3g} ms before"
            return GateResult("fail", f"{sentence}; at most {limit:g} times is allowed", evidence)
    old, new = before.latency.quantile(0.5), after.latency.quantile(0.5)
    return GateResult("pass", f"{device}: p50 {new * 1e3:.3g} ms against {old * 1e3:.3g} ms before", evidence)


def judge(results: Sequence[GateResult]) -> GateResult:
    """All devices together: one failure fails, an inconclusive one leaves it so, nothing passes on nothing."""
    for verdict in ("fail", "inconclusive"):
        found = [result for result in results if result.verdict == verdict]
        if found:
            more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
            return GateResult(found[0].verdict, found[0].sentence + more, found[0].evidence)
    if not results:
        return GateResult("inconclusive", "no device that could be judged", {})
    worst = max(results, key=lambda r: _ratio(r.evidence))
    sentence = f"{len(results)} device{'s' if len(results) > 1 else ''} passed; {worst.sentence}"
    return GateResult("pass", sentence, worst.evidence)


def _ratio(evidence: dict[str, float | int | str]) -> float:
    before, after = evidence.get("p50_before_s"), evidence.get("p50_after_s")
    return float(after) / float(before) if before and after else 0.0
