"""What a long command says on standard error while it works: how far it is, and about how long is left."""

from __future__ import annotations

import contextlib
import math
import os
import time
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Column
from rich.text import Text


@contextlib.contextmanager
def stderr_console() -> Iterator[Console]:
    """A console on a duplicate of standard error, which still writes while a library's noise is turned aside."""
    with os.fdopen(os.dup(2), "w") as stream:
        yield Console(file=stream)


class _TimeLeft(ProgressColumn):
    """About how long the rest will take, counted down since it was estimated."""

    def render(self, task: Task) -> Text:
        left, at = task.fields.get("left"), task.fields.get("at", 0.0)
        return Text("" if left is None else about(left - (time.monotonic() - at)))


def about(left: float) -> str:
    """Time left in words that claim no more than an estimate can."""
    if left < 10:
        return "a few seconds left"
    return f"about {math.ceil(left / 5) * 5} s left" if left < 90 else f"about {round(left / 60)} min left"


@contextlib.contextmanager
def progress(title: str) -> Iterator[Callable[[int, int, str, float], None]]:
    """Progress on standard error: call it with the steps done, and in all, what comes now, the seconds left.

    Nothing is drawn before the first call.
    """
    # Where the line is too long for the terminal, it is the description that is cut.
    whole = Column(no_wrap=True)
    columns = (
        TextColumn("{task.description}", table_column=Column(ratio=1, no_wrap=True, overflow="ellipsis")),
        BarColumn(bar_width=16),
        MofNCompleteColumn(table_column=whole),
        TimeElapsedColumn(table_column=whole),
        _TimeLeft(table_column=whole),
    )
    with stderr_console() as console:
        bar = Progress(*columns, console=console, expand=True)
        task = bar.add_task(title, total=None)

        def show(done: int, total: int, what: str, left: float) -> None:
            # A description that does not fit would take its width from the other columns.
            short = what if len(what) <= console.width - 60 else f"{what[: max(console.width - 61, 10)]}…"
            bar.update(task, completed=done, total=total, description=short, left=left, at=time.monotonic())
            if console.is_terminal:
                bar.start()
            else:
                console.print(
                    f"[{done + 1}/{total}] {what} ({about(left)})",
                    highlight=False,
                    markup=False,
                    soft_wrap=True,
                )

        try:
            yield show
            bar.update(task, completed=bar.tasks[0].total, description=f"{title}: done", left=None)
        finally:
            if bar.live.is_started:
                bar.stop()
