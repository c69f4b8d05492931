"""`edgewright demo`."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import click

from edgewright_cli.progress import stderr_console


@click.command(
    epilog="""\b
Examples:
  edgewright demo
  edgewright demo --report /tmp/report
"""
)
@click.option(
    "--report",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("demo-report"),
    show_default=True,
    help="Folder for the page.",
)
def demo(report: Path) -> None:
    """Walk the whole loop once on this machine: convert, verify, roll out, observe, roll back.

    It trains and converts real models, starts a broker and five agents, and rolls three releases out, of which
    the last is bad. Exit code 0 only if every step was seen to happen. It takes a few minutes.
    """
    from edgewright.durable_file import write_durably
    from edgewright_demo.report import report_page
    from edgewright_demo.walk import walk

    start = time.monotonic()
    with stderr_console() as console, tempfile.TemporaryDirectory(prefix="edgewright-demo-") as folder:
        story = walk(Path(folder), console)
        page = report / "index.html"
        write_durably(page, report_page(story).encode())
        console.rule("done", align="left")
    for title, seconds in story.steps:
        click.echo(f"{seconds:6.1f} s  {title}")
    click.echo(f"{time.monotonic() - start:6.1f} s  in all; see {page}")
