"""What is asked of a rollout that is under way: `abort`, `pause`, `promote`."""

from __future__ import annotations

import time
from contextlib import closing
from typing import TYPE_CHECKING

import click

from edgewright_cli.broker import broker_option
from edgewright_cli.output import json_option, print_json
from edgewright_cli.rollout_carrying import carry_on, why_option
from edgewright_cli.rollout_in_cluster import TAKEN_S, ask_in_cluster
from edgewright_cli.rollout_place import Place, place_options

if TYPE_CHECKING:
    from edgewright_fleet.rollout.record import Wish


@click.command(
    epilog="""\b
Examples:
  edgewright fleet rollout abort night-1
  edgewright fleet rollout abort night-1 --why "smoke" --broker broker.toml
  edgewright fleet rollout abort night-1 --why "smoke" --context berlin
"""
)
@click.argument("name")
@why_option
@place_options
@broker_option
@json_option
def abort(name: str, why: str | None, place: Place, broker: str, as_json: bool) -> None:
    """The emergency stop: tell nobody else, and take exposed devices back, all at once.

    The controller that runs does it within a second; where none runs, this command does it and then exits as
    'start' does. In a cluster it waits until a controller has taken it up; exit code 3 where none does in 10 s.
    """
    if place.in_cluster:
        _ask_controller(name, "abort", why, place, as_json)
    elif not _ask(name, "abort", why, place, as_json):
        carry_on(name, place.store, broker, as_json)


@click.command(epilog='Example: edgewright fleet rollout pause night-1 --why "the shop is full"')
@click.argument("name")
@why_option
@place_options
@json_option
def pause(name: str, why: str | None, place: Place, as_json: bool) -> None:
    """Tell no further device anything until 'resume'; devices in mid-update finish it."""
    if place.in_cluster:
        _ask_controller(name, "pause", why, place, as_json)
    elif not _ask(name, "pause", why, place, as_json) and not as_json:
        click.echo("no controller runs, so that nothing goes on before 'resume'", err=True)


@click.command(epilog='Example: edgewright fleet rollout promote night-1 --why "tested by hand"')
@click.argument("name")
@click.option("--why", required=True, help="The reason, for the audit log.")
@place_options
@json_option
def promote(name: str, why: str, place: Place, as_json: bool) -> None:
    """Skip the rest of the observation of the present wave, also of a rollout that is paused in it."""
    if place.in_cluster:
        _ask_controller(name, "promote", why, place, as_json)
    elif not _ask(name, "promote", why, place, as_json) and not as_json:
        click.echo(f"no controller runs: 'edgewright fleet rollout resume {name}' carries it out", err=True)


def _ask_controller(name: str, wish: Wish, why: str | None, place: Place, as_json: bool) -> None:
    """Leave a request in a cluster. Exits with 3 where no controller takes it up."""
    taken = ask_in_cluster(name, wish, why, place)
    if as_json:
        print_json({"name": name, "asked": wish, "controller": taken})
    else:
        click.echo(f"asked for {wish} of {name}")
    if not taken:
        click.echo(f"no controller has taken it up in {TAKEN_S:g} s; the next one that runs does", err=True)
        raise click.exceptions.Exit(3)


def _ask(name: str, wish: Wish, why: str | None, place: Place, as_json: bool) -> bool:
    """Leave a request for the controller; whether one is there to see it."""
    from edgewright_fleet.rollout.controller import operator
    from edgewright_fleet.rollout.store import RolloutStore

    with closing(RolloutStore(place.store, create=False)) as kept:
        kept.request(name, wish, time.time(), by=operator(), why=why)
        held = kept.is_held(name, time.time())
    if as_json and (held or wish != "abort"):
        print_json({"name": name, "asked": wish, "controller": held})
    elif not as_json:
        click.echo(f"asked for {wish} of {name}")
    return held
