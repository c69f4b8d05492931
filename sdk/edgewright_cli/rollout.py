"""`edgewright fleet rollout`."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import click

from edgewright_cli.broker import broker_option, broker_settings
from edgewright_cli.output import json_option, print_json
from edgewright_cli.rollout_carrying import carry_on, finish, why_option
from edgewright_cli.rollout_in_cluster import resume_in_cluster, revert_in_cluster, start_in_cluster
from edgewright_cli.rollout_looking import history, list_rollouts, status, watch
from edgewright_cli.rollout_place import Place, place_options
from edgewright_cli.rollout_requests import abort, pause, promote
from edgewright_cli.rollout_view import progress


@click.group(
    epilog="""\b
Examples:
  edgewright fleet rollout start spec.yaml
  edgewright fleet rollout watch night-1
  edgewright fleet rollout abort night-1 --why "support has calls"
  edgewright fleet rollout abort night-1 --context berlin
"""
)
def rollout() -> None:
    """Start, watch and stop rollouts: of bare devices, or with --context of a cluster's nodes."""


@rollout.command(
    epilog="""\b
Examples:
  edgewright fleet rollout plan spec.yaml --devices 1000
  edgewright fleet rollout plan spec.yaml --devices 1000 --answer-s 300 --json
"""
)
@click.argument("spec", type=click.Path(path_type=Path))
@click.option(
    "--devices",
    type=click.IntRange(1, 100_000),
    help="How many the fleet has; not needed where SPEC names them.",
)
@click.option(
    "--answer-s",
    default=300.0,
    show_default=True,
    type=click.FloatRange(min=0, min_open=True),
    help="Seconds from the wish to a device's verdict, for the expected time.",
)
@json_option
def plan(spec: Path, devices: int | None, answer_s: float, as_json: bool) -> None:
    """Show the waves of SPEC and how far a bad release would get, before anything is sent. Needs no broker.

    The error for a healthy release is computed exactly; what a bad release reaches is simulated (2,000 rollouts
    with a fixed seed), with all devices online. The time holds neither devices_per_minute nor maintenance windows
    nor the observation at the end of each wave.
    """
    from edgewright_cli.rollout_plan import plan_document, print_plan
    from edgewright_fleet.rollout.bound import plan as plan_rollout
    from edgewright_fleet.rollout.spec import load_spec

    wanted = load_spec(spec, registry="registry")  # which a plan does not look into
    if devices is None:
        if wanted.devices == "all":
            raise click.UsageError("the specification selects all devices: say how many with --devices")
        devices = len(wanted.devices)
    made = plan_rollout(wanted, devices)
    if as_json:
        print_json(plan_document(made, answer_s))
    else:
        print_plan(made, answer_s)


@rollout.command(
    epilog="""\b
Examples:
  edgewright fleet rollout start spec.yaml --broker 127.0.0.1:1883
  edgewright fleet rollout start spec.yaml --broker broker.toml --json
  edgewright fleet rollout start spec.yaml --context berlin
"""
)
@click.argument("spec", type=click.Path(path_type=Path))
@place_options
@broker_option
@json_option
def start(spec: Path, place: Place, broker: str, as_json: bool) -> None:
    """Roll a release out as SPEC says, in the foreground; one that was cut short or paused goes on.

    In a cluster this makes a ModelRollout and watches it; its controller has a broker and a registry of its own,
    so that --broker and 'registry' are not looked at. Ctrl-C ends the watching alone.
    Exit code 0 when it succeeded; 3 when it failed, was aborted, or is paused as inconclusive.
    """
    if place.in_cluster:
        finish(start_in_cluster(spec, place), as_json)
        return
    from edgewright_fleet.rollout.controller import start_rollout
    from edgewright_fleet.rollout.spec import load_spec
    from edgewright_fleet.rollout.store import RolloutStore
    from edgewright_fleet.targets.mqtt import MqttTarget

    wanted, settings = load_spec(spec), broker_settings(broker)
    with (
        closing(RolloutStore(place.store)) as kept,
        closing(MqttTarget(settings, wanted.fleet, one_rollout=True)) as target,
        progress() as show,
    ):
        state = start_rollout(wanted, target, kept, show)
    finish(state, as_json)


@rollout.command(
    epilog="""\b
Examples:
  edgewright fleet rollout resume night-1
  edgewright fleet rollout resume night-1 --context berlin
"""
)
@click.argument("name")
@place_options
@broker_option
@json_option
def resume(name: str, place: Place, broker: str, as_json: bool) -> None:
    """Go on with a rollout that was cut short or is paused; carries out what was asked for meanwhile.

    Exit codes are those of 'start'.
    """
    if place.in_cluster:
        finish(resume_in_cluster(name, place), as_json)
    else:
        carry_on(name, place.store, broker, as_json)


@rollout.command(
    epilog="""\b
Examples:
  edgewright fleet rollout revert night-1 --why "customers complain"
  edgewright fleet rollout revert night-1 --context berlin
"""
)
@click.argument("name")
@why_option
@place_options
@broker_option
@json_option
def revert(name: str, why: str | None, place: Place, broker: str, as_json: bool) -> None:
    """Take the devices of a rollout that has ended, also well, back to exactly what each ran before.

    It is a rollout of its own, NAME-revert, of all devices at once. Exit codes are those of 'start'.
    """
    if place.in_cluster:
        finish(revert_in_cluster(name, why, place), as_json)
        return
    from edgewright_fleet.rollout.controller import revert_rollout
    from edgewright_fleet.rollout.store import RolloutStore
    from edgewright_fleet.targets.mqtt import MqttTarget

    settings = broker_settings(broker)
    with (
        closing(RolloutStore(place.store, create=False)) as kept,
        closing(MqttTarget(settings, kept.load(name)[0].fleet, one_rollout=True)) as target,
        progress() as show,
    ):
        state = revert_rollout(name, target, kept, show, why=why)
    finish(state, as_json)


for command in (abort, pause, promote, status, list_rollouts, watch, history):
    rollout.add_command(command)
