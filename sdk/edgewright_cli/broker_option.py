"""The option `--broker HOST:PORT`, and what it says as settings."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from edgewright.mqtt import BrokerSettings

broker_option = click.option(
    "--broker", default="127.0.0.1:1883", show_default=True, metavar="HOST:PORT", help="The MQTT broker."
)


def broker_settings(text: str) -> BrokerSettings:
    """HOST:PORT as settings."""
    from edgewright.mqtt import BrokerSettings

    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise click.UsageError(f"'{text}' is no broker: write HOST:PORT")
    return BrokerSettings(host=host, port=int(port))
