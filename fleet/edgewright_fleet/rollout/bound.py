"""How far a bad release gets: the bound that `plan` prints, from the test and the pacing of the engine.

The error of the failure test is exact (`statistics.false_stop`). How many devices a bad release reaches
depends on who is in flight when it stops, so that is simulated, many rollouts at once, with a fixed seed:
each step, one device in flight answers, and as many are asked as `allowed_in_flight` and the wave allow.
Which device answers does not matter, as outcomes do not depend on each other; a device that fails counts as
asked either way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from edgewright_fleet.rollout.spec import RolloutSpec
from edgewright_fleet.rollout.statistics import FailureTest, allowed_in_flight
from edgewright_fleet.rollout.stopping import failure_test_of
from edgewright_fleet.rollout.waves import wave_sizes

RUNS = 2000
SEED = 7
SHARES = (0.05, 0.1, 0.3, 1.0)
"""Of failing devices, that a plan shows beside the specification's own."""
Population = Literal["independent", "exact"]
"""`independent`: each device fails with that probability. `exact`: that share of the devices fails, asked in
random order."""


@dataclass(frozen=True)
class Simulated:
    """Many rollouts of one release, one entry each."""

    exposed: np.ndarray
    stopped: np.ndarray
    paused: np.ndarray
    """In a wave of which every device failed, too few to tell."""
    answer_times: np.ndarray
    """How long it took, in times that one device takes to answer."""


def simulate(
    test: FailureTest,
    waves: Sequence[int],
    share: float,
    *,
    room: int,
    runs: int = RUNS,
    seed: int = SEED,
    population: Population = "independent",
    pace: bool = True,
) -> Simulated:
    """Roll out to waves of these sizes a release that fails on `share` of the devices.

    `room` is how many devices may be in flight at most; without `pace` that many are always.
    """
    chance = np.random.default_rng(seed)
    devices, ends = sum(waves), np.cumsum(waves)
    limits = np.asarray(test.limits)
    allowed = _allowed_table(devices, room) if pace else None
    bad = round(share * devices)
    asked, answered, failed, wave, wave_failed = (np.zeros(runs, np.int64) for _ in range(5))
    time = np.zeros(runs)
    stopped, paused = np.zeros(runs, bool), np.zeros(runs, bool)
    alive = np.arange(runs)
    while len(alive):
        n, k, done = asked[alive], failed[alive], answered[alive]
        to_go = np.minimum(np.maximum(limits[n] - k, 1), _MOST_TO_GO)
        most = room if allowed is None else allowed[to_go, done - k]
        n += np.clip(most - (n - done), 0, ends[wave[alive]] - n)
        asked[alive] = n
        time[alive] += 1 / (n - done)
        fails = share if population == "independent" else np.clip((bad - k) / (devices - done), 0, 1)
        failing = chance.random(len(alive)) < fails
        failed[alive] = k = k + failing
        wave_failed[alive] += failing
        answered[alive] = done = done + 1
        stopped[alive] = now_stopped = k >= limits[n]
        over = (done == ends[wave[alive]]) & ~now_stopped
        sizes = np.asarray(waves)[wave[alive]]
        paused[alive] = now_paused = over & (wave_failed[alive] == sizes)
        next_wave = alive[over]
        wave[next_wave] += 1
        wave_failed[next_wave] = 0
        alive = alive[~now_stopped & ~now_paused & (done < devices)]
    return Simulated(asked, stopped, paused, time)


_MOST_TO_GO = 30


def _allowed_table(devices: int, room: int) -> np.ndarray:
    """`allowed_in_flight` for every count, so that many rollouts look it up at once."""
    passed = range(devices + 1)
    rows = [[min(room, allowed_in_flight(to_go, p)) for p in passed] for to_go in range(_MOST_TO_GO + 1)]
    return np.asarray(rows)


@dataclass(frozen=True)
class Reach:
    """How far a release that fails on a share of the devices gets."""

    failing: float
    mean_exposed: float
    exposed: int
    """At most so many devices, with the probability that the specification calls power."""
    stopped: float
    paused: float
    answer_times: float
    histogram: tuple[tuple[int, int], ...]
    """Rollouts by exposed devices, each count and how many had it."""


@dataclass(frozen=True)
class Plan:
    """What a rollout to so many devices can promise before it begins."""

    devices: int
    waves: tuple[int, ...]
    alpha: float
    false_abort: float
    """Of the failure test at the healthy share; exact up to `EXACT_DEVICES`, at most that beyond."""
    alpha_of_metrics: float
    """The error of latency and energy together, at most."""
    power: float
    healthy: Reach
    bad: tuple[Reach, ...]


def plan(spec: RolloutSpec, devices: int) -> Plan:
    """The plan of a rollout to so many devices, all of them there and all of them selected."""
    gates = spec.gates
    test = failure_test_of(gates, devices)
    waves = wave_sizes(spec, devices)
    shares = sorted({gates.bad_failure_share, *(s for s in SHARES if s > gates.bad_failure_share)})
    return Plan(
        devices=devices,
        waves=waves,
        alpha=gates.alpha,
        false_abort=test.error,
        alpha_of_metrics=gates.alpha - test.alpha,
        power=gates.power,
        healthy=_reach(spec, test, waves, gates.healthy_failure_share),
        bad=tuple(_reach(spec, test, waves, share) for share in shares),
    )


def _reach(spec: RolloutSpec, test: FailureTest, waves: tuple[int, ...], share: float) -> Reach:
    seen = simulate(test, waves, share, room=spec.room(sum(waves)), pace=spec.paced_by_evidence)
    counts, times = np.unique(seen.exposed, return_counts=True)
    return Reach(
        failing=share,
        mean_exposed=float(seen.exposed.mean()),
        exposed=int(np.quantile(seen.exposed, spec.gates.power, method="higher")),
        stopped=float(seen.stopped.mean()),
        paused=float(seen.paused.mean()),
        answer_times=float(seen.answer_times.mean()),
        histogram=tuple(zip(counts.tolist(), times.tolist(), strict=True)),
    )
