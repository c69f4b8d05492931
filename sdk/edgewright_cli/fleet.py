"""`edgewright fleet`."""

from __future__ import annotations

import threading
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgewright.figures import seconds
from edgewright_cli.output import json_option, print_json, print_table, stderr_console

if TYPE_CHECKING:
    from edgewright.mqtt import BrokerSettings
    from edgewright_fleet.rollout.engine import Decision, RolloutState

store_option = click.option(
    "--store",
    type=click.Path(path_type=Path),
    default=Path("edgewright-rollouts.sqlite"),
    show_default=True,
    help="Where rollouts are kept.",
)
broker_option = click.option(
    "--broker", default="127.0.0.1:1883", show_default=True, metavar="HOST:PORT", help="The MQTT broker."
)


def broker_settings(text: str) -> BrokerSettings:
    """HOST:PORT as settings."""
    from edgewright.mqtt import BrokerSettings

    host, _, port = text.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise click.UsageError(f"'{text}' is no broker: write HOST:PORT")
    return BrokerSettings(host=host, port=int(port))


@click.group(
    epilog="""\b
Examples:
  edgewright fleet broker --port 1883
  edgewright fleet devices --fleet kiosks
  edgewright fleet rollout start spec.yaml
"""
)
def fleet() -> None:
    """Roll releases out to devices and watch them."""


@fleet.command(epilog="Example: edgewright fleet broker --port 1883")
@click.option("--port", default=1883, show_default=True, type=click.IntRange(1, 65535))
def broker(port: int) -> None:
    """Run the embedded MQTT broker on the loopback interface until Ctrl-C."""
    from edgewright_fleet.broker import embedded_broker

    with embedded_broker(port) as settings:
        click.echo(f"MQTT 5 broker on {settings}; Ctrl-C ends it", err=True)
        threading.Event().wait()


@fleet.command(epilog="Example: edgewright fleet devices --fleet kiosks --broker broker.lan:1883 --json")
@click.option("--fleet", "fleet_name", required=True, help="Name of the fleet.")
@click.option(
    "--wait", default=0.0, show_default=True, type=click.FloatRange(0, 3600), help="Seconds for metrics."
)
@broker_option
@json_option
def devices(fleet_name: str, wait: float, broker: str, as_json: bool) -> None:
    """List the devices of a fleet: what they run, where they are with an update, and how fast they are."""
    from edgewright_fleet.devices import snapshot
    from edgewright_fleet.targets.mqtt import MqttTarget

    with closing(MqttTarget(broker_settings(broker), fleet_name)) as target:
        views = snapshot(target, wait).values()
    columns = ("device", "profile", "online", "phase", "release", "p50", "p99", "reason")
    rows = []
    for view in views:
        latency = view.window.latency if view.window and view.window.latency.count else None
        rows.append(
            [
                view.device,
                view.profile or "unknown",
                "yes" if view.online else "no",
                view.phase or "unknown",
                str(view.running) if view.running else "nothing",
                seconds(latency.quantile(0.5)) if latency else "–",
                seconds(latency.quantile(0.99)) if latency else "–",
                view.reason or "",
            ]
        )
    if as_json:
        print_json([dict(zip(columns, row, strict=True)) for row in rows])
    else:
        print_table(columns, rows)


@fleet.group(epilog="Example: edgewright fleet rollout start spec.yaml")
def rollout() -> None:
    """Start, watch and stop rollouts."""


@rollout.command(epilog="Example: edgewright fleet rollout start spec.yaml --broker 127.0.0.1:1883")
@click.argument("spec", type=click.Path(path_type=Path))
@store_option
@broker_option
def start(spec: Path, store: Path, broker: str) -> None:
    """Roll a release out as SPEC says, in the foreground; one that was cut short is continued.

    Exit code 0 when it succeeded; 3 when it failed, was aborted, or is paused as inconclusive.
    """
    from edgewright_fleet.rollout.controller import start_rollout
    from edgewright_fleet.rollout.spec import load_spec
    from edgewright_fleet.rollout.store import RolloutStore
    from edgewright_fleet.targets.mqtt import MqttTarget

    wanted = load_spec(spec)
    settings = broker_settings(broker)
    with (
        stderr_console() as console,
        closing(RolloutStore(store)) as kept,
        closing(MqttTarget(settings, wanted.fleet)) as target,
    ):

        def show(state: RolloutState, decisions: list[Decision], _: object) -> None:
            for decision in decisions:
                console.print(
                    f"{time.strftime('%H:%M:%S')} {decision.sentence}", highlight=False, markup=False
                )

        state = start_rollout(wanted, target, kept, show)
    click.echo(f"{state.phase}: {state.verdict}")
    if state.phase != "succeeded":
        raise click.exceptions.Exit(3)


@rollout.command(epilog="Example: edgewright fleet rollout status night-1 --json")
@click.argument("name", required=False)
@store_option
@json_option
def status(name: str | None, store: Path, as_json: bool) -> None:
    """Show where a rollout is, with the decisions so far; without NAME, all rollouts."""
    from edgewright_fleet.rollout.store import RolloutStore

    with closing(RolloutStore(store)) as kept:
        states = [kept.load(n)[1] for n in ([name] if name else kept.names())]
        log = kept.decisions(name) if name else []
    if as_json:
        print_json([state.model_dump(mode="json", by_alias=True, exclude={"devices"}) for state in states])
        return
    rows = [
        [
            state.name,
            str(state.release),
            state.phase,
            f"{state.wave + 1} of {len(state.waves)}",
            f"{len(state.exposed)} of {len(state.devices)}",
            state.verdict or "",
        ]
        for state in states
    ]
    print_table(("rollout", "release", "phase", "wave", "exposed", "verdict"), rows)
    for decision in log:
        at = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(decision.at_s))
        click.echo(f"{at}  {decision.sentence}")


@rollout.command(epilog="Example: edgewright fleet rollout abort night-1")
@click.argument("name")
@store_option
def abort(name: str, store: Path) -> None:
    """Ask the controller of a rollout to stop it and take exposed devices back."""
    from edgewright_fleet.rollout.store import RolloutStore

    with closing(RolloutStore(store)) as kept:
        kept.request_abort(name)
    click.echo(f"asked for an abort of {name}")
