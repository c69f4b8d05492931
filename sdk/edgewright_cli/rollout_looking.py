"""What shows rollouts and changes nothing: `status`, `list`, `watch`, `history`."""

from __future__ import annotations

import time
from dataclasses import asdict

import click

from edgewright_cli.output import json_option, print_json, print_table
from edgewright_cli.rollout_carrying import finish
from edgewright_cli.rollout_in_cluster import watch_in_cluster
from edgewright_cli.rollout_place import Place, opened, place_options
from edgewright_cli.rollout_view import DEVICE_COLUMNS, as_document, device_rows, watched


@click.command(epilog="Example: edgewright fleet rollout status night-1 --json")
@click.argument("name", required=False)
@place_options
@json_option
def status(name: str | None, place: Place, as_json: bool) -> None:
    """Show where a rollout and its devices are; without NAME, where each rollout is."""
    with opened(place) as kept:
        states = [kept.load(n)[1] for n in ([name] if name else kept.names())]
        held = [kept.is_held(state.name, time.time()) for state in states]
    if as_json:
        documents = [
            as_document(state) | {"controller": live} for state, live in zip(states, held, strict=True)
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
        print_table(DEVICE_COLUMNS, device_rows(states[0]))


@click.command("list", epilog="Example: edgewright fleet rollout list --json")
@place_options
@json_option
def list_rollouts(place: Place, as_json: bool) -> None:
    """List all rollouts of the store, newest first."""
    with opened(place) as kept:
        found = kept.summaries(time.time())
    if as_json:
        print_json([asdict(each) for each in found])
        return
    rows = [
        [each.name, each.fleet, each.release, each.phase, _at(each.started_s), each.verdict or ""]
        for each in found
    ]
    print_table(("rollout", "fleet", "release", "phase", "begun", "verdict"), rows)


@click.command(epilog="Example: edgewright fleet rollout watch night-1")
@click.argument("name")
@place_options
@json_option
def watch(name: str, place: Place, as_json: bool) -> None:
    """Watch a rollout that another process carries out, until it rests. Exit codes are those of 'start'."""
    if place.in_cluster:
        finish(watch_in_cluster(name, place), as_json)
        return
    with opened(place) as kept:
        state = watched(kept, name)
    finish(state, as_json)


@click.command(epilog="Example: edgewright fleet rollout history night-1 --json")
@click.argument("name")
@place_options
@json_option
def history(name: str, place: Place, as_json: bool) -> None:
    """Show every decision of a rollout, oldest first; as JSON with the figures behind each."""
    with opened(place) as kept:
        kept.load(name)
        log = kept.decisions(name)
    if as_json:
        print_json(
            [{"at_s": d.at_s, "sentence": d.sentence, "by": d.by, "evidence": d.evidence} for d in log]
        )
        return
    print_table(("at", "decision"), [[_at(d.at_s), d.sentence] for d in log])


def _at(at_s: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at_s))
