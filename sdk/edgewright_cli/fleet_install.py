"""`edgewright fleet install`."""

from __future__ import annotations

import re
from contextlib import ExitStack
from pathlib import Path

import click

from edgewright_cli.broker import broker_option, broker_settings
from edgewright_cli.fleet_kubernetes import chosen_clusters, kubernetes_options

LABEL = r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?"
"""RFC 1123; a device's name is split at the first dot."""


@click.command(
    epilog="""\b
Examples:
  edgewright fleet install --fleet kiosks --cluster berlin --image edgewright:1.0 --broker mq:1883 --to manifests
  edgewright fleet install --fleet kiosks --cluster berlin --image edgewright:1.0 --broker mq:1883 --apply
  edgewright fleet install --fleet kiosks --cluster berlin --image edgewright:1.0 --to manifests \\
      --broker agents.toml --broker-secret kiosks-agents \\
      --controller-broker controller.toml --controller-broker-secret kiosks-controller
  kubectl apply -k manifests
"""
)
@click.option("--fleet", "fleet_name", required=True, help="Name of the fleet.")
@click.option("--cluster", required=True, help="Name of this cluster, the first part of its devices' names.")
@click.option("--image", required=True, help="Container image that holds the edgewright command.")
@click.option(
    "--profile",
    "profiles",
    multiple=True,
    metavar="NAME",
    help="A hardware profile; all built-in ones if none.",
)
@click.option(
    "--registry-claim", default="edgewright-registry", show_default=True, help="Claim with the releases."
)
@click.option(
    "--time-zone", metavar="NAME", help="Of its nodes, such as Europe/Berlin, for maintenance windows."
)
@click.option(
    "--other-cluster",
    "others",
    multiple=True,
    metavar="CONTEXT",
    help="A further cluster, whose nodes are the fleet's too; may be given again.",
)
@click.option(
    "--clusters-secret", metavar="NAME", help="The Secret whose key 'kubeconfig' has the contexts of those."
)
@click.option("--no-controller", is_flag=True, help="Agents alone: a controller elsewhere looks after them.")
@click.option("--to", "folder", type=click.Path(path_type=Path), help="Write the manifests to this folder.")
@click.option("--apply", "applies", is_flag=True, help="Apply them to the cluster.")
@broker_option
@click.option(
    "--broker-secret",
    metavar="NAME",
    help="The Secret with the files that the --broker file names; each is the key of its name.",
)
@click.option(
    "--controller-broker",
    metavar="HOST:PORT|FILE",
    help="The broker as the controller reaches it, which alone may say what devices run; --broker if left out.",
)
@click.option("--controller-broker-secret", metavar="NAME", help="The Secret with the files of that.")
@kubernetes_options
def install(
    fleet_name: str,
    cluster: str,
    image: str,
    profiles: tuple[str, ...],
    registry_claim: str,
    time_zone: str | None,
    others: tuple[str, ...],
    clusters_secret: str | None,
    no_controller: bool,
    folder: Path | None,
    applies: bool,
    broker: str,
    broker_secret: str | None,
    controller_broker: str | None,
    controller_broker_secret: str | None,
    namespace: str,
    contexts: tuple[str, ...],
    files: tuple[Path, ...],
) -> None:
    """Write or apply what Edgewright needs in a cluster: the ModelRollout resource, rights, controller and agents.

    An agent runs on each node that carries the label edgewright.dev/profile=PROFILE. No manifest holds a secret:
    where a broker wants certificates or a password, --broker names a file of settings, the files that it names are
    keys of a Secret of yours ('kubectl create secret generic NAME --from-file=FILE …'), and pods mount that.
    """
    from edgewright_fleet.rollout.maintenance import is_zone
    from edgewright_fleet.targets.kubernetes.broker_access import BrokerAccess
    from edgewright_fleet.targets.kubernetes.install import apply, write
    from edgewright_fleet.targets.kubernetes.installation import Installation
    from edgewright_profiles.catalog import load_profile, profile_names

    if (folder is None) == (not applies):
        raise click.UsageError("give --to FOLDER or --apply")
    for option, name in (("--cluster", cluster), ("--namespace", namespace)):
        if not re.fullmatch(LABEL, name):
            raise click.UsageError(f"{option} '{name}': small letters, digits and '-' alone, 63 at most")
    if time_zone is not None and not is_zone(time_zone):
        raise click.UsageError(
            f"--time-zone '{time_zone}': no time zone that is known here, as Europe/Berlin"
        )
    if bool(others) != bool(clusters_secret):
        raise click.UsageError("--other-cluster and --clusters-secret go together")
    if no_controller and (others or controller_broker):
        raise click.UsageError(
            "--no-controller leaves nothing that other clusters or --controller-broker are for"
        )
    if controller_broker_secret and not controller_broker:
        raise click.UsageError("--controller-broker-secret needs --controller-broker FILE")
    for profile in profiles:
        load_profile(profile)
    installation = Installation(
        fleet=fleet_name,
        cluster=cluster,
        image=image,
        broker=BrokerAccess(broker_settings(broker), broker_secret),
        controller_broker=(
            BrokerAccess(broker_settings(controller_broker), controller_broker_secret)
            if controller_broker
            else None
        ),
        profiles=profiles or profile_names(),
        namespace=namespace,
        registry_claim=registry_claim,
        time_zone=time_zone,
        others=others,
        others_secret=clusters_secret,
        with_controller=not no_controller,
    )
    if folder is not None:
        for path in write(installation, folder):
            click.echo(path)
        return
    with ExitStack() as stack:
        chosen = chosen_clusters(stack, files, contexts, namespace)
        if len(chosen) > 1:
            raise click.UsageError("one cluster at a time: each has a name of its own")
        apply(installation, chosen[0], click.echo)
