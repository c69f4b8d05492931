"""What is asked of a rollout that is under way: `abort`, `pause`, `promote`."""

from __future__ import annotations

import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgewright_cli.broker import broker_option
from edgewright_cli.output import json_option, print_json
from edgewright_cli.rollout_carrying import carry_on, store_option, why_option

if TYPE_CHECKING:
    from edgewright_fleet.rollout.store import Wish


@click.command(
    epilog="""\b
Examples:
  edgewright fleet rollout abort night-1
  edgewright fleet rollout abort night-1 --why "smoke" --broker broker.toml
"""
)
@click.argument("name")
@why_option
@store_option
@broker_option
@json_option
def abort(name: str, why: str | None, store: Path, broker: str, as_json: bool) -> None:
    """The emergency stop: tell nobody else, and take exposed devices back, all at once.

    The controller that runs does it within a second; where none runs, this command does it and then exits as
    'start' does.
    """
    if not _ask(name, "abort", why, store, as_json):
        carry_on(name, store, broker, as_json)


@click.command(epilog='Example: edgewright fleet rollout pause night-1 --why "the shop is full"')
@click.argument("name")
@why_option
@store_option
@json_option
def pause(name: str, why: str | None, store: Path, as_json: bool) -> None:
    """Tell no further device anything until 'resume'; devices in mid-update finish it."""
    if not _ask(name, "pause", why, store, as_json) and not as_json:
        click.echo("no controller runs, so that nothing goes on before 'resume'", err=True)


@click.command(epilog='Example: edgewright fleet rollout promote night-1 --why "tested by hand"')
@click.argument("name")
@click.option("--why", required=True, help="The reason, for the audit log.")
@store_option
@json_option
def promote(name: str, why: str, store: Path, as_json: bool) -> None:
    """Skip the rest of the observation of the present wave, also of a rollout that is paused in it."""
    if not _ask(name, "promote", why, store, as_json) and not as_json:
        click.echo(f"no controller runs: 'edgewright fleet rollout resume {name}' carries it out", err=True)


def _ask(name: str, wish: Wish, why: str | None, store: Path, as_json: bool) -> bool:
    """Leave a request for the controller; whether one is there to see it."""
    from edgewright_fleet.rollout.controller import operator
    from edgewright_fleet.rollout.store import RolloutStore

    with closing(RolloutStore(store, create=False)) as kept:
        kept.request(name, wish, time.time(), by=operator(), why=why)
        held = kept.is_held(name, time.time())
    if as_json and (held or wish != "abort"):
        print_json({"name": name, "asked": wish, "controller": held})
    elif not as_json:
        click.echo(f"asked for {wish} of {name}")
    return held
