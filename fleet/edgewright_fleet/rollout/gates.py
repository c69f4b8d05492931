"""Gates: whether what devices measured lets a rollout go on. Three-valued, and closed where data is missing.

What missing data means is decided here and nowhere else: too few inferences, before or after, is
`inconclusive`; a device that served nothing before has no baseline, so its latency is not compared, only its
errors are. A ratio that is no number fails.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal

from pydantic import ConfigDict, Field

from edgewright.contract import CONTRACT
from edgewright.telemetry.sequences import Ranges, received
from edgewright.telemetry.window import TelemetryWindow
from edgewright_fleet.rollout.packed import PackedHistogram, packed
from edgewright_fleet.rollout.spec import Gates

Verdict = Literal["pass", "fail", "inconclusive"]
Evidence = dict[str, float | int | str]

KEPT_BOOTS = 8
"""How many past boots of a device are told apart; a message is not late by more restarts than this."""
_EMPTY = PackedHistogram()


@dataclass(frozen=True, slots=True)
class Measured:
    """What a device measured of one release; the histogram holds the inferences that succeeded, in seconds."""

    __pydantic_config__: ClassVar[ConfigDict] = CONTRACT
    latency: PackedHistogram = field(default_factory=lambda: _EMPTY)
    errors: Annotated[int, Field(ge=0)] = 0
    throttled: Annotated[
        int,
        Field(ge=0, description="inferences that succeeded while the device was throttled; not in `latency`"),
    ] = 0
    seen: Annotated[
        tuple[tuple[str, Ranges], ...],
        Field(description="boots with the sequences of their windows in it; the last heard of is last"),
    ] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "latency", packed(self.latency))

    @property
    def inferences(self) -> int:
        return self.latency.count + self.throttled + self.errors

    def plus(self, window: TelemetryWindow) -> Measured:
        """With one more window of the release; itself where that window is in it already."""
        had = dict(self.seen).get(window.boot, ())
        has = received(had, window.sequence)
        if has is had:
            return self
        others = tuple(entry for entry in self.seen if entry[0] != window.boot)
        return Measured(
            latency=self.latency.plus(window.latency),
            errors=self.errors + window.errors,
            throttled=self.throttled + window.throttled.count,
            seen=(*others, (window.boot, has))[-KEPT_BOOTS:],
        )


@dataclass(frozen=True)
class GateResult:
    """A verdict with its reason in words and the figures behind it."""

    verdict: Verdict
    sentence: str
    evidence: Evidence


def judge_device(device: str, before: Measured | None, after: Measured, gates: Gates) -> GateResult:
    """One device on the new release against itself on the old; `before` is None where it served nothing."""
    need = gates.min_inferences
    evidence: Evidence = {"device": device, "inferences": after.inferences, "errors": after.errors}
    # So many errors that no number of successes up to `need` can mend it: known early, said early.
    if after.errors > gates.max_error_share * max(after.inferences, need):
        share = after.errors / after.inferences
        sentence = f"{device}: {after.errors} of {after.inferences} inferences failed ({share:.1%})"
        return GateResult("fail", f"{sentence}, at most {gates.max_error_share:.1%} may", evidence)
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
    for label, quantile, limit in (("p50", 0.5, gates.max_p50_ratio), ("p99", 0.99, gates.max_p99_ratio)):
        old, new = before.latency.quantile(quantile), after.latency.quantile(quantile)
        evidence |= {f"{label}_before_s": old, f"{label}_after_s": new, f"{label}_limit": limit}
        # Written so that a comparison with no number fails.
        if not new <= limit * old:
            times = f"{new / old:.1f} times" if old > 0 else "not comparable with"
            sentence = f"{device}: {label} latency {new * 1e3:.3g} ms, {times} the {old * 1e3:.3g} ms before"
            return GateResult("fail", f"{sentence}; at most {limit:g} times is allowed", evidence)
        ratios.append(f"{label} {new * 1e3:.3g} ms against {old * 1e3:.3g} ms before")
    return GateResult("pass", f"{device}: {', '.join(ratios)}", evidence)


def judge(results: Sequence[GateResult]) -> GateResult:
    """All devices together: one failure fails, an inconclusive one leaves it so, nothing passes on nothing."""
    for verdict in ("fail", "inconclusive"):
        found = [result for result in results if result.verdict == verdict]
        if found:
            more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
            return GateResult(found[0].verdict, found[0].sentence + more, found[0].evidence)
    if not results:
        return GateResult("inconclusive", "no device that could be judged", {})
    worst = max(results, key=lambda result: _ratio(result.evidence))
    sentence = f"{len(results)} device{'s' if len(results) > 1 else ''} passed; {worst.sentence}"
    return GateResult("pass", sentence, worst.evidence)


def _ratio(evidence: Evidence) -> float:
    before, after = evidence.get("p50_before_s"), evidence.get("p50_after_s")
    return float(after) / float(before) if before and after else 0.0
