"""Exponential histograms as OpenTelemetry defines them: merged without error, asked for quantiles.

Bucket `i` of scale `s` holds the values in (base^i, base^(i+1)] with base = 2^(2^-s), so the relative error
of a quantile is at most base - 1. Two histograms merge exactly after the finer one is brought to the
coarser scale, where bucket `i` becomes `i >> 1` a step.
Source: OpenTelemetry metrics data model 1.x, "ExponentialHistogram".
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

from pydantic import BaseModel, Field

from edgewright.contract import CONTRACT

Count = Annotated[int, Field(ge=0)]


class ExponentialHistogram(BaseModel):
    """Positive values (durations in seconds) counted by exponential buckets."""

    model_config = CONTRACT
    scale: int = Field(ge=-10, le=20)
    zero_count: Count = 0
    buckets: dict[int, Count] = Field(default_factory=dict, description="bucket index to count")
    total: float = Field(default=0.0, ge=0, description="sum of the values")

    @property
    def count(self) -> int:
        """How many values were recorded."""
        return self.zero_count + sum(self.buckets.values())

    def rescaled(self, scale: int) -> ExponentialHistogram:
        """The same values at a scale that is not finer."""
        shift = self.scale - scale
        if shift < 0:
            raise ValueError("a histogram cannot be made finer")
        if shift == 0:
            return self
        buckets: dict[int, int] = {}
        for index, count in self.buckets.items():
            buckets[index >> shift] = buckets.get(index >> shift, 0) + count
        return self.model_copy(update={"scale": scale, "buckets": buckets})

    def fitted(self, buckets: int) -> ExponentialHistogram:
        """The same values at the finest scale at which the lowest to the highest are at most `buckets`, 2 or more.

        With 1 there is none where values lie on both sides of 1 s, which is a bound at every scale.
        """
        if buckets < 2:
            raise ValueError("fewer than 2 buckets may never fit")
        if not self.buckets:
            return self
        low, high, shift = min(self.buckets), max(self.buckets), 0
        while (high >> shift) - (low >> shift) >= buckets:
            shift += 1
        return self.rescaled(self.scale - shift)

    def quantile(self, share: float) -> float:
        """The value below which `share` (0–1) of the values lie; NaN for an empty histogram.

        Within a bucket the geometric middle is taken, which halves the largest relative error.
        """
        if not 0.0 <= share <= 1.0:
            raise ValueError("share must lie between 0 and 1")
        if self.count == 0:
            return float("nan")
        rank = share * (self.count - 1)
        seen = float(self.zero_count)
        if rank < seen:
            return 0.0
        for index in sorted(self.buckets):
            seen += self.buckets[index]
            if rank < seen:
                break
        exponent = (index + 0.5) * 2.0**-self.scale
        # A device may send a bucket that no float can hold.
        return float("inf") if exponent >= 1024 else float(2.0**exponent)


def merged(histograms: Iterable[ExponentialHistogram]) -> ExponentialHistogram:
    """All the values of all the histograms, at the coarsest of their scales."""
    parts = [histogram for histogram in histograms if histogram.count]
    if not parts:
        return ExponentialHistogram(scale=20)
    scale = min(part.scale for part in parts)
    buckets: dict[int, int] = {}
    for part in parts:
        for index, count in part.rescaled(scale).buckets.items():
            buckets[index] = buckets.get(index, 0) + count
    return ExponentialHistogram(
        scale=scale,
        zero_count=sum(part.zero_count for part in parts),
        buckets=buckets,
        total=sum(part.total for part in parts),
    )
