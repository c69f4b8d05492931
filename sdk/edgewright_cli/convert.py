"""`edgewright convert`."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from edgewright.figures import MANIFEST_COLUMNS, gate_lines, manifest_row
from edgewright_cli.ladder import explain
from edgewright_cli.output import json_option, print_json, print_table
from edgewright_cli.progress import progress

if TYPE_CHECKING:
    from edgewright.artifact.manifest import Precision
    from edgewright_converters.fine_tuning.rung import FineTune
    from edgewright_converters.pipeline import ConversionReport
    from edgewright_converters.rungs import Effort


class _Explain(click.Option):
    """Answers as soon as the command line is read: what else a conversion requires may be missing."""

    def handle_parse_result(self, ctx: click.Context, opts: Any, args: list[str]) -> tuple[Any, list[str]]:
        if opts.get(self.name) and not ctx.resilient_parsing:
            explain(opts.get("effort"), as_json=bool(opts.get("as_json")))
            ctx.exit()
        return super().handle_parse_result(ctx, opts, args)


def _shapes(_: click.Context, option: click.Parameter, values: tuple[str, ...]) -> dict[str, tuple[int, ...]]:
    """The shapes by input name, which is empty where none is given."""
    found = {}
    for value in values:
        name, _equals, shape = value.rpartition("=")
        try:
            found[name] = tuple(int(size) for size in shape.split(","))
        except ValueError:
            problem = f"'{value}' is no shape: write [NAME=]1,3,224,224"
            raise click.BadParameter(problem, param=option) from None
    return found


@click.command(
    epilog="""\b
Examples:
  edgewright convert models.vision:net --weights best.safetensors --calibration train.npz --evaluation test.npz \\
      --profile raspberry-pi-5 --profile android-flagship --output registry/
  edgewright convert net.onnx --calibration photos/ --profile raspberry-pi-4 --format onnx --output out/ --json
  edgewright convert net.onnx --calibration x.npy --profile android-flagship --format tflite --output registry/
  edgewright convert speech.pt2 --calibration speech_data:batches --profile raspberry-pi-5 --output registry/
  edgewright convert m:net --calibration train.npz --evaluation test.npz --max-drop 0.5 --strict \\
      --profile raspberry-pi-5 --output registry/ --report page.html
  edgewright convert m:net --calibration calibration.npz --training-data train.npz --evaluation test.npz \\
      --profile raspberry-pi-5 --output registry/  # fine-tuned where INT8 would miss the accuracy
  edgewright convert m:net --input-shape 1,3,224,224 --profile raspberry-pi-5 --output registry/  # no data
  edgewright convert net.onnx --calibration photos/ --profile raspberry-pi-5 --output registry/ --sign keys/
  edgewright convert --explain
\b
Exit codes: 0 the gate passed, or left accuracy open with a warning; 3 it failed, or left it open and --strict was
given; 2 bad input.
"""
)
@click.argument("source")
@click.option(
    "--weights",
    metavar="FILE",
    help="State dict (.safetensors, .pt, .pth) for the model that module:function builds.",
)
@click.option(
    "--calibration",
    metavar="DATA",
    help="Samples like those in the field, to set ranges by; without, batch-norm statistics are.",
)
@click.option(
    "--evaluation", metavar="DATA", help="What accuracy is measured on; by default the calibration data."
)
@click.option(
    "--training-data",
    metavar="DATA",
    help="What INT8 is fine-tuned on, the float model as teacher; labels are learnt from too. No evaluation "
    "sample may be in it.",
)
@click.option(
    "--fine-tune",
    type=click.Choice(["auto", "always", "never"]),
    default="auto",
    show_default=True,
    help="auto: with --training-data, where nothing cheaper reaches the goal; some minutes.",
)
@click.option(
    "--input-shape",
    multiple=True,
    metavar="[NAME=]1,3,224,224",
    callback=_shapes,
    help="Without --calibration: shape of an input that the source does not tell.",
)
@click.option(
    "--input-range",
    type=(float, float),
    metavar="LOW HIGH",
    help="Without --calibration: least and greatest value of the inputs; by default from the first batch norm.",
)
@click.option("--profile", multiple=True, required=True, help="Hardware profile; may be given several times.")
@click.option(
    "--format",
    "model_format",
    type=click.Choice(["onnx", "tflite"]),
    multiple=True,
    help="May be given twice. Default: all that the profiles run, onnx alone of an .onnx file.",
)
@click.option(
    "--output", required=True, type=click.Path(path_type=Path), help="Registry folder to add it to."
)
@click.option("--name", help="Name of the release; by default from the source.")
@click.option("--version", default="1.0.0", show_default=True, help="Version of the release.")
@click.option(
    "--max-drop",
    default=1.0,
    show_default=True,
    type=click.FloatRange(0, 100),
    metavar="POINTS",
    help="Points of accuracy that INT8 may lose.",
)
@click.option(
    "--effort",
    type=click.Choice(["quick", "standard", "thorough"]),
    default="standard",
    show_default=True,
    help="How far the ladder of repairs is climbed.",
)
@click.option(
    "--precision",
    type=click.Choice(["auto", "float32", "float16", "int8", "int8-dynamic", "int8-weights", "int4-weights"]),
    default="auto",
    show_default=True,
    help="auto: int8, unless it is slower than float or too far from it.",
)
@click.option("--min-sqnr", type=float, metavar="DB", help="Decibels that every output must reach.")
@click.option("--keep-failed", is_flag=True, help="Write artifacts that failed too, marked so.")
@click.option(
    "--sign",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="PLACE",
    help="Sign the release by the key files, or folders of them, of 'edgewright trust init'.",
)
@click.option("--passphrase-file", type=click.Path(path_type=Path), metavar="FILE", help="Of these keys.")
@click.option("--strict", is_flag=True, help="Exit with 3 where accuracy could not be decided.")
@click.option(
    "--report", type=click.Path(path_type=Path), metavar="FILE", help="HTML page with the pictures."
)
@click.option(
    "--explain",
    cls=_Explain,
    is_flag=True,
    is_eager=True,
    expose_value=False,
    help="List the rungs of the ladder, convert nothing.",
)
@json_option
def convert(
    source: str,
    weights: str | None,
    calibration: str | None,
    evaluation: str | None,
    training_data: str | None,
    fine_tune: FineTune,
    input_shape: dict[str, tuple[int, ...]],
    input_range: tuple[float, float] | None,
    profile: tuple[str, ...],
    model_format: tuple[Literal["onnx", "tflite"], ...],
    output: Path,
    name: str | None,
    version: str,
    max_drop: float,
    min_sqnr: float | None,
    effort: Effort,
    precision: Precision | Literal["auto"],
    keep_failed: bool,
    sign: tuple[Path, ...],
    passphrase_file: Path | None,
    strict: bool,
    report: Path | None,
    as_json: bool,
) -> None:
    """Convert SOURCE to INT8 artifacts, verified as their runtime executes them and judged by a gate.

    SOURCE is module:function returning an nn.Module (with --weights where it is built without them), a .pt2
    exported program, a TorchScript .pt, or an .onnx file. A dynamic batch becomes a batch of one.

    DATA is an .npz with one array per model input by its name (or x where there is one; first axis the samples;
    y the class indices where known), an .npy of the one input, a folder of images with a preprocessing.json
    (sub-folders are classes), or module:function yielding batches: dicts of such arrays, (inputs, labels) or
    arrays, of numpy or torch. It is streamed, so that it may be larger than memory.

    Without --calibration, INT8 follows from the batch-norm statistics of a PyTorch source, and accuracy stays
    open unless --evaluation is given.
    """
    from edgewright_converters.pipeline import convert as run

    # What the user's code prints must not end up between the lines of the report or in its JSON.
    with progress("converting") as show, contextlib.redirect_stdout(sys.stderr):
        made = run(
            source,
            weights=weights,
            calibration=calibration,
            evaluation=evaluation,
            training_data=training_data,
            fine_tune=fine_tune,
            input_shapes=input_shape,
            input_range=input_range,
            profile=profile,
            format=model_format or None,
            output=output,
            name=name,
            version=version,
            max_drop=max_drop,
            min_sqnr=min_sqnr,
            effort=effort,
            precision=precision,
            keep_failed=keep_failed,
            sign=sign,
            passphrase_file=passphrase_file,
            report=report,
            on_step=show,
        )
    if as_json:
        print_json(report_document(made))
    else:
        print_report(made)
        if report is not None:
            click.echo(f"Report: {report}")
    if made.verdict == "inconclusive":
        click.echo("warning: accuracy could not be decided; the artifacts are marked inconclusive", err=True)
    if made.verdict == "fail" or (strict and made.verdict != "pass"):
        raise click.exceptions.Exit(3)


def report_document(report: ConversionReport) -> dict[str, Any]:
    """The report as JSON: the manifests hold the figures, the attempts what each rung bought."""
    return {
        "verdict": report.verdict,
        "reference": report.reference,
        "digest": report.release_digest,
        "seconds": round(report.seconds, 2),
        "warnings": list(report.warnings),
        "attempts": [
            {
                "rung": attempt.rung,
                "kept": attempt.kept,
                "seconds": round(attempt.seconds, 2),
                "format": attempt.trial.format,
                "sqnr_db": round(attempt.trial.sqnr_db, 2),
                "changed": attempt.trial.changed,
                "samples": attempt.trial.samples,
                "speedup": round(attempt.trial.speedup, 2),
                "how": "measured on host",
            }
            for attempt in report.attempts
        ],
        "artifacts": [manifest.model_dump(mode="json", by_alias=True) for manifest in report.artifacts],
    }


def print_report(report: ConversionReport) -> None:
    """The report as a table, the gate's words on each artifact, and where it went."""
    print_table(
        MANIFEST_COLUMNS,
        [manifest_row(manifest) for manifest in report.artifacts],
        title=f"{report.name}:{report.version} against float (latency on this host, one thread)",
    )
    for manifest in report.artifacts:
        click.echo("\n".join(gate_lines(manifest)))
    for warning in report.warnings:
        click.echo(f"Warning: {warning}")
    if report.reference is None:
        click.echo(f"FAIL: nothing was written ({report.seconds:.0f} s); --keep-failed writes it, marked so")
    else:
        click.echo(f"{report.verdict.upper()}: written to {report.reference} in {report.seconds:.0f} s")
