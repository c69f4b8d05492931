"""The winner rule: whether ours is ahead of a peer, level with it or behind, in accuracy and in speed.

A verdict needs evidence: where the 95 % interval of the paired difference holds nought, or the rounds disagree
about which is faster, the two are level.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from benchmarks.converters.results import ModelResult, Ratio, Row
from edgewright.artifact.manifest import Difference

Verdict = Literal["ahead", "level", "behind"]
TIMING_TOLERANCE = 0.03
"""Latencies closer than this are the same: a second run on the same host orders them otherwise."""


def ratio(numerator: Sequence[float], denominator: Sequence[float]) -> Ratio:
    """Of latencies measured in the same rounds."""
    by_round = np.asarray(numerator) / np.asarray(denominator)
    return Ratio(value=float(np.median(by_round)), low=float(by_round.min()), high=float(by_round.max()))


def accuracy_verdict(ours_minus_peer: Difference) -> Verdict:
    if ours_minus_peer.high < 0:
        return "behind"
    return "ahead" if ours_minus_peer.low > 0 else "level"


def speed_verdict(our_time_over_peer: Ratio) -> Verdict:
    if our_time_over_peer.low > 1 and our_time_over_peer.value > 1 + TIMING_TOLERANCE:
        return "behind"
    if our_time_over_peer.high < 1 and our_time_over_peer.value < 1 - TIMING_TOLERANCE:
        return "ahead"
    return "level"


def behind(model: ModelResult) -> list[tuple[Row, tuple[str, ...]]]:
    """The peers that ours is behind on this model, and in what; those that failed are no rivals."""
    found = []
    for row in model.rows:
        if row.against_ours is None:
            continue
        where = []
        if accuracy_verdict(row.against_ours.accuracy) == "behind":
            where.append("accuracy")
        if speed_verdict(row.against_ours.time) == "behind":
            where.append("speed")
        if where:
            found.append((row, tuple(where)))
    return found
