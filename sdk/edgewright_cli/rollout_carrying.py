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
    spec: Path, store: Path, settings: BrokerSettings, say: Callable[[str], None]
) -> tuple[str, str]:
    """Carry out the rollout in SPEC until it rests, or find that it has: its phase, and its verdict in words."""
    from edgewright_fleet.rollout.controller import start_rollout
    from edgewright_fleet.rollout.spec import load_spec
    from edgewright_fleet.rollout.state import ENDED
    from edgewright_fleet.rollout.store import RolloutStore
    from edgewright_fleet.targets.mqtt import MqttTarget

    wanted = load_spec(spec)
    with closing(RolloutStore(store)) as kept:
        state = kept.load(wanted.name)[1] if wanted.name in kept.names() else None
        if state is None or state.phase not in ENDED:

            def observe(_: RolloutState, decisions: list[Decision], __: object) -> None:
                for decision in decisions:
                    say(decision.sentence)

            with closing(MqttTarget(settings, wanted.fleet, one_rollout=True)) as target:
                state = start_rollout(wanted, target, kept, observe)
    return state.phase, f"{state.phase}: {state.verdict}"


def finish(state: RolloutState, as_json: bool) -> None:
    if as_json:
        document: dict[str, Any] = as_document(state)
        print_json(document)
    else:
        click.echo(f"{state.name} {state.phase}: {state.verdict}")
    if state.phase != "succeeded":
        raise click.exceptions.Exit(3)
