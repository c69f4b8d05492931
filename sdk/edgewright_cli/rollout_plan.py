"""What `edgewright fleet rollout plan` prints: the waves, how far bad releases get, and the bound in words."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import click

from edgewright_cli.output import print_table
from edgewright_fleet.rollout.bound import RUNS, Plan, Reach


def print_plan(made: Plan, answer_s: float) -> None:
    """For people; `answer_s` is how long a device takes from the wish to its verdict, in seconds."""
    rows = [
        [str(number), str(size), str(sum(made.waves[:number]))] for number, size in enumerate(made.waves, 1)
    ]
    print_table(("wave", "devices", "in all"), rows)
    sure = f"{made.power:.0%}"
    rows = [
        [
            f"{reach.failing:.3g}",
            f"{reach.stopped:.1%}",
            f"{reach.paused:.1%}",
            f"{reach.mean_exposed:.1f}",
            str(reach.exposed),
            seconds_or_hours(reach.answer_times * answer_s),
            histogram_line(reach.histogram, made.devices),
        ]
        for reach in (made.healthy, *made.bad)
    ]
    columns = (
        "failing",
        "stopped",
        "paused",
        "exposed, mean",
        f"at most, {sure} sure",
        "time",
        "exposed, spread",
    )
    print_table(columns, rows, title=f"A release that fails on such a share of devices ({RUNS:,} simulated)")
    bad = made.bad[0]
    click.echo(
        f"At most {bad.exposed} of {made.devices} devices get a release that fails on {bad.failing:.3g} "
        f"of them, with probability {sure}.\nA healthy release (failing on {made.healthy.failing:.3g}) is aborted "
        f"with probability under {made.alpha:.3g}: {made.false_abort:.4f} for failures (exact), and at most "
        f"{made.alpha_of_metrics:.4f} for latency and energy.\nA healthy one takes about "
        f"{seconds_or_hours(made.healthy.answer_times * answer_s)}, if a device answers in {answer_s:g} s."
    )
    if bad.stopped + bad.paused < made.power:
        click.echo(
            f"Too few devices to be {sure} sure of a stop at {bad.failing:.3g}: greater shares are found.",
            err=True,
        )


def plan_document(made: Plan, answer_s: float) -> dict[str, Any]:
    """A plan for scripts."""

    def reach(of: Reach) -> dict[str, Any]:
        return {
            "failing_share": of.failing,
            "stopped_share": of.stopped,
            "paused_share": of.paused,
            "exposed_mean": of.mean_exposed,
            "exposed_at_power": of.exposed,
            "time_s": of.answer_times * answer_s,
            "exposed_histogram": [list(pair) for pair in of.histogram],
        }

    return {
        "devices": made.devices,
        "waves": list(made.waves),
        "alpha": made.alpha,
        "power": made.power,
        "false_abort": {"failures_exact": made.false_abort, "metrics_at_most": made.alpha_of_metrics},
        "simulated_with": "fixed seed, all devices online",
        "healthy": reach(made.healthy),
        "bad": [reach(each) for each in made.bad],
    }


def seconds_or_hours(value_s: float) -> str:
    """A time that people plan with: 45 s, 12 min, 2.6 h."""
    if value_s < 90:
        return f"{value_s:.0f} s"
    return f"{value_s / 60:.0f} min" if value_s < 5400 else f"{value_s / 3600:.1f} h"


def histogram_line(counts: Sequence[tuple[int, int]], most: int) -> str:
    """How exposures are spread, as bars over 1 to `most` on a logarithmic scale."""
    bars, cells = " ▁▂▃▄▅▆▇█", [0] * 20
    for exposed, times in counts:
        place = math.log(max(exposed, 1)) / math.log(max(most, 2))
        cells[min(19, int(20 * place))] += times
    top = max(cells)
    return "".join(bars[math.ceil(8 * cell / top)] for cell in cells).rstrip() if top else ""
