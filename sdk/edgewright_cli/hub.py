"""`edgewright fleet hub` and `edgewright fleet token`."""

from __future__ import annotations

import signal
import threading
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgewright_cli.broker import broker_option, broker_settings
from edgewright_cli.rollout_place import Place, cluster_options, record_of

if TYPE_CHECKING:
    from edgewright_fleet.hub.tokens import Role


@click.command(
    epilog="""\b
Examples:
  edgewright fleet hub --fleet kiosks
  edgewright fleet hub --fleet kiosks --rollouts edgewright-rollouts.sqlite --tokens hub-tokens
  edgewright fleet hub --fleet kiosks --listen 0.0.0.0:9464 --origin https://hub.example --tokens hub-tokens
  edgewright fleet hub --fleet kiosks --context berlin
  edgewright fleet hub --fleet kiosks --forward http://collector.lan:4318
"""
)
@click.option("--fleet", "fleet_name", required=True, help="Name of the fleet.")
@broker_option
@click.option(
    "--listen", default="127.0.0.1:9464", show_default=True, metavar="HOST:PORT", help="Page and /metrics."
)
@click.option(
    "--store",
    type=click.Path(path_type=Path),
    default=Path("edgewright-hub.sqlite"),
    show_default=True,
    help="Where recent windows are kept.",
)
@click.option(
    "--retention",
    default=24.0,
    show_default=True,
    type=click.FloatRange(0.01, 8784),
    help="Hours that they are kept.",
)
@click.option(
    "--max-store",
    default=2000.0,
    show_default=True,
    type=click.FloatRange(1),
    help="MB that the store holds at most.",
)
@click.option(
    "--rollouts",
    type=click.Path(path_type=Path),
    help="The rollout store that is shown, --store of 'rollout'; for rollouts in a cluster --context.",
)
@cluster_options
@click.option(
    "--tokens", type=click.Path(path_type=Path), help="File of tokens; without it nobody can log in."
)
@click.option("--private", is_flag=True, help="Reading needs a token too.")
@click.option("--origin", "origins", multiple=True, metavar="URL", help="Where browsers reach the page.")
@click.option("--forward", metavar="URL", help="An OTLP/HTTP collector that gets all telemetry as well.")
@click.option(
    "--per-device-metrics", is_flag=True, help="Series of each device in /metrics; for small fleets."
)
def hub(
    fleet_name: str,
    broker: str,
    listen: str,
    store: Path,
    retention: float,
    max_store: float,
    rollouts: Path | None,
    kubeconfig: Path | None,
    context: str | None,
    namespace: str,
    tokens: Path | None,
    private: bool,
    origins: tuple[str, ...],
    forward: str | None,
    per_device_metrics: bool,
) -> None:
    """Receive a fleet's telemetry, keep recent windows, and show them: a web page and Prometheus metrics.

    Runs until Ctrl-C. Several hubs of one fleet, each with a store of its own, share the telemetry. The page
    is read-only; with --tokens, who shows an operator's token can stop rollouts. Alert rules and a Grafana
    dashboard are in the folder of the package, edgewright_fleet/hub.
    """
    from edgewright_fleet.hub.serve import HubSettings, run_hub

    host, _, port = listen.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise click.UsageError(f"'{listen}' is no address: write HOST:PORT")
    place = Place(rollouts or Path(), kubeconfig, context, namespace)
    if rollouts is not None and place.in_cluster:
        raise click.UsageError("give --rollouts for bare devices or --context for a cluster, not both")
    if place.in_cluster:
        record_of(place).close()  # a context that does not exist is said now, not on a page
    settings = HubSettings(
        fleet=fleet_name,
        broker=broker_settings(broker),
        store=store,
        host=host,
        port=int(port),
        retention_s=retention * 3600,
        retention_bytes=int(max_store * 1e6),
        rollouts=partial(record_of, place) if rollouts is not None or place.in_cluster else None,
        tokens=tokens,
        private=private,
        origins=origins,
        forward=forward,
        per_device=per_device_metrics,
    )
    stopping = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopping.set())
    run_hub(
        settings, stopping, lambda at: click.echo(f"hub of {fleet_name} on {at}; Ctrl-C ends it", err=True)
    )


@click.command(
    epilog="""\b
Examples:
  edgewright fleet token hub-tokens --name anna --role operator
  edgewright fleet token hub-tokens --name prometheus --role viewer
"""
)
@click.argument("tokens", type=click.Path(path_type=Path))
@click.option("--name", required=True, help="Whose it is, for the page and for you.")
@click.option("--role", type=click.Choice(["viewer", "operator"]), required=True, help="What it may do.")
def token(tokens: Path, name: str, role: Role) -> None:
    """Make a token for the hub's page: printed once, its hash is added to the file TOKENS.

    A token is taken back by taking its line out of the file; a running hub sees that at once.
    """
    from edgewright_fleet.hub.tokens import add_token

    click.echo(add_token(tokens, name, role))
