"""How the drift benchmark's figures are shown: Markdown tables and a picture."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

DAY = 345_600
"""Inferences that are looked at in a day."""
LIMIT_RATE, LIMIT_DELAY = 1.0, 2000.0
"""False alarms a device-year, and inferences on average for a shift of 10 %."""


def as_markdown(tables: Mapping[str, Any], date: str, devices: int) -> str:
    """The tables as the results keep them."""
    rules = list(tables["quiet"]["ten equal classes"]["rules"])
    parts = [
        f"# False alarms and delay of the test of drift, {date}\n",
        "`python -m benchmarks.fleet.drift`, simulated: devices that send a sketch of 1,200 inferences each five "
        "minutes. Edgewright's test at its defaults, of the classes; the other rules hold each sketch against the "
        "device's first hour.\n",
        "## False alarms a device-year, of devices that never change (95 % interval)\n",
        f"| data | device-years | dispersion found | {rules[0]} | " + " | ".join(rules[1:]) + " |",
        "| --- |" + " --- |" * (2 + len(rules)),
    ]
    for name, found in tables["quiet"].items():
        cells = [
            f"{rate['rate']:,.3g} ({rate['low']:,.3g}–{rate['high']:,.3g})"
            if (rate := found["rules"].get(rule)) is not None
            else "–"
            for rule in rules
        ]
        parts.append(
            f"| {name} | {found['device_years']:g} | {found['dispersion']:g} | {' | '.join(cells)} |"
        )
    hourly = tables["by_the_hour"]
    cycle = {name: f"{rate['rate']:,.3g}" for name, rate in hourly.items() if name != "device_years"}
    parts += [
        "\nA mix that follows the hour of the day (each share ±30 %) does change, and is called so: "
        f"{cycle['each sketch']} alarms a device-year sketch by sketch, {cycle['each day']} by whole days "
        f"({hourly['device_years']:.1f} device-years). `fleet drift` looks at devices that flap by whole days.",
        "\n*Wanted*: under 1. The theorem's bound for the classes alone is 0.6; the rest is for the others.\n",
        "## Inferences until a shift of 10 % is seen\n",
        f"{devices:,} devices each. Mean; median, 95th percentile, and how many within 2,000. `spread`: shares "
        "that are half of all grow by a fifth, the others shrink as much, the shift of that size that is hardest "
        "to see (PSI 0.04). `one class`: the commonest gains 10 points from all others. `two classes`: it gives "
        "10 points to another. A change comes at a random moment within a sketch, so that 1,800 is what a rule "
        "needs that is sure after one whole sketch.\n",
        f"| data | reference | shift | {rules[0]} | " + " | ".join(rules[1:]) + " |",
        "| --- |" + " --- |" * (2 + len(rules)),
    ]
    for row in tables["delays"]:
        cells = [_delay(row["rules"][rule]) for rule in rules]
        parts.append(
            f"| {row['case']} | {row['reference_inferences']:,} | {row['shift']} | {' | '.join(cells)} |"
        )
    parts.append("\n*Wanted*: 2,000 on average with a day's reference, of frames that are independent.")
    return "\n".join(parts) + "\n"


def _delay(summary: Mapping[str, float]) -> str:
    if "p50" not in summary:
        return f"{summary['seen_within_a_day']:.0%} within a day"
    mean = f"{summary['mean']:,.0f}; " if "mean" in summary else ""
    return f"{mean}{summary['p50']:,.0f}, {summary['p95']:,.0f}; {summary['within_2000']:.0%}"


def draw(tables: Mapping[str, Any], path: Path) -> None:
    """False alarms against delay of the hardest shift, by rule; and our delays by data."""
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(12, 6), layout="constrained")
    quiet = tables["quiet"]["ten equal classes"]["rules"]
    ours, wanted = next(iter(quiet)), ("ten equal classes", DAY, "spread")
    seen = next(
        row["rules"]
        for row in tables["delays"]
        if (row["case"], row["reference_inferences"], row["shift"]) == wanted
    )
    for number, (name, rate) in enumerate(quiet.items()):
        delay = seen[name]
        x = max(rate["rate"], rate["high"] / 3.7 if not rate["alarms"] else 0.0)
        y = delay.get("mean", delay.get("p50", 1e5 * 2**number))
        left.plot(x, y, "o", color="tab:blue" if name == ours else "tab:gray")
        missed = "" if "p50" in delay else " (not seen)"
        left.annotate(f" {name}{missed}", (x, y), fontsize=7, va="bottom")
    left.set(xscale="log", yscale="log", xlabel="false alarms a device-year", ylabel="inferences until seen")
    left.axvline(LIMIT_RATE, color="tab:red", lw=0.8)
    left.axhline(LIMIT_DELAY, color="tab:red", lw=0.8)
    left.set_xlim(right=1e7)
    left.set_title("ten equal classes, 10 % spread over all; red: what is wanted", fontsize=9)
    rows = tables["delays"]
    names = [f"{r['case']}\n{r['shift']}, reference {r['reference_inferences']:,}" for r in rows]
    means = [r["rules"][ours].get("mean", math.nan) for r in rows]
    right.barh(range(len(rows)), means, color="tab:blue")
    right.plot(
        [r["rules"][ours].get("p95", math.nan) for r in rows], range(len(rows)), "k|", label="95th percentile"
    )
    right.set_yticks(range(len(rows)), names, fontsize=5)
    right.invert_yaxis()
    right.axvline(LIMIT_DELAY, color="tab:red", lw=0.8)
    right.set(xscale="log", xlabel="inferences until seen, mean")
    right.legend(fontsize=7)
    figure.savefig(path, dpi=130)
