"""`edgewright bench`."""

from __future__ import annotations

from dataclasses import asdict
from typing import Literal

import click

from edgewright.figures import seconds
from edgewright_cli.output import json_option, print_json, print_table


@click.command(
    epilog="""\b
Examples:
  edgewright bench model.tflite
  edgewright bench oci:registry:digits:1.0.0 --profile raspberry-pi-5 --format onnx --threads 2 --json
"""
)
@click.argument("target")
@click.option("--profile", help="Which artifact of a release.")
@click.option("--format", "model_format", type=click.Choice(["onnx", "tflite"]), help="Which artifact.")
@click.option("--threads", default=1, show_default=True, type=click.IntRange(min=1), help="Of the runtime.")
@click.option(
    "--seconds",
    "duration",
    default=2.0,
    show_default=True,
    type=click.FloatRange(0.01, 600),
    help="To measure.",
)
@json_option
def bench(
    target: str,
    profile: str | None,
    model_format: Literal["onnx", "tflite"] | None,
    threads: int,
    duration: float,
    as_json: bool,
) -> None:
    """Measure the latency of a model file, an artifact folder or a reference on this host."""
    import edgewright as ew

    result = ew.load(target, profile, format=model_format, threads=threads).benchmark(seconds=duration)
    if as_json:
        print_json(asdict(result))
        return
    print_table(
        ("runtime", "precision", "threads", "samples", "p50", "p90", "p99", "mean"),
        [
            [
                result.runtime,
                result.precision,
                str(result.threads),
                str(result.samples),
                seconds(result.p50_s),
                seconds(result.p90_s),
                seconds(result.p99_s),
                seconds(result.mean_s),
            ]
        ],
        title=f"{result.how}: {result.where}",
    )
