"""`edgewright fleet`."""

from __future__ import annotations

from contextlib import closing

import click

from edgewright.figures import seconds
from edgewright_cli.broker import broker_option, broker_settings
from edgewright_cli.drift import drift
from edgewright_cli.fleet_install import install
from edgewright_cli.fleet_kubernetes import clusters, controller, nodes
from edgewright_cli.hub import hub, token
from edgewright_cli.output import json_option, print_json, print_table
from edgewright_cli.rollout import rollout
from edgewright_cli.samples import samples


@click.group(
    epilog="""\b
Examples:
  edgewright fleet broker --port 1883
  edgewright fleet devices --fleet kiosks
  edgewright fleet devices --fleet kiosks --broker broker.toml
  edgewright fleet hub --fleet kiosks
  edgewright fleet drift --by release
  edgewright fleet rollout start spec.yaml
"""
)
def fleet() -> None:
    """Roll releases out to devices and watch them."""


@fleet.command(epilog="Example: edgewright fleet broker --port 1883")
@click.option("--port", default=1883, show_default=True, type=click.IntRange(1, 65535))
def broker(port: int) -> None:
    """Run the embedded MQTT broker on the loopback interface until Ctrl-C."""
    from edgewright_fleet.broker import serve_broker

    serve_broker(port, lambda at: click.echo(f"MQTT 5 broker on {at}; Ctrl-C ends it", err=True))


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
        documents = [view.as_document() for view in snapshot(target, wait).values()]
    if as_json:
        print_json(documents)
        return
    rows = [
        [
            d["device"],
            d["profile"] or "unknown",
            d["online"],
            d["phase"] or "unknown",
            d["release"] or "nothing",
            seconds(d["p50_s"]),
            seconds(d["p99_s"]),
            d["reason"] or "",
        ]
        for d in documents
    ]
    print_table(("device", "profile", "online", "phase", "release", "p50", "p99", "reason"), rows)


for command in (rollout, samples, hub, drift, token, install, controller, clusters, nodes):
    fleet.add_command(command)
