"""How many devices a bad release reaches before it is stopped: our gate beside the rules of other tools.

    python -m benchmarks.fleet.exposure              # 20,000 rollouts each, about a minute of one core
    python -m benchmarks.fleet.exposure --runs 500 --no-file

One wave of 1,000 devices, a release that fails on 1 (healthy), 5, 10 or 30 % of them. Our row is
`edgewright_fleet.rollout.bound.simulate` with the test and the pacing that the engine calls, at the defaults of
the specification: devices that were asked and have not answered count as exposed. The others' rules are ours to
describe, from their documentation, and are told of each device before the next is asked, which flatters them.

Two populations: each device fails with that probability, independently; and exactly that share of the 1,000 fails,
asked in random order. The first varies more. For it, no test with an error under α at 1 % reaches fewer than
log(1/α) / KL(p, 1 %) devices on average (Wald 1945, section A.7: Kullback–Leibler divergence of one device).
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import click
import numpy as np

from edgewright_fleet.rollout.bound import Population, simulate
from edgewright_fleet.rollout.limits import Gates
from edgewright_fleet.rollout.stopping import failure_test_of

DEVICES = 1000
SHARES = (0.01, 0.05, 0.1, 0.3)
LIMITS = {0.05: 110.0, 0.1: 40.0, 0.3: 12.0}
"""Devices at most, on average, by what a release fails on; and under 1 % of healthy rollouts aborted."""
MOST_FALSE = 0.01
POPULATIONS: dict[Population, str] = {
    "exact": "exactly so many of the 1,000 devices fail, in random order",
    "independent": "each device fails with that probability",
}
RESULTS = Path(__file__).parents[1] / "results"
Outcome = tuple[np.ndarray, np.ndarray]
"""Devices exposed, and whether the rollout was stopped, of each run."""


@dataclass(frozen=True)
class Rule:
    """A rule on the failures among the first n devices, told after each: stop where it is true."""

    name: str
    stops: Callable[[np.ndarray, np.ndarray], np.ndarray]


def _hawkbit(failed: np.ndarray, count: np.ndarray) -> np.ndarray:
    # rollout group error threshold: failed actions over the size of the group, not over those that reported
    return np.asarray(failed > 0.05 * DEVICES)


def _iot_jobs(share: float, least: int) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    # abortConfig: thresholdPercentage of those executed, from minNumberOfExecutedThings on
    return lambda failed, count: (count >= least) & (failed >= share * count)


STEPS = (10, 50, 100, 250, 500, 1000)


def _analysis(failed: np.ndarray, count: np.ndarray) -> np.ndarray:
    # a metric of at least 95 % successes, looked at when a step is complete
    return np.asarray(np.isin(count, STEPS) & (failed > 0.05 * count))


def _wald(failed: np.ndarray, count: np.ndarray) -> np.ndarray:
    healthy, bad, alpha = 0.01, 0.05, 0.01
    ratio = failed * math.log(bad / healthy) + (count - failed) * math.log((1 - bad) / (1 - healthy))
    return np.asarray(ratio >= -math.log(alpha))


RULES = (
    Rule("hawkBit: error threshold, over 5 % of the group", _hawkbit),
    Rule("AWS IoT Jobs: abort at 5 % failed, of at least 20", _iot_jobs(0.05, 20)),
    Rule("AWS IoT Jobs: abort at 5 % failed, of at least 100", _iot_jobs(0.05, 100)),
    Rule("AWS IoT Jobs: abort at 10 % failed, of at least 30", _iot_jobs(0.1, 30)),
    Rule("Argo, Flagger: under 95 % successes after 10, 50, 100, 250, 500 devices", _analysis),
    Rule("Wald's test, 1 % against 5 %, α 0.01", _wald),
)


def outcomes(rule: Rule, share: float, population: Population, runs: int, seed: int) -> Outcome:
    """A rule that is told of each device before the next is asked."""
    chance = np.random.default_rng(seed)
    count = np.arange(1, DEVICES + 1)
    exposed, stopped = np.empty(runs, np.int64), np.empty(runs, bool)
    for start in range(0, runs, 1000):  # so that all of it takes some 10 MB
        rows = slice(start, min(start + 1000, runs))
        fails = chance.random((rows.stop - start, DEVICES))
        if population == "exact":
            ranks = fails.argsort(axis=1).argsort(axis=1)
            failing = ranks < round(share * DEVICES)
        else:
            failing = fails < share
        stop = rule.stops(failing.cumsum(axis=1), count)
        stopped[rows] = stop.any(axis=1)
        exposed[rows] = np.where(stopped[rows], stop.argmax(axis=1) + 1, DEVICES)
    return exposed, stopped


def ours(
    share: float, population: Population, runs: int, seed: int, *, room: int
) -> tuple[Outcome, np.ndarray]:
    """Our gate at its defaults, and how long each rollout took, in times that one device takes to answer."""
    test = failure_test_of(Gates(), DEVICES)
    seen = simulate(test, (DEVICES,), share, room=room, runs=runs, seed=seed, population=population)
    return (seen.exposed, seen.stopped), seen.answer_times


def measure(runs: int, seed: int) -> dict[Population, list[dict[str, Any]]]:
    """One row a rule, for each population."""
    tables: dict[Population, list[dict[str, Any]]] = {}
    for population in POPULATIONS:
        rows = tables[population] = []
        for rule in RULES:
            results = {share: outcomes(rule, share, population, runs, seed) for share in SHARES}
            rows.append(_row(rule.name, results))
        for name, room in (
            ("Edgewright, one device at a time", 1),
            ("Edgewright, paced by evidence, those in flight counted", 100),
        ):
            both = {share: ours(share, population, runs, seed, room=room) for share in SHARES}
            row = _row(name, {share: outcome for share, (outcome, _) in both.items()})
            times = {str(share): round(float(times.mean()), 1) for share, (_, times) in both.items()}
            rows.append(row | {"answer_times": times})
    return tables


def _row(name: str, results: dict[float, Outcome]) -> dict[str, Any]:
    row: dict[str, Any] = {"rule": name, "false_aborts": round(float(results[SHARES[0]][1].mean()), 5)}
    for share in SHARES[1:]:
        exposed, stopped = results[share]
        row[f"{share}"] = {
            "mean": round(float(exposed.mean()), 2),
            "p50": int(np.quantile(exposed, 0.5)),
            "p95": int(np.quantile(exposed, 0.95, method="higher")),
            "stopped": round(float(stopped.mean()), 5),
            "standard_error": round(float(exposed.std() / math.sqrt(len(exposed))), 2),
        }
    return row


def least_possible(share: float, healthy: float = 0.01, alpha: float = MOST_FALSE) -> float:
    """Wald's bound: devices on average, at least, of any test that is sure to stop the bad release."""
    divergence = share * math.log(share / healthy) + (1 - share) * math.log((1 - share) / (1 - healthy))
    return -math.log(alpha) / divergence


def as_markdown(tables: dict[Population, list[dict[str, Any]]], runs: int, date: str) -> str:
    """The tables as the results keep them."""
    test = failure_test_of(Gates(), DEVICES)
    parts = [
        f"# How many devices a bad release reaches, {date}\n",
        f"`python -m benchmarks.fleet.exposure`: {runs:,} simulated rollouts each, one wave of 1,000 devices. "
        "Devices exposed on average (95th percentile); false aborts are of a release that fails on 1 %. The rules "
        "of other tools are described from their documentation and told of each device before the next is "
        "asked.\n",
    ]
    for population, rows in tables.items():
        parts.append(f"## Failing: {POPULATIONS[population]}\n")
        parts.append(
            "| rule | false aborts | 5 % fail | 10 % fail | 30 % fail |\n| --- | --- | --- | --- | --- |"
        )
        for row in rows:
            cells = [f"{row[str(share)]['mean']:.1f} ({row[str(share)]['p95']})" for share in SHARES[1:]]
            parts.append(f"| {row['rule']} | {row['false_aborts']:.2%} | {' | '.join(cells)} |")
        limits = " | ".join(f"{limit:g}" for limit in LIMITS.values())
        parts.append(f"| *wanted, at most* | 1 % | {limits} |")
        if population == "independent":
            floor = " | ".join(f"{least_possible(share):.1f}" for share in SHARES[1:])
            parts.append(f"| *no test can do better (Wald)* | 1 % | {floor} |")
        parts.append("")
    healthy = tables["independent"][-1]["answer_times"]["0.01"]
    parts.append(
        f"The exact error of our failure test at 1 %, one device at a time and independent, is {test.error:.3%} "
        f"(dynamic programming; α of the test {test.alpha:g}). A healthy rollout to 1,000 devices takes "
        f"{healthy} times as long as one device takes to answer."
    )
    return "\n".join(parts) + "\n"


def draw(tables: dict[Population, list[dict[str, Any]]], path: Path) -> None:
    """Exposure by rule, with what was wanted."""
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot

    rows = tables["exact"]
    figure, axes = pyplot.subplots(figsize=(9, 4.2), layout="constrained")
    for offset, share in enumerate(SHARES[1:]):
        at = np.arange(len(rows)) + 0.26 * (offset - 1)
        axes.barh(at, [row[str(share)]["mean"] for row in rows], 0.24, label=f"{share:.0%} fail")
    axes.set_yticks(
        range(len(rows)), [f"{row['rule']}\nfalse aborts {row['false_aborts']:.2%}" for row in rows]
    )
    axes.tick_params(axis="y", labelsize=7)
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.set_xlabel("devices exposed on average, of 1,000")
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=130)


@click.command(epilog="Example: python -m benchmarks.fleet.exposure --runs 500 --no-file")
@click.option("--runs", default=20_000, show_default=True, type=click.IntRange(100, 1_000_000))
@click.option("--seed", default=1, show_default=True)
@click.option("--no-file", is_flag=True, help="Print only; write no results.")
def main(runs: int, seed: int, no_file: bool) -> None:
    """Simulate rollouts of bad releases; exits with 1 where ours misses a limit with exactly so many failing."""
    began = time.process_time()
    tables = measure(runs, seed)
    date = datetime.now(timezone.utc).date().isoformat()
    text = as_markdown(tables, runs, date)
    click.echo(text)
    click.echo(f"{time.process_time() - began:.0f} s of processor time", err=True)
    if not no_file:
        stem = RESULTS / f"fleet-exposure-{date}"
        stem.with_suffix(".md").write_text(text, encoding="utf-8")
        document = {"date": date, "runs": runs, "seed": seed, "devices": DEVICES, "tables": tables}
        stem.with_suffix(".json").write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n")
        draw(tables, stem.with_suffix(".png"))
    final = tables["exact"][-1]
    met = all(final[str(share)]["mean"] <= limit for share, limit in LIMITS.items())
    if not met or float(str(final["false_aborts"])) >= MOST_FALSE:
        raise click.exceptions.Exit(1)


if __name__ == "__main__":
    main()
