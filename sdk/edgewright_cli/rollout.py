"""`edgewright fleet rollout`."""

from __future__ import annotations

import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgewright_cli.broker import broker_option, broker_settings
from edgewright_cli.output import json_option, print_json, print_table
from edgewright_cli.rollout_carrying import carry_on, finish, store_option, why_option
from edgewright_cli.rollout_requests import abort, pause, promote
from edgewright_cli.rollout_view import DEVICE_COLUMNS, as_document, device_rows, progress, watched

if TYPE_CHECKING:
    pass


@click.group(
    epilog="""\b
Examples:
  edgewright fleet rollout start spec.yaml
  edgewright fleet rollout watch night-1
  edgewright fleet rollout abort night-1 --why "support has calls"
"""
)
def rollout() -> None:
    """Start, watch and stop rollouts."""


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

    wanted = load_spec(spec)
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
"""
)
@click.argument("spec", type=click.Path(path_type=Path))
@store_option
@broker_option
@json_option
def start(spec: Path, store: Path, broker: str, as_json: bool) -> None:
    """Roll a release out as SPEC says, in the foreground; one that was cut short or paused goes on.

    Exit code 0 when it succeeded; 3 when it failed, was aborted, or is paused as inconclusive.
    """
    from edgewright_fleet.rollout.controller import start_rollout
    from edgewright_fleet.rollout.spec import load_spec
    from edgewright_fleet.rollout.store import RolloutStore
    from edgewright_fleet.targets.mqtt import MqttTarget

    wanted, settings = load_spec(spec), broker_settings(broker)
    with (
        closing(RolloutStore(store)) as kept,
        closing(MqttTarget(settings, wanted.fleet, one_rollout=True)) as target,
        progress() as show,
    ):
        state = start_rollout(wanted, target, kept, show)
    finish(state, as_json)


@rollout.command(epilog="Example: edgewright fleet rollout resume night-1")
@click.argument("name")
@store_option
@broker_option
@json_option
def resume(name: str, store: Path, broker: str, as_json: bool) -> None:
    """Go on with a rollout that was cut short or is paused; carries out what was asked for meanwhile.

    Exit codes are those of 'start'.
    """
    carry_on(name, store, broker, as_json)


@rollout.command(
    epilog="""\b
Examples:
  edgewright fleet rollout revert night-1 --why "customers complain"
"""
)
@click.argument("name")
@why_option
@store_option
@broker_option
@json_option
def revert(name: str, why: str | None, store: Path, broker: str, as_json: bool) -> None:
    """Take the devices of a rollout that has ended, also well, back to exactly what each ran before.

    It is a rollout of its own, NAME-revert, of all devices at once. Exit codes are those of 'start'.
    """
    from edgewright_fleet.rollout.controller import revert_rollout
    from edgewright_fleet.rollout.store import RolloutStore
    from edgewright_fleet.targets.mqtt import MqttTarget

    settings = broker_settings(broker)
    with (
        closing(RolloutStore(store, create=False)) as kept,
        closing(MqttTarget(settings, kept.load(name)[0].fleet, one_rollout=True)) as target,
        progress() as show,
    ):
        state = revert_rollout(name, target, kept, show, why=why)
    finish(state, as_json)


@rollout.command(epilog="Example: edgewright fleet rollout status night-1 --json")
@click.argument("name", required=False)
@store_option
@json_option
def status(name: str | None, store: Path, as_json: bool) -> None:
    """Show where a rollout and its devices are; without NAME, where each rollout is."""
    from edgewright_fleet.rollout.store import RolloutStore

    with closing(RolloutStore(store, create=False)) as kept:
        states = [kept.load(n)[1] for n in ([name] if name else kept.names())]
        held = [kept.is_held(state.name, time.time()) for state in states]
    if as_json:
        documents = [
            as_document(state) | {"controller": live} for state, live in zip(states, held, strict=True)
        ]
        print_json(documents[0] if name else documents)
        return
    rows = [
        [
            state.name,
            str(state.release),
            state.phase,
            "yes" if live else "no",
            f"{state.wave + 1} of {len(state.waves)}",
            f"{len(state.exposed)} of {len(state.devices)}",
            state.verdict or "",
        ]
        for state, live in zip(states, held, strict=True)
    ]
    print_table(("rollout", "release", "phase", "controller", "wave", "exposed", "verdict"), rows)
    if name:
        print_table(DEVICE_COLUMNS, device_rows(states[0]))


@rollout.command("list", epilog="Example: edgewright fleet rollout list --json")
@store_option
@json_option
def list_rollouts(store: Path, as_json: bool) -> None:
    """List all rollouts of the store, newest first."""
    from dataclasses import asdict

    from edgewright_fleet.rollout.store import RolloutStore

    with closing(RolloutStore(store, create=False)) as kept:
        found = kept.summaries(time.time())
    if as_json:
        print_json([asdict(each) for each in found])
        return
    rows = [[each.name, each.fleet, each.release, each.phase, _at(each.started_s)] for each in found]
    print_table(("rollout", "fleet", "release", "phase", "begun"), rows)


@rollout.command(epilog="Example: edgewright fleet rollout watch night-1")
@click.argument("name")
@store_option
@json_option
def watch(name: str, store: Path, as_json: bool) -> None:
    """Watch a rollout that another process carries out, until it rests. Exit codes are those of 'start'."""
    from edgewright_fleet.rollout.store import RolloutStore

    with closing(RolloutStore(store, create=False)) as kept:
        state = watched(kept, name)
    finish(state, as_json)


@rollout.command(epilog="Example: edgewright fleet rollout history night-1 --json")
@click.argument("name")
@store_option
@json_option
def history(name: str, store: Path, as_json: bool) -> None:
    """Show every decision of a rollout, oldest first; as JSON with the figures behind each."""
    from edgewright_fleet.rollout.store import RolloutStore

    with closing(RolloutStore(store, create=False)) as kept:
        kept.load(name)
        log = kept.decisions(name)
    if as_json:
        print_json(
            [{"at_s": d.at_s, "sentence": d.sentence, "by": d.by, "evidence": d.evidence} for d in log]
        )
        return
    print_table(("at", "decision"), [[_at(d.at_s), d.sentence] for d in log])


def _at(at_s: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at_s))


for command in (abort, pause, promote):
    rollout.add_command(command)
