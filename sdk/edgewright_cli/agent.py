"""`edgewright agent`."""

from __future__ import annotations

import logging
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from edgewright_cli.output import json_option, print_json, print_table

FAILED = 3
"""Exit code where a check of the doctor failed, as a gate's."""

config_option = click.option(
    "--config",
    default=Path("/etc/edgewright/agent.toml"),
    show_default=True,
    type=click.Path(path_type=Path),
    help="The agent.toml of this device.",
)


@click.group(
    epilog="""\b
Examples:
  edgewright agent run --config /etc/edgewright/agent.toml
  edgewright agent doctor
  edgewright agent status --json
"""
)
def agent() -> None:
    """Run the device agent, and ask it what it does."""


@agent.command(
    epilog="""\b
Examples:
  edgewright agent run --config agent.toml
  edgewright agent run --config agent.toml --verbose
  edgewright agent run --config agent.toml --device "berlin.$NODE_NAME"
"""
)
@config_option
@click.option("--device", metavar="NAME", help="Name of this device, in place of the file's.")
@click.option("--verbose", is_flag=True, help="Print each phase of an update; 'agent logs' has them anyway.")
def run(config: Path, device: str | None, verbose: bool) -> None:
    """Serve the release that the fleet desires of this device, and report; ends on SIGTERM or Ctrl-C.

    A broker that is down is waited for while the last good model serves.
    """
    from edgewright_agent.late_imports import import_late

    import_late()
    from edgewright_agent.agent import Agent
    from edgewright_agent.config import load_config
    from edgewright_agent.control import state_folder_held
    from edgewright_agent.event_log import keep_log

    level = logging.INFO if verbose else logging.WARNING
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger().handlers[0].setLevel(level)
    settings = load_config(config, device)
    with state_folder_held(settings.state_dir):
        keep_log(settings.state_dir)
        running = Agent(settings)
        running.stop_on_signals()
        hint = f"'edgewright agent status --config {config}' says what it does; Ctrl-C ends it"
        click.echo(f"the agent of {settings.fleet}/{settings.device} starts; {hint}", err=True)
        running.run()


@agent.command(
    epilog="""\b
Examples:
  edgewright agent status
  edgewright agent status --config agent.toml --json
  edgewright agent status --ready >/dev/null && echo serves
"""
)
@config_option
@click.option("--ready", is_flag=True, help="Exit code 3 unless the agent runs and serves a proved release.")
@json_option
def status(config: Path, ready: bool, as_json: bool) -> int:
    """Show what this device serves, where it is with an update, and why the last one failed."""
    from edgewright_agent.config import load_config
    from edgewright_agent.status import status_of

    document = status_of(load_config(config))
    _show(document, as_json)
    serves = document["agent"] != "not running" and document["release"] is not None
    return FAILED if ready and not serves else 0


@agent.command(
    epilog="""\b
Examples:
  edgewright agent doctor
  edgewright agent doctor --json | jq '.[] | select(.health != "ok")'
"""
)
@config_option
@json_option
def doctor(config: Path, as_json: bool) -> int:
    """Check runtime, sensors, broker, registry, clock, disk and permissions; exit code 3 where one failed."""
    from edgewright_agent.config import load_config
    from edgewright_agent.doctor import examine

    findings = examine(load_config(config))
    if as_json:
        print_json([asdict(finding) for finding in findings])
    else:
        rows = [(f.check, f.health, f.says, f.remedy or "") for f in findings]
        print_table(("check", "health", "what was seen", "what to do"), rows)
    return FAILED if any(finding.health == "failed" for finding in findings) else 0


@agent.command(
    epilog="""\b
Examples:
  edgewright agent rollback
"""
)
@config_option
@json_option
def rollback(config: Path, as_json: bool) -> None:
    """Serve the release before, and stay there until the fleet asks for another one.

    Works with and without a running agent. Doing it once more returns to the later release.
    """
    from edgewright_agent.config import load_config
    from edgewright_agent.status import roll_back

    _show(roll_back(load_config(config)), as_json)


@agent.command(
    epilog="""\b
Examples:
  edgewright agent defer
"""
)
@config_option
@json_option
def defer(config: Path, as_json: bool) -> None:
    """Ask for half an hour without an update, as the device is in use; a rollout grants it a few times."""
    from edgewright.errors import EdgewrightError
    from edgewright_agent.config import load_config
    from edgewright_agent.control import ask

    answer = ask(load_config(config).state_dir, "defer")
    if answer is None:
        raise EdgewrightError("no agent runs here", remedy="'edgewright agent run' starts it")
    _show(answer, as_json)


@agent.command(
    epilog="""\b
Examples:
  edgewright agent logs
  edgewright agent logs --lines 500 --json
  edgewright agent logs --follow
"""
)
@config_option
@click.option("--lines", default=50, show_default=True, type=click.IntRange(0, 100_000), help="How many.")
@click.option("--follow", is_flag=True, help="Go on as events come, until Ctrl-C.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document a line.")
def logs(config: Path, lines: int, follow: bool, as_json: bool) -> None:
    """Show what happened to this device and why, over restarts."""
    import json

    from edgewright_agent.config import load_config
    from edgewright_agent.event_log import events
    from edgewright_agent.event_log import follow as as_they_come

    def show(event: dict[str, Any]) -> None:
        line = (
            json.dumps(event, ensure_ascii=False) if as_json else "{time} {level} {message}".format(**event)
        )
        click.echo(line)

    state_dir = load_config(config).state_dir
    # Asked for first, so that no event falls between the two; one may then be shown twice.
    coming = as_they_come(state_dir)
    newest = events(state_dir, lines)
    for event in newest:
        show(event)
    if not newest and lines:
        click.echo(f"no agent has said anything in {state_dir} yet", err=True)
    if follow:
        for event in coming:
            show(event)


def _show(document: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(document)
    else:
        rows = [(key.replace("_", " "), _shown(value)) for key, value in document.items()]
        print_table(("what", "now"), rows)


def _shown(value: Any) -> str:
    if value is None:
        return "-"
    return ("no", "yes")[value] if isinstance(value, bool) else str(value)
