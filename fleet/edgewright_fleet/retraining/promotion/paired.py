"""`Tally`: two models on the same samples, counted by which of them was right, and what may be concluded from it.

It holds five sums for each power of two among the weights, so that its size does not depend on
the data's. Samples are taken as independent of each other: many of one moment (a camera before a still scene)
tell less than the intervals here say.

Where samples were selected with unequal, known probabilities, each counts with one over its own: the Hájek
estimator (Särndal, Swensson and Wretman 1992, "Model Assisted Survey Sampling", section 5.7), so that hard
examples, which are selected more often, do not pass for what the field is like. Its usual interval, from the
linearised variance, is far too narrow where few samples carry most of the weight and none of them happens to
differ (measured: 81 % in place of 95 %). So samples of like weight form a stratum, each with its own score
interval, which holds at nought too; they are put together by the squared distances of their ends, with the
spread between strata added.
Source: Zou and Donner 2008, "Construction of confidence limits about effect measures: a general approach".
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

from edgewright_converters.statistics import Z_95, paired_interval, score_interval


@dataclass(frozen=True)
class Interval:
    """A figure with its interval."""

    value: float
    low: float
    high: float


@dataclass
class _Stratum:
    """Samples whose weights differ by less than a factor of two, by (right by serving, right by candidate)."""

    weight: dict[tuple[bool, bool], float] = field(
        default_factory=lambda: dict.fromkeys(
            ((False, False), (False, True), (True, False), (True, True)), 0.0
        )
    )
    square: float = 0.0

    @property
    def total(self) -> float:
        return sum(self.weight.values())

    @property
    def effective(self) -> float:
        """As many equally weighted samples as these are worth: Kish 1965, "Survey sampling", section 11.7."""
        return self.total**2 / self.square

    def shares(self) -> tuple[float, float, float, float]:
        """Of neither, the candidate alone, the serving model alone, both."""
        neither, gained, lost, both = (weight / self.total for weight in self.weight.values())
        return neither, gained, lost, both


Figure = Callable[[_Stratum, float], Interval]
"""What a stratum by itself says of a figure, at the level that z sets."""


@dataclass
class Tally:
    """The samples so far."""

    samples: int = 0
    lost: int = 0
    """Samples that only the serving model has right."""
    gained: int = 0
    """Samples that only the candidate has right."""
    strata: dict[int, _Stratum] = field(default_factory=dict)

    def add(self, serving: bool, candidate: bool, weight: float = 1.0) -> None:
        """One sample: which of the models was right, and what it counts (at least 1)."""
        self.samples += 1
        self.lost += serving and not candidate
        self.gained += candidate and not serving
        stratum = self.strata.setdefault(math.frexp(weight)[1], _Stratum())
        stratum.weight[serving, candidate] += weight
        stratum.square += weight * weight

    def serving(self) -> Interval:
        """The share that the serving model has right."""
        return self._together(_serving, Z_95, least=0.0)

    def candidate(self) -> Interval:
        """The share that the candidate has right."""
        return self._together(_candidate, Z_95, least=0.0)

    def change(self, z: float = Z_95) -> Interval:
        """The candidate's share minus the serving model's; `z` sets the level of the interval."""
        return self._together(_change, z, least=-1.0)

    def _together(self, figure: Figure, z: float, least: float) -> Interval:
        total = sum(stratum.total for stratum in self.strata.values())
        parts = [(s.total / total, s.effective, figure(s, z)) for s in self.strata.values()]
        value = min(1.0, sum(share * part.value for share, _, part in parts))
        below = above = 0.0
        for share, effective, part in parts:
            between = (z * (part.value - value)) ** 2 / effective
            below += share**2 * ((part.value - part.low) ** 2 + between)
            above += share**2 * ((part.high - part.value) ** 2 + between)
        return Interval(value, max(least, value - math.sqrt(below)), min(1.0, value + math.sqrt(above)))


def _serving(stratum: _Stratum, z: float) -> Interval:
    _, _, lost, both = stratum.shares()
    return _scored(lost + both, stratum.effective, z)


def _candidate(stratum: _Stratum, z: float) -> Interval:
    _, gained, _, both = stratum.shares()
    return _scored(gained + both, stratum.effective, z)


def _scored(share: float, samples: float, z: float) -> Interval:
    share = min(1.0, share)
    return Interval(share, *score_interval(share, samples, z))


def _change(stratum: _Stratum, z: float) -> Interval:
    neither, gained, lost, both = (share * stratum.effective for share in stratum.shares())
    low, high = paired_interval(both=both, lost=lost, gained=gained, neither=neither, z=z)
    value = (gained - lost) / stratum.effective
    return Interval(value, min(low, value), max(high, value))


def mcnemar_p(lost: int, gained: int) -> float:
    """Exact two-sided p of as uneven a split of the discordant samples where the models are equally good.

    2 P(X <= min), X ~ Binomial(lost + gained, 1/2): McNemar 1947, "Note on the sampling error of the difference
    between correlated proportions or percentages", in its exact form (Fay 2010).
    """
    n, least = lost + gained, min(lost, gained)
    log_term = math.lgamma(n + 1) - math.lgamma(least + 1) - math.lgamma(n - least + 1) - n * math.log(2)
    # From the greatest term down: each is the one before times k / (n - k + 1).
    relative, total = 1.0, 0.0
    for k in range(least, -1, -1):
        total += relative
        relative *= k / (n - k + 1)
        if relative < total * 1e-17:
            break
    return min(1.0, 2 * math.exp(log_term) * total)
