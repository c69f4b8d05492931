"""How a command carries out a rollout, and what it says and exits with at the end."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgewright_cli.broker import broker_settings
from edgewright_cli.output import print_json
from edgewright_cli.rollout_view import as_document, progress

if TYPE_CHECKING:
    from edgewright.mqtt import BrokerSettings
    from edgewright_cli.rollout_place import Place
    from edgewright_fleet.rollout.state import Decision, RolloutState

store_option = click.option(
    "--store",
    type=click.Path(path_type=Path),
    default=Path("edgewright-rollouts.sqlite"),
    show_default=True,
    envvar="EDGEWRIGHT_STORE",
    help="Where rollouts are kept.",
)
why_option = click.option("--why", help="The reason, for the audit log.")


def carry_on(name: str, store: Path, broker: str, as_json: bool) -> None:
    from edgewright_fleet.rollout.controller import run_rollout
    from edgewright_fleet.rollout.store import RolloutStore
    from edgewright_fleet.targets.mqtt import MqttTarget

    settings = broker_settings(broker)
    with (
        closing(RolloutStore(store, create=False)) as kept,
        closing(MqttTarget(settings, kept.load(name)[0].fleet, one_rollout=True)) as target,
        progress() as show,
    ):
        state = run_rollout(name, target, kept, show)
    finish(state, as_json)


def carried_out(
    spec: Path, place: Place, settings: BrokerSettings, say: Callable[[str], None]
) -> RolloutState:
    """Carry out the rollout in SPEC until it rests, or have a cluster do it, or find that it has rested."""
    from edgewright_cli.rollout_in_cluster import carried_out_in_cluster
    from edgewright_fleet.rollout.controller import start_rollout
    from edgewright_fleet.rollout.spec import load_spec
    from edgewright_fleet.rollout.state import ENDED
    from edgewright_fleet.rollout.store import RolloutStore
    from edgewright_fleet.targets.mqtt import MqttTarget

    def observe(_: RolloutState, decisions: list[Decision], __: object) -> None:
        for decision in decisions:
            say(decision.sentence)

    if place.in_cluster:
        return carried_out_in_cluster(spec, place, observe)
    wanted = load_spec(spec)
    with closing(RolloutStore(place.store)) as kept:
        state = kept.load(wanted.name)[1] if wanted.name in kept.names() else None
        if state is None or state.phase not in ENDED:
            with closing(MqttTarget(settings, wanted.fleet, one_rollout=True)) as target:
                state = start_rollout(wanted, target, kept, observe)
    return state


def finish(state: RolloutState, as_json: bool) -> None:
    if as_json:
        document: dict[str, Any] = as_document(state)
        print_json(document)
    else:
        click.echo(f"{state.name} {state.phase}: {state.verdict}")
    if state.phase != "succeeded":
        raise click.exceptions.Exit(3)
