"""`edgewright fleet`."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from edgewright.figures import seconds
from edgewright_cli.output import json_option, print_json, print_table, stderr_console

if TYPE_CHECKING:
    from edgewright.mqtt import BrokerSettings
    from edgewright_fleet.rollout.controller import Observer
    from edgewright_fleet.rollout.state import RolloutState

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
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
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


@fleet.group(epilog="Example: edgewright fleet rollout start spec.yaml")
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
    with a fixed seed), with all devices online and one after another answering.
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


@rollout.command(epilog="Example: edgewright fleet rollout start spec.yaml --broker 127.0.0.1:1883")
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
        closing(MqttTarget(settings, wanted.fleet)) as target,
        _progress() as show,
    ):
        state = start_rollout(wanted, target, kept, show)
    _finish(state, as_json)


@rollout.command(epilog="Example: edgewright fleet rollout resume night-1")
@click.argument("name")
@store_option
@broker_option
@json_option
def resume(name: str, store: Path, broker: str, as_json: bool) -> None:
    """Go on with a rollout that was cut short or is paused; carries out an abort that nobody was there for.

    Exit codes are those of 'start'.
    """
    from edgewright_fleet.rollout.controller import run_rollout
    from edgewright_fleet.rollout.store import RolloutStore
    from edgewright_fleet.targets.mqtt import MqttTarget

    settings = broker_settings(broker)
    with (
        closing(RolloutStore(store, create=False)) as kept,
        closing(MqttTarget(settings, kept.load(name)[0].fleet)) as target,
        _progress() as show,
    ):
        state = run_rollout(name, target, kept, show)
    _finish(state, as_json)


@rollout.command(epilog="Example: edgewright fleet rollout status night-1 --json")
@click.argument("name", required=False)
@store_option
@json_option
def status(name: str | None, store: Path, as_json: bool) -> None:
    """Show where a rollout and its devices are; without NAME, all rollouts."""
    from edgewright_fleet.rollout.store import RolloutStore

    with closing(RolloutStore(store, create=False)) as kept:
        states = [kept.load(n)[1] for n in ([name] if name else kept.names())]
        held = [kept.is_held(state.name, time.time()) for state in states]
    if as_json:
        documents = [
            _document(state) | {"controller": live} for state, live in zip(states, held, strict=True)
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
        print_table(_DEVICE_COLUMNS, _device_rows(states[0]))


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
        print_json([{"at_s": d.at_s, "sentence": d.sentence, "evidence": d.evidence} for d in log])
        return
    rows = [[time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(d.at_s)), d.sentence] for d in log]
    print_table(("at", "decision"), rows)


@rollout.command(epilog="Example: edgewright fleet rollout abort night-1")
@click.argument("name")
@store_option
@json_option
def abort(name: str, store: Path, as_json: bool) -> None:
    """Ask the controller of a rollout to stop it and take exposed devices back."""
    from edgewright_fleet.rollout.store import RolloutStore

    with closing(RolloutStore(store, create=False)) as kept:
        kept.request_abort(name)
        held = kept.is_held(name, time.time())
    if as_json:
        print_json({"name": name, "controller": held})
        return
    click.echo(f"asked for an abort of {name}")
    if not held:
        click.echo(f"no controller runs: 'edgewright fleet rollout resume {name}' carries it out", err=True)


_DEVICE_COLUMNS = ("device", "profile", "online", "wave", "stands", "runs", "before", "reason")


def _device_rows(state: RolloutState) -> list[list[str]]:
    return [
        [
            name,
            record.profile,
            "yes" if record.online else "no",
            "–" if record.wave is None else str(record.wave + 1),
            record.stand,
            str(record.running) if record.running else "nothing",
            str(record.before) if record.before else "nothing",
            record.reason or "",
        ]
        for name, record in state.devices.items()
    ]


def _document(state: RolloutState) -> dict[str, Any]:
    """The state but its histograms."""
    hidden = {"devices": {"__all__": {"baseline", "after", "past_boots", "boot", "sequence"}}}
    document = state.model_dump(mode="json", by_alias=True, exclude=hidden)
    return document | {"exposed": list(state.exposed)}


def _finish(state: RolloutState, as_json: bool) -> None:
    if as_json:
        print_json(_document(state))
    else:
        click.echo(f"{state.name} {state.phase}: {state.verdict}")
    if state.phase != "succeeded":
        raise click.exceptions.Exit(3)


@contextmanager
def _progress() -> Iterator[Observer]:
    """Each decision on a line of standard error, and on a terminal the devices below, as they are now."""
    with stderr_console() as console:
        if not console.is_terminal:
            yield lambda _, decisions, __: _print(console, [d.sentence for d in decisions])
            return
        with Live(console=console, refresh_per_second=4) as live:

            def show(state: RolloutState, decisions: list[Any], _: object) -> None:
                _print(live.console, [decision.sentence for decision in decisions])
                live.update(_picture(state))

            yield show


def _print(console: Console, sentences: list[str]) -> None:
    for sentence in sentences:
        console.print(
            f"{time.strftime('%H:%M:%S')} {sentence}", highlight=False, markup=False, soft_wrap=True
        )


def _picture(state: RolloutState) -> Table:
    title = f"{state.name}: {state.phase}, wave {state.wave + 1} of {len(state.waves)}"
    table = Table(*_DEVICE_COLUMNS, title=title, title_justify="left", box=None, pad_edge=False)
    rows = _device_rows(state)
    # Devices that were told something come first.
    for row in sorted(rows, key=lambda row: row[4] == "waiting")[:20]:
        table.add_row(*map(Text, row))
    if len(rows) > 20:
        table.caption = f"and {len(rows) - 20} more: see 'edgewright fleet rollout status {state.name}'"
    return table
