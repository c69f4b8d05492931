"""What commands print on standard output: a table for people, JSON for scripts.

The package that draws tables is imported for the first of them: it costs an agent memory, which draws none.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON for scripts.")


def print_json(document: Any) -> None:
    """One JSON document on standard output."""
    click.echo(json.dumps(document, indent=2, ensure_ascii=False))


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, title: str | None = None) -> None:
    """A table on standard output; in a pipe as wide as it needs, so that no cell is cut."""
    from rich.console import Console

    console = Console(soft_wrap=False)
    if not console.is_terminal:
        console = Console(width=400)
    console.print(fitting(console, columns, rows, title))


def fitting(
    console: Console, columns: Sequence[str], rows: Sequence[Sequence[str]], title: str | None
) -> Table:
    """The table or, where the longest words of its columns are wider together than the console, every row as lines
    of name and value. Nothing is cut off."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    for name in columns:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*row)
    cells = zip(columns, *rows, strict=True)
    words = sum(max(len(word) for cell in column for word in (cell.split() or [""])) for column in cells)
    if words + 3 * len(columns) <= console.width:
        return table
    upright = Table(title=title, title_justify="left", box=None, show_header=False, pad_edge=False)
    for number, row in enumerate(rows):
        if number:
            upright.add_row()
        for name, value in zip(columns, row, strict=True):
            upright.add_row(name, value)
    return upright
