"""The sequential tests behind the gates: when failures, or slower devices, are too many to be chance.

Both may be looked at after every device, for as long as one likes: their errors hold for all looks together.

*Failures* (`failure_test`): one yes or no a device. The statistic is a mixture likelihood ratio (Robbins 1970,
"Statistical Methods Related to the Law of the Iterated Logarithm"; Johari et al. 2017, "Always Valid
Inference") of three shares that are bad against the greatest that is healthy: it is near the optimum at each of
them, where Wald's 1945 test is so at one alone. Wald's threshold 1/α is not used to the full, since a device
that fails overshoots it; ours is the least one whose exact error is at most α.

*Measurements* (`median_exceeds`, `median_interval`): one ratio a device, of which a few may be anything at
all. A bound on means needs moments or bounds that ratios of latencies do not have, and the asymptotic ones
need more devices than a wave has. The signs of differences from a limit need neither: under the hypothesis
that at most half of the devices lie above the limit, the signs are a game that is not in our favour, whose
capital exceeds 1/α with probability under α (Ville 1939; the mixture is Robbins', as in Howard and Ramdas
2022, "Sequential estimation of quantiles", section 3).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

MIXTURE = ((1.0, 6 / 9), (2.0, 2 / 9), (6.0, 1 / 9))
"""Bad shares in units of the least one, with their weights. Of ten that were tried, at equal error and for 1,000
devices, this one lets a release that fails on 5 % of them reach 2 % more than the optimum for 5 % alone does
(Wald's test), and 7 and 17 % fewer than that where it fails on 10 and 30 %."""
FAILURES_PART = 0.98
"""Of α that the failure test gets; the metrics share the rest (weighted Bonferroni: the parts add up to α,
whatever depends on what). So small a part costs a test of signs six devices more than an even split would."""
EXACT_DEVICES = 2000
"""So many devices are followed exactly; what comes after them is bounded by Ville's inequality."""


@dataclass(frozen=True)
class FailureTest:
    """When to stop: at `limits[n]` failures among the first `n` devices, or more. The error is at most
    `alpha`."""

    alpha: float
    error: float
    """The exact one, as far as `EXACT_DEVICES` goes."""
    limits: tuple[int, ...]

    def limit(self, devices: int) -> int:
        """How many failures among so many devices stop a rollout."""
        return self.limits[min(max(devices, 0), len(self.limits) - 1)]


@lru_cache(maxsize=16)
def failure_test(healthy: float, bad: float, alpha: float, devices: int) -> FailureTest:
    """The test of a release that fails on at most `healthy` of the devices against one that fails on `bad` or
    more.

    A release is stopped wrongly with probability at most `alpha`, at whichever times one looks and in
    whatever order devices answer, where each fails with probability `healthy` or less whatever the others
    did; also where exactly that share of them fails and they are asked in random order (sampling without
    replacement varies less). Devices that were asked and have not answered count as sound, which can only
    delay a stop.
    """
    followed, beyond = min(devices, EXACT_DEVICES), devices > EXACT_DEVICES
    # Wald's threshold always holds, so that the bisection has an end that does.
    low, high = 0.0, -math.log(alpha)
    limits = _limits(healthy, bad, high, followed)
    error = false_stop(limits, healthy, bad, high, beyond=beyond)
    for _ in range(24):
        middle = (low + high) / 2
        tried = _limits(healthy, bad, middle, followed)
        if tried == limits and not beyond:
            high = middle
        elif (of_tried := false_stop(tried, healthy, bad, middle, beyond=beyond)) <= alpha:
            high, limits, error = middle, tried, of_tried
        else:
            low = middle
    return FailureTest(alpha, error, _limits(healthy, bad, high, devices) if beyond else limits)


def log_ratio(devices: int, failures: int, healthy: float, bad: float) -> float:
    """Log likelihood of a mixture of bad releases over that of the healthy one."""
    terms = []
    for times, weight in MIXTURE:
        share = min(times * bad, (1 + max(bad, 0.9)) / 2)
        passed = (devices - failures) * (math.log1p(-share) - math.log1p(-healthy))
        terms.append(math.log(weight) + failures * math.log(share / healthy) + passed)
    top = max(terms)
    return top + math.log(sum(math.exp(term - top) for term in terms))


def _limits(healthy: float, bad: float, threshold: float, devices: int) -> tuple[int, ...]:
    """The least number of failures whose ratio reaches the threshold; more than there are devices: none does."""
    limits, failures = [1], 1
    for count in range(1, devices + 1):
        while failures <= count and log_ratio(count, failures, healthy, bad) < threshold:
            failures += 1
        limits.append(failures)
    return tuple(limits)


def stop_distribution(limits: Sequence[int], share: float) -> tuple[np.ndarray, np.ndarray]:
    """The probability of a stop at each count of devices, and of each count of failures where none comes.

    Exact: the number of failures among the devices so far is a Markov chain, followed device by device.
    """
    count = len(limits) - 1
    alive = np.zeros(count + 2)
    alive[0] = 1.0
    stopped = np.zeros(count + 1)
    for n in range(1, count + 1):
        # Beyond the last limit nobody is alive, so no more of the row needs to be followed.
        width = min(limits[n - 1], n) + 1
        row = alive[:width]
        moved = row * (1 - share)
        moved[1:] += row[:-1] * share
        stopped[n] = moved[limits[n] :].sum()
        moved[limits[n] :] = 0.0
        alive[:width] = moved
    return stopped, alive


def false_stop(
    limits: Sequence[int], healthy: float, bad: float, threshold: float, *, beyond: bool = False
) -> float:
    """The probability of a stop of a healthy release: exact, and at most so where devices follow `beyond`."""
    stopped, alive = stop_distribution(limits, healthy)
    error = float(stopped.sum())
    if beyond:
        for failures in np.nonzero(alive)[0]:
            ratio = log_ratio(len(limits) - 1, int(failures), healthy, bad)
            error += float(alive[failures]) * math.exp(min(0.0, ratio - threshold))
    return error


def failures_to_go(test: FailureTest, devices: int, failures: int) -> int:
    """How many more of the devices asked must fail for a stop; nought: stopped."""
    return max(test.limit(devices) - failures, 0)


def allowed_in_flight(to_go: int, passed: int) -> int:
    """How many devices may be without a verdict at once: few at first and where a stop is near, more as
    evidence grows.

    Half of those that passed, so that a release that fails everywhere reaches few; and 2^k - 1 where k more
    failures stop it, so that where the next failure does nobody else is exposed while it is awaited. A rule
    of ours: it holds no error of its own, and what it costs is simulated in `bound.py`.
    """
    return max(1, min(1 + passed // 2, (1 << min(max(to_go, 1), 30)) - 1))


def sign_evidence(above: int, count: int) -> float:
    """Log of the capital of a gambler who bets on more than half of the signs being positive.

    A uniform mixture over the probabilities from 1/2 to 1: 2^(n+1) ∫ p^k (1-p)^(n-k) dp from 1/2 to 1, which
    is the sum of the binomial coefficients (n+1 over j) for j up to k, over (n over k) (n + 1).
    """
    return float(_evidence(count)[above])


@lru_cache(maxsize=64)
def _evidence(count: int) -> np.ndarray:
    """For every number of signs above, from none to all; in logs, so that nothing overflows."""
    k = np.arange(count + 1)
    steps = np.log((count + 1 - k) / (k + 1))
    log_choose = np.concatenate(([0.0], np.cumsum(steps)[:-1]))  # (n+1 over k) for k = 0…n
    log_fewer = log_choose + np.log((count + 1 - k) / (count + 1))  # (n over k)
    evidence: np.ndarray = np.logaddexp.accumulate(log_choose) - log_fewer - math.log(count + 1)
    return evidence


def p_of_median(values: Sequence[float], limit: float) -> float:
    """The sequential p-value of a median at most `limit`: ever at or under α with probability α at most, if it is.

    A value that is no number counts as above the limit: it is no proof of health.
    """
    above = sum(not value <= limit for value in values)
    return math.exp(-max(0.0, sign_evidence(above, len(values))))


def median_exceeds(values: Sequence[float], limit: float, alpha: float) -> bool:
    """Whether the median lies above the limit, wrongly so with probability at most `alpha` over all looks."""
    return p_of_median(values, limit) <= alpha


def median_interval(values: Sequence[float], alpha: float) -> tuple[float, float]:
    """A confidence sequence of the median: it holds at all times at once with probability at least 1 -
    `alpha`.

    The medians that neither side's gambler has ruled out at `alpha` / 2; infinite while there are too few
    values.
    """
    ordered = sorted(math.inf if math.isnan(value) else value for value in values)
    count, needed = len(ordered), -math.log(alpha / 2)
    enough = np.nonzero(_evidence(count) >= needed)[0]
    if not len(enough):
        return -math.inf, math.inf
    ruled_out = int(enough[0])
    # With `ruled_out` values or more above a number, that number is too low to be the median.
    return ordered[count - ruled_out], ordered[ruled_out - 1]
