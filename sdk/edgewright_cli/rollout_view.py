"""How a rollout is shown: its devices as rows, its state as a document, and both as they change."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from edgewright.errors import ClusterError
from edgewright_cli.progress import stderr_console

if TYPE_CHECKING:
    from edgewright_fleet.rollout.controller import Observer
    from edgewright_fleet.rollout.record import Record
    from edgewright_fleet.rollout.state import RolloutState

DEVICE_COLUMNS = ("device", "profile", "online", "wave", "stands", "runs", "before", "reason")
SHOWN = 20
"""Devices in a live picture."""
LOOK_S = 0.5
"""Seconds between two looks of `watched` into the store."""
STARTS_S = 60.0
"""Seconds since it last answered in which a refusal is taken for that of an API server that starts."""
REDRAW_S = 0.5
"""Seconds between two pictures: a picture of a large fleet costs more than an event of it."""


def device_rows(state: RolloutState, limit: int | None = None) -> list[list[str]]:
    """A row a device; those that were told something come first where there is a limit."""
    names = sorted(state.devices)
    if limit is not None:
        names = [*state.exposed[-limit:], *state.devices.standing("waiting")[:limit]][:limit]
    return [
        [
            name,
            (record := state.devices[name]).profile,
            "yes" if record.online else "no",
            "–" if record.wave is None else str(record.wave + 1),
            record.stand,
            str(record.running) if record.running else "nothing",
            str(record.before) if record.before else "nothing",
            record.reason or "",
        ]
        for name in names
    ]


def as_document(state: RolloutState) -> dict[str, Any]:
    """The state but its histograms."""
    hidden = {"baseline", "after", "control", "past_boots", "boot", "sequence"}
    document = state.model_dump(mode="json", by_alias=True)
    for record in document["devices"].values():
        for key in hidden:
            del record[key]
    return document | {"exposed": list(state.exposed)}


@contextmanager
def progress() -> Iterator[Observer]:
    """Each decision on a line of standard error, and on a terminal the devices below, as they are now."""
    with stderr_console() as console:
        if not console.is_terminal:
            yield lambda _, decisions, __: _print(console, [d.sentence for d in decisions])
            return
        with Live(console=console, auto_refresh=False) as live:
            drawn_s = 0.0

            def show(state: RolloutState, decisions: Sequence[Any], _: object) -> None:
                nonlocal drawn_s
                _print(live.console, [decision.sentence for decision in decisions])
                if decisions or time.monotonic() - drawn_s > REDRAW_S:
                    live.update(_picture(state), refresh=True)
                    drawn_s = time.monotonic()

            yield show


def watched(
    record: Record, name: str, look_s: float = LOOK_S, observer: Observer | None = None
) -> RolloutState:
    """Show a rollout as its record changes, until it rests; its last state. A cluster may be away meanwhile.

    An `observer` is told of it in place of the screen.
    """
    from edgewright_fleet.rollout.state import RESTING

    said, away, answered_s = 0, False, -math.inf
    with nullcontext(observer) if observer else progress() as show:
        while True:
            try:
                _, state = record.load(name)
                decisions = record.decisions(name)
            except ClusterError as error:
                # An API server that has just started refuses everybody until it knows the rights.
                starts = error.status in (401, 403) and time.monotonic() - answered_s < STARTS_S
                if not (error.passes or starts):
                    raise
                if not away:
                    click.echo(f"{error}; looked at again until it answers", err=True)
                away = True
            else:
                away, answered_s = False, time.monotonic()
                show(state, decisions[said:], [])  # type: ignore[arg-type]
                said = len(decisions)
                if state.phase in RESTING:
                    return state
            time.sleep(look_s)


def _print(console: Console, sentences: list[str]) -> None:
    for sentence in sentences:
        console.print(
            f"{time.strftime('%H:%M:%S')} {sentence}", highlight=False, markup=False, soft_wrap=True
        )


def _picture(state: RolloutState) -> Table:
    title = f"{state.name}: {state.phase}, wave {state.wave + 1} of {len(state.waves)}; "
    title += ", ".join(f"{n} {stand}" for stand, n in state.devices.stands().items() if n)
    table = Table(*DEVICE_COLUMNS, title=title, title_justify="left", box=None, pad_edge=False)
    for row in device_rows(state, SHOWN):
        table.add_row(*map(Text, row))
    if len(state.devices) > SHOWN:
        more = len(state.devices) - SHOWN
        table.caption = f"and {more} more: see 'edgewright fleet rollout status {state.name}'"
    return table
