"""Where the rollouts are that a command speaks of: a store file of this machine, or the objects of a cluster.

The same verbs serve both. What differs is who acts: on a file the command does, in a cluster its controller.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from edgewright_cli.rollout_carrying import store_option

if TYPE_CHECKING:
    from edgewright_fleet.rollout.record import Record
    from edgewright_fleet.targets.kubernetes.record import ResourceRecord

F = TypeVar("F", bound="Callable[..., Any]")


@dataclass(frozen=True)
class Place:
    """A store file or, where a context or a kubeconfig is given, a cluster."""

    store: Path
    kubeconfig: Path | None = None
    context: str | None = None
    namespace: str = "edgewright"

    @property
    def in_cluster(self) -> bool:
        return self.kubeconfig is not None or self.context is not None


def place_options(command: F) -> F:
    """The options that say where; the command gets them as `place`."""

    @functools.wraps(command)
    def with_place(
        store: Path, kubeconfig: Path | None, context: str | None, namespace: str, **others: Any
    ) -> Any:
        place = Place(store, kubeconfig, context, namespace)
        source = click.get_current_context().get_parameter_source("store")
        if place.in_cluster and source is click.core.ParameterSource.COMMANDLINE:
            raise click.UsageError("give --store for bare devices or --context for a cluster, not both")
        return command(place=place, **others)

    return cluster_options(store_option(with_place))  # type: ignore[return-value]


def cluster_options(command: F) -> F:
    """The options that name a cluster and our namespace in it."""
    decorated: Any = command
    for option in (
        click.option(
            "--namespace", default="edgewright", show_default=True, help="Namespace in the cluster."
        ),
        click.option(
            "--kubeconfig",
            type=click.Path(path_type=Path),
            help="A kubeconfig file, for rollouts in a cluster; without it $KUBECONFIG, or ~/.kube/config.",
        ),
        click.option(
            "--context",
            metavar="NAME",
            help="The cluster's context, for rollouts in a cluster, whose controller carries them out.",
        ),
    ):
        decorated = option(decorated)
    return decorated  # type: ignore[no-any-return]


@contextmanager
def opened(place: Place) -> Iterator[Record]:
    """The rollouts there, to look at."""
    with closing(record_of(place)) as record:
        yield record


def record_of(place: Place) -> Record:
    """The rollouts there; whoever opens them closes them."""
    if place.in_cluster:
        return _in_cluster(place)
    from edgewright_fleet.rollout.store import RolloutStore

    return RolloutStore(place.store, create=False)


@contextmanager
def cluster_record(place: Place) -> Iterator[ResourceRecord]:
    """The rollouts of the cluster."""
    with closing(_in_cluster(place)) as record:
        yield record


def _in_cluster(place: Place) -> ResourceRecord:
    from edgewright_fleet.targets.kubernetes.api import from_kubeconfig
    from edgewright_fleet.targets.kubernetes.record import ResourceRecord

    files = [place.kubeconfig] if place.kubeconfig else []
    contexts = [place.context] if place.context else []
    return ResourceRecord(from_kubeconfig(files, contexts, place.namespace)[0])
