"""`--broker`, which every command of the fleet takes: HOST:PORT, or a file with certificates and the like."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from edgewright.mqtt import BrokerSettings

broker_option = click.option(
    "--broker",
    default="127.0.0.1:1883",
    show_default=True,
    envvar="EDGEWRIGHT_BROKER",
    metavar="HOST:PORT|FILE",
    help="The MQTT broker, or a .toml file of the keys that [broker] of agent.toml takes, for TLS and passwords.",
)


def broker_settings(text: str) -> BrokerSettings:
    """HOST:PORT, or what a file says, as settings."""
    from edgewright.mqtt import BrokerSettings, load_settings

    if text.endswith(".toml"):
        return load_settings(Path(text))
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise click.UsageError(f"'{text}' is no broker: write HOST:PORT, or name a .toml file")
    return BrokerSettings(host=host, port=int(port))
