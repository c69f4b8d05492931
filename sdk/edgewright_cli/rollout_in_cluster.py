"""The verbs where a cluster's controller does the work: a command leaves a wish, and watches it come about."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgewright_cli.rollout_place import Place, cluster_record
from edgewright_cli.rollout_view import watched

if TYPE_CHECKING:
    from edgewright_fleet.rollout.controller import Observer
    from edgewright_fleet.rollout.record import Wish
    from edgewright_fleet.rollout.state import RolloutState
    from edgewright_fleet.targets.kubernetes.record import ResourceRecord

TAKEN_S = 10.0
"""Seconds in which a controller that runs takes a request up: it looks every second."""
LOOK_S = 0.5
WATCH_S = 2.0
"""Seconds between two looks at a rollout, of which each may be a megabyte."""


def start_in_cluster(spec: Path, place: Place) -> RolloutState:
    """Make the ModelRollout of SPEC, or go on with it where it is paused, and watch it until it rests."""
    with _begun(spec, place) as (record, name):
        _has_not_ended(record, name)
        return _gone_on(record, name)


def carried_out_in_cluster(spec: Path, place: Place, observer: Observer) -> RolloutState:
    """As `start_in_cluster`, for one who may have done so before: one that has ended is no error."""
    with _begun(spec, place) as (record, name):
        return _gone_on(record, name, observer)


@contextmanager
def _begun(spec: Path, place: Place) -> Iterator[tuple[ResourceRecord, str]]:
    """The record of the cluster and, made or found there, the name of the rollout of SPEC."""
    from edgewright_fleet.rollout.controller import operator
    from edgewright_fleet.rollout.spec import load_spec

    wanted = load_spec(spec, registry="registry")  # the controller has its own
    with cluster_record(place) as record:
        record.begin(wanted, by=operator())
        yield record, wanted.name


def resume_in_cluster(name: str, place: Place) -> RolloutState:
    """Ask that a paused rollout go on, and watch it until it rests."""
    with cluster_record(place) as record:
        _has_not_ended(record, name)
        return _gone_on(record, name)


def revert_in_cluster(name: str, why: str | None, place: Place) -> RolloutState:
    """Make the ModelRollout that takes a rollout back, and watch it until it rests."""
    from edgewright_fleet.rollout.controller import operator

    with cluster_record(place) as record:
        back = record.begin_reversal(name, by=operator(), why=why)
        _has_not_ended(record, back)
        return _gone_on(record, back)


def watch_in_cluster(name: str, place: Place) -> RolloutState:
    """Watch a rollout until it rests."""
    with cluster_record(place) as record:
        _wait_for_begin(record, name)
        return watched(record, name, WATCH_S)


def ask_in_cluster(name: str, wish: Wish, why: str | None, place: Place) -> bool:
    """Ask for something; whether a controller has taken it up."""
    from edgewright_fleet.rollout.controller import operator

    with cluster_record(place) as record:
        word = record.ask(name, wish, by=operator(), why=why)
        end = time.monotonic() + TAKEN_S
        while not (taken := record.taken(name, word)) and time.monotonic() < end:
            time.sleep(LOOK_S)
        return taken


def _has_not_ended(record: ResourceRecord, name: str) -> None:
    from edgewright.errors import RolloutError
    from edgewright_fleet.rollout.state import ENDED

    begun = record.begun(name)
    if begun is not None and begun[1].phase in ENDED:
        raise RolloutError(f"rollout '{name}' has ended ({begun[1].phase})", remedy="choose another name")


def _gone_on(record: ResourceRecord, name: str, observer: Observer | None = None) -> RolloutState:
    """Watch a rollout to its rest, after asking that it go on where it is paused now."""
    from edgewright_fleet.rollout.controller import operator

    _wait_for_begin(record, name)
    if record.load(name)[1].phase == "paused":
        word = record.ask(name, "resume", by=operator())
        began, said = time.monotonic(), False
        while not record.taken(name, word):
            said = said or _say_that_it_waits(name, began)
            time.sleep(LOOK_S)
    return watched(record, name, WATCH_S, observer)


def _wait_for_begin(record: ResourceRecord, name: str) -> None:
    began, said = time.monotonic(), False
    while record.begun(name) is None:
        said = said or _say_that_it_waits(name, began)
        time.sleep(LOOK_S)


def _say_that_it_waits(name: str, began: float) -> bool:
    late = time.monotonic() - began > TAKEN_S
    if late:
        click.echo(
            f"{name} waits: no controller has taken it up, or another rollout of the fleet comes first",
            err=True,
        )
    return late
