"""`edgewright convert --explain`: the rungs of the ladder, and what each costs, before anything is run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from edgewright.figures import seconds
from edgewright_cli.output import print_json, print_table

if TYPE_CHECKING:
    from edgewright_converters.rungs import Rung


def explain(effort: str | None, *, as_json: bool) -> None:
    """The rungs of the ladder: what each does and costs, and which efforts climb it; of one effort where named."""
    from edgewright_converters.rungs import (
        CALIBRATION_SAMPLES,
        DATA_FREE,
        RUNGS,
        SECONDS,
        TRAINING_SECONDS,
        climbed,
    )

    if effort is not None and effort not in SECONDS:
        raise click.BadParameter(f"'{effort}' is none of {', '.join(SECONDS)}", param_hint="'--effort'")
    efforts = [one for one in SECONDS if effort in (None, one)]
    by_effort = {one: climbed(one, training=True) for one in efforts}
    rows = [
        _explained(rung, [one for one in efforts if rung in by_effort[one]])
        for rung in RUNGS
        if any(rung in by_effort[one] for one in efforts)
    ]
    data_free = [_explained(rung, efforts) for rung in DATA_FREE]
    limits = {
        one: {
            "seconds": SECONDS[one],
            "calibration_samples": CALIBRATION_SAMPLES[one],
            "training_seconds": TRAINING_SECONDS[one],
        }
        for one in efforts
    }
    if as_json:
        print_json({"rungs": rows, "without_calibration": data_free, "efforts": limits})
        return
    for title, shown in (
        (
            "The ladder, climbed from the top until accuracy is met; a rung that does not help is not kept",
            rows,
        ),
        ("Without calibration data, in its place", data_free),
    ):
        print_table(
            ("rung", "what it does", "cost here", "typically", "slower on the device", "effort"),
            [
                (row["rung"], row["what"], row["cost"], seconds(row["typical_seconds"]),
                 "yes" if row["costs_run_time"] else "no", ", ".join(row["efforts"]))
                for row in shown
            ],
            title=title,
        )  # fmt: skip
    click.echo("typically: for EfficientNet-Lite0 and 256 calibration samples on two cores")
    for one, limit in limits.items():
        click.echo(
            f"{one}: starts no rung after {limit['seconds']:.0f} s, "
            f"calibrates on up to {limit['calibration_samples']} samples, "
            f"fine-tunes for {limit['training_seconds']:.0f} s at most beside that"
        )


def _explained(rung: Rung, efforts: Sequence[str]) -> dict[str, Any]:
    from edgewright_converters.steps import TYPICAL

    return {
        "rung": rung.name,
        "what": rung.what,
        "cost": rung.cost,
        "typical_seconds": TYPICAL.get(rung.name),
        "costs_run_time": rung.costs_run_time,
        "efforts": list(efforts),
    }
