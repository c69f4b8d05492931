"""What commands print: a table for people, JSON for scripts, progress on standard error."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import click
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON for scripts.")


def print_json(document: Any) -> None:
    """One JSON document on standard output."""
    click.echo(json.dumps(document, indent=2, ensure_ascii=False))


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, title: str | None = None) -> None:
    """A table on standard output; in a pipe as wide as it needs, so that no cell is cut."""
    console = Console(soft_wrap=False)
    if not console.is_terminal:
        console = Console(width=400)
    table = Table(*columns, title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    for row in rows:
        table.add_row(*row)
    console.print(table)


@contextlib.contextmanager
def stderr_console() -> Iterator[Console]:
    """A console on a duplicate of standard error, which still writes while a library's noise is turned aside."""
    with os.fdopen(os.dup(2), "w") as stream:
        yield Console(file=stream)


@contextlib.contextmanager
def progress(title: str) -> Iterator[Callable[[int, int, str], None]]:
    """Progress on standard error: call it with the steps done, the steps in all, and what comes now."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with stderr_console() as console, Progress(*columns, console=console) as bar:
        task = bar.add_task(title, total=None)

        def show(done: int, total: int, what: str) -> None:
            bar.update(task, completed=done, total=total, description=what)
            if not console.is_terminal:
                console.print(f"[{done + 1}/{total}] {what}", highlight=False, markup=False)

        yield show
        bar.update(task, completed=bar.tasks[0].total, description=f"{title}: done")
