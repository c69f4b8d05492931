"""`edgewright fleet controller|clusters|nodes`: fleets whose devices are nodes of Kubernetes clusters."""

from __future__ import annotations

import logging
import signal
import socket
import threading
import uuid
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from edgewright_cli.broker import broker_option, broker_settings
from edgewright_cli.output import json_option, print_json, print_table

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgewright_fleet.targets.kubernetes.api import Cluster
    from edgewright_fleet.targets.kubernetes.target import ClusterView

F = TypeVar("F", bound="Callable[..., Any]")
UNREACHABLE = 3
"""Exit code where a cluster did not answer."""


def kubernetes_options(command: F) -> F:
    """Which clusters: kubeconfig files, contexts in them, and our namespace there."""
    for option in (
        click.option("--namespace", default="edgewright", show_default=True, help="Namespace of Edgewright."),
        click.option(
            "--context", "contexts", multiple=True, metavar="NAME", help="A context; may be given again."
        ),
        click.option(
            "--kubeconfig",
            "files",
            multiple=True,
            type=click.Path(path_type=Path),
            help="A kubeconfig file; may be given again. Without it: $KUBECONFIG, or ~/.kube/config.",
        ),
    ):
        command = option(command)
    return command


@click.command(
    epilog="""\b
Examples:
  edgewright fleet controller --fleet kiosks --broker broker.lan:1883 --registry /srv/registry
  edgewright fleet controller --fleet kiosks --context berlin --context hamburg --registry /srv/registry
"""
)
@click.option("--fleet", "fleet_name", required=True, help="Name of the fleet.")
@click.option(
    "--registry", required=True, type=click.Path(path_type=Path), help="The OCI layout of releases."
)
@click.option("--cluster", default="home", show_default=True, help="Name of the cluster that this runs in.")
@click.option(
    "--in-cluster",
    is_flag=True,
    help="The first cluster is the one that this runs in, by its service account; --context adds others.",
)
@click.option(
    "--lease",
    default=15.0,
    show_default=True,
    type=click.FloatRange(3, 600),
    help="Seconds until another takes over.",
)
@broker_option
@kubernetes_options
def controller(
    fleet_name: str,
    registry: Path,
    cluster: str,
    in_cluster: bool,
    lease: float,
    broker: str,
    namespace: str,
    contexts: tuple[str, ...],
    files: tuple[Path, ...],
) -> None:
    """Carry out the ModelRollouts of a fleet, until SIGTERM or Ctrl-C; of several controllers one acts.

    Without --context and --kubeconfig it runs in a cluster, by its service account. Of several clusters the first
    holds the ModelRollouts; the nodes of all are the fleet's.
    """
    from edgewright_fleet.targets.kubernetes.api import in_cluster as own_cluster
    from edgewright_fleet.targets.kubernetes.controller import run_controller
    from edgewright_fleet.targets.kubernetes.store import ResourceStore
    from edgewright_fleet.targets.kubernetes.target import KubernetesTarget
    from edgewright_fleet.targets.mqtt import MqttTarget

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    settings = broker_settings(broker)
    with ExitStack() as stack:
        chosen = []
        if in_cluster or not (files or contexts):
            chosen.append(stack.enter_context(closing(own_cluster(cluster, namespace))))
        if files or contexts:
            chosen += chosen_clusters(stack, files, contexts, namespace)
        identity = f"{socket.gethostname()}_{uuid.uuid4().hex[:8]}"
        store = stack.enter_context(closing(ResourceStore(chosen[0], registry, identity, lease_s=lease)))
        mqtt = MqttTarget(settings, fleet_name)
        target = stack.enter_context(closing(KubernetesTarget(mqtt, chosen)))
        run_controller(fleet_name, target, store, stop.is_set)


@click.command(epilog="Example: edgewright fleet clusters --context berlin --context hamburg --json")
@kubernetes_options
@json_option
def clusters(files: tuple[Path, ...], contexts: tuple[str, ...], namespace: str, as_json: bool) -> int:
    """List clusters: whether each answers, and how many of its nodes serve; all contexts if none is given.

    Exit code 3 where one does not answer.
    """
    views = _look(files, contexts, namespace)
    documents = [
        {
            "cluster": view.cluster,
            "server": view.server,
            "answers": view.problem is None,
            "nodes": len(view.nodes) if view.problem is None else None,
            "available": sum(n.available for n in view.nodes) if view.problem is None else None,
            "serving": sum(n.serving for n in view.nodes) if view.problem is None else None,
            "problem": view.problem,
        }
        for view in views
    ]
    if as_json:
        print_json(documents)
    else:
        columns = ("cluster", "server", "answers", "nodes", "available", "serving", "problem")
        print_table(columns, [[_shown(d[column]) for column in columns] for d in documents])
    return UNREACHABLE if any(view.problem for view in views) else 0


@click.command(epilog="Example: edgewright fleet nodes --context berlin --json")
@kubernetes_options
@json_option
def nodes(files: tuple[Path, ...], contexts: tuple[str, ...], namespace: str, as_json: bool) -> int:
    """List the nodes that have a hardware profile, and whether each can take an update.

    All contexts if none is given. Exit code 3 where a cluster does not answer.
    """
    views = _look(files, contexts, namespace)
    documents = [node.as_document() for view in views for node in view.nodes]
    if as_json:
        print_json(documents)
    else:
        columns = ("cluster", "node", "device", "profile", "state", "serving", "reason")
        print_table(columns, [[_shown(d[column]) for column in columns] for d in documents])
    lost = [view for view in views if view.problem]
    for view in lost:
        click.echo(f"cluster {view.cluster}: {view.problem}", err=True)
    return UNREACHABLE if lost else 0


def _look(files: tuple[Path, ...], contexts: tuple[str, ...], namespace: str) -> list[ClusterView]:
    from edgewright_fleet.targets.kubernetes.target import look_at

    with ExitStack() as stack:
        return [
            look_at(cluster)
            for cluster in chosen_clusters(stack, files, contexts, namespace, every=not contexts)
        ]


def chosen_clusters(
    stack: ExitStack,
    files: tuple[Path, ...],
    contexts: tuple[str, ...],
    namespace: str,
    *,
    every: bool = False,
) -> list[Cluster]:
    from edgewright_fleet.targets.kubernetes.api import from_kubeconfig

    return [stack.enter_context(closing(c)) for c in from_kubeconfig(files, contexts, namespace, every=every)]


def _shown(value: Any) -> str:
    if value is None:
        return ""
    return ("no", "yes")[value] if isinstance(value, bool) else str(value)
