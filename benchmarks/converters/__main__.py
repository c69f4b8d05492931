"""`python -m benchmarks.converters`: the command, and the files it writes."""

from __future__ import annotations

import datetime
import os
import platform
import re
import signal
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import click

from benchmarks.converters.child import StepFailedError
from benchmarks.converters.environments import REQUIREMENTS
from benchmarks.converters.measurement import measure
from benchmarks.converters.models import MODELS
from benchmarks.converters.picture import draw
from benchmarks.converters.results import ModelResult, Result
from benchmarks.converters.table import markdown
from benchmarks.converters.tools import OURS, TOOLS, VARIANTS
from edgewright.latency_benchmark import host_processor
from edgewright.version import __version__

RESULTS = Path(__file__).parents[1] / "results"
VERSIONED = ("onnxruntime", "nncf", "openvino", "olive-ai", "ai-edge-quantizer", "ai-edge-litert")


@click.command(
    epilog="""\b
Examples:
  python -m benchmarks.converters
  python -m benchmarks.converters --models residual-cnn,mobile-cnn --tools edgewright,onnxruntime
  python -m benchmarks.converters --quick --output /tmp/results
"""
)
@click.option("--models", default=",".join(MODELS), show_default=True, help="Which models, by comma.")
@click.option("--tools", default=",".join(TOOLS), show_default=True, help="Which tools, by comma.")
@click.option(
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    default=RESULTS,
    help="Folder of the table, the figures and the picture.  [default: benchmarks/results]",
)
@click.option(
    "--quick", is_flag=True, help="Prove that all works: little training and data, no true figures."
)
def main(models: str, tools: str, output: Path, quick: bool) -> None:
    """Measure our converters and other quantisers on the same models, data and runtimes.

    Models are trained and each peer's environment is made on the first run, and kept below
    $XDG_CACHE_HOME/edgewright/benchmarks. On two cores one of them trains for over half an
    hour; once all are there, a full run takes some eleven minutes.
    """
    chosen_models = _chosen(models, MODELS, "model")
    chosen_tools = _chosen(tools, TOOLS, "tool")
    variants = [variant for variant in VARIANTS if variant.tool in chosen_tools]
    output.mkdir(parents=True, exist_ok=True)
    found: list[ModelResult] = []
    for name in chosen_models:
        try:
            found.append(measure(MODELS[name], variants, quick, _say))
        except StepFailedError as failure:
            raise click.ClickException(f"{name}: {failure}") from None
        # After each model, so that what an interrupted run found is there.
        _write(found, output, quick)


def _write(found: Sequence[ModelResult], output: Path, quick: bool) -> None:
    today = datetime.datetime.now(tz=datetime.timezone.utc).date().isoformat()
    result = Result(
        date=today,
        processor=host_processor(),
        cores=os.cpu_count() or 1,
        python=platform.python_version(),
        quick=quick,
        versions={OURS: f"{__version__}{_commit()}", **_pinned()},
        models=tuple(found),
    )
    stem = output / f"converters-{today}"
    stem.with_suffix(".json").write_text(result.model_dump_json(indent=1, exclude_none=True) + "\n")
    draw(result, stem.with_suffix(".png"))
    stem.with_suffix(".md").write_text(markdown(result, f"{stem.name}.png"))
    _say(f"written: {stem.with_suffix('.md')}")


def _chosen(text: str, known: Iterable[str], what: str) -> list[str]:
    names = [name for name in text.split(",") if name]
    for name in names:
        if name not in known:
            raise click.BadParameter(f"no {what} '{name}'; there are {', '.join(known)}")
    return names


def _pinned() -> dict[str, str]:
    """The versions that the environments pin."""
    pins = "\n".join(path.read_text() for path in sorted(REQUIREMENTS.glob("*.txt")))
    return {name: match[1] for name in VERSIONED if (match := re.search(rf"^{name}==(\S+)", pins, re.M))}


def _commit() -> str:
    command = ["git", "-C", str(RESULTS.parent), "rev-parse", "--short", "HEAD"]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    return f" (commit {found.stdout.strip()})" if found.returncode == 0 else ""


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def run() -> None:
    """The command as a person meets it: an error is one line, and exit code 2."""
    # As an exception, so that the step that runs is ended too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        main.main(standalone_mode=False)
    except click.ClickException as error:
        _say(f"benchmarks.converters: {error.format_message()}")
        sys.exit(2)
    except click.Abort:
        sys.exit(130)


if __name__ == "__main__":
    run()
