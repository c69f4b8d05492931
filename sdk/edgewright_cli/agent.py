"""`edgewright agent`."""

from __future__ import annotations

import logging
from pathlib import Path

import click


@click.group(
    epilog="""\b
Examples:
  edgewright agent run --config /etc/edgewright/agent.toml
"""
)
def agent() -> None:
    """Run the device agent."""


@agent.command(
    epilog="""\b
Examples:
  edgewright agent run --config agent.toml
  edgewright agent run --config agent.toml --verbose
"""
)
@click.option(
    "--config", required=True, type=click.Path(path_type=Path), help="The agent.toml of this device."
)
@click.option("--verbose", is_flag=True, help="Log each phase of an update.")
def run(config: Path, verbose: bool) -> None:
    """Serve the release that the fleet desires of this device, and report; ends on SIGTERM or Ctrl-C.

    A broker that is down is waited for while the last good model serves.
    """
    from edgewright_agent.agent import Agent
    from edgewright_agent.config import load_config

    level = logging.INFO if verbose else logging.WARNING
    logging.basicConfig(level=level, format="%(asctime)s %(levelname)s %(message)s")
    device = Agent(load_config(config))
    device.stop_on_signals()
    device.run()
