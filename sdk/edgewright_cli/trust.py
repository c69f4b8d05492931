"""`edgewright trust`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgewright_cli.output import json_option, print_json, print_table

if TYPE_CHECKING:
    from edgewright.trust.repository import Role

REFUSED = 3
"""Exit code where devices would refuse what the registry holds, as a gate's."""
FILE = click.Path(path_type=Path)

registry_argument = click.argument("registry", type=FILE)
keys_option = click.option(
    "--keys", required=True, multiple=True, type=FILE, metavar="PLACE", help="Key file, or folder of them."
)
passphrase_option = click.option(
    "--passphrase-file", type=FILE, metavar="FILE", help="Holds the passphrase of the keys (chmod 600)."
)


@click.group(
    epilog="""\b
Examples:
  edgewright trust init registry/ --keys ~/edgewright-keys
  edgewright trust sign oci:registry:net:1.0.0 --keys ~/edgewright-keys
  edgewright trust status registry/
  edgewright trust renew registry/ --keys online-keys/          # once a week, by a timer
"""
)
def trust() -> None:
    """Sign releases, so that devices with '[trust] root' in their agent.toml take no others.

    The keys of root and targets belong offline: root.json and the online key alone are needed to renew.
    """


@trust.command(
    epilog="""\b
Examples:
  edgewright trust init registry/ --keys ~/edgewright-keys
  edgewright trust init registry/ --keys keys/ --passphrase-file secret --root-keys 3 --threshold 2
"""
)
@registry_argument
@click.option("--keys", required=True, type=FILE, metavar="FOLDER", help="Where the new keys go.")
@passphrase_option
@click.option(
    "--root-keys", default=1, show_default=True, type=click.IntRange(1, 16), help="How many to make."
)
@click.option(
    "--threshold", default=1, show_default=True, type=click.IntRange(1, 16), help="How many sign a root."
)
def init(registry: Path, keys: Path, passphrase_file: Path | None, root_keys: int, threshold: int) -> None:
    """Make keys, and the root that devices pin, for the releases of REGISTRY.

    A passphrase locks the keys of root and targets; the online key stays open, for a machine that renews.
    """
    from edgewright.trust.repository import create

    pin = create(registry, keys, passphrase_file, root_keys=root_keys, threshold=threshold)
    click.echo(
        f"{keys} holds the keys: move root-*.pem and targets-*.pem to media that you lock away.\n"
        f'Copy {pin} to each device and set [trust] root = "/etc/edgewright/root.json" in its agent.toml.'
    )


@trust.command(
    epilog="""\b
Examples:
  edgewright trust sign oci:registry:net:1.0.0 --keys ~/edgewright-keys
  edgewright trust sign oci:registry:net:1.0.0 --keys /media/usb/keys --keys online/online-1a2b3c4d.pem
"""
)
@click.argument("release")
@keys_option
@passphrase_option
def sign(release: str, keys: tuple[Path, ...], passphrase_file: Path | None) -> None:
    """Sign RELEASE, oci:FOLDER:NAME:VERSION, as its registry has it now, with the keys of targets and online."""
    from edgewright.artifact.release import parse_reference
    from edgewright.trust.repository import Signing

    reference = parse_reference(release)
    if reference.name is None:
        raise click.UsageError("name the release: oci:FOLDER:NAME:VERSION")
    digest = Signing.open(reference.folder, keys, passphrase_file).sign(reference.name)
    click.echo(f"{reference.name} is signed, {digest}")


@trust.command(
    epilog="""\b
Examples:
  edgewright trust status registry/
  edgewright trust status registry/ --root /etc/edgewright/root.json --json
"""
)
@registry_argument
@click.option(
    "--root", type=FILE, metavar="FILE", help="What devices pin; by default, what REGISTRY says itself."
)
@json_option
def status(registry: Path, root: Path | None, as_json: bool) -> int:
    """Show who signed what in REGISTRY, and until when; exit code 3 where devices would refuse it all."""
    from edgewright.artifact.layout import Layout
    from edgewright.errors import TrustError
    from edgewright.trust import short
    from edgewright.trust.verify import verify_registry

    names = {name: descriptor.digest for name, descriptor in Layout.open(registry).names().items()}
    try:
        signed = verify_registry(registry, root=root)
    except TrustError as error:
        if as_json:
            print_json({"refused": str(error)})
        else:
            click.echo(f"refused: {error}")
        return REFUSED
    signers = {name: signed.signers(name, digest) for name, digest in sorted(names.items())}
    if as_json:
        roles = {
            name: asdict(role) | {"expires": role.expires.isoformat()} for name, role in signed.roles.items()
        }
        print_json({"roles": roles, "releases": signers})
        return 0
    print_table(
        ("role", "version", "until", "keys", "of which must sign"),
        [
            (
                role.role,
                str(role.version),
                f"{role.expires:%Y-%m-%d %H:%M} UTC",
                ", ".join(map(short, role.keys)),
                str(role.threshold),
            )
            for role in signed.roles.values()
        ],
    )
    rows = [(name, ", ".join(map(short, ids)) or "nobody") for name, ids in signers.items()]
    print_table(("release", "signed by"), rows)
    return 0


@trust.command(
    epilog="""\b
Examples:
  edgewright trust renew registry/ --keys online-keys/
  edgewright trust renew registry/ --keys online-keys/ --days 90
  edgewright trust renew registry/ --keys ~/edgewright-keys --role root --role targets
"""
)
@registry_argument
@keys_option
@passphrase_option
@click.option(
    "--role", "roles", multiple=True, type=click.Choice(["root", "targets"]), help="Renew this too."
)
@click.option(
    "--days", type=click.IntRange(1, 3650), default=30, show_default=True, help="For the timestamp."
)
def renew(
    registry: Path, keys: tuple[Path, ...], passphrase_file: Path | None, roles: tuple[Role, ...], days: int
) -> None:
    """Sign REGISTRY's timestamp anew: after its end devices take no new release, and serve on what they have.

    Needs the online key alone. A root lasts two years, targets a year from the last signature.
    """
    from edgewright.trust.repository import Signing

    Signing.open(registry, keys, passphrase_file).renew(roles, days=days)
    click.echo(f"renewed for {days} days")


@trust.command(
    epilog="""\b
Examples:
  edgewright trust rotate registry/ targets --keys ~/edgewright-keys --new-keys ~/edgewright-keys
  edgewright trust rotate registry/ root --keys keys/ --new-keys /media/usb --add --threshold 2
  edgewright trust rotate registry/ online --keys keys/ --new-keys keys/ --replace 1a2b3c4d
"""
)
@registry_argument
@click.argument("role", type=click.Choice(["root", "targets", "online"]))
@keys_option
@click.option("--new-keys", required=True, type=FILE, metavar="FOLDER", help="Where the new key goes.")
@passphrase_option
@click.option(
    "--replace", metavar="KEY", help="Beginning of the id of the key that goes; needless for one alone."
)
@click.option("--add", is_flag=True, help="None goes.")
@click.option("--threshold", type=click.IntRange(1, 16), help="How many keys must sign from now on.")
def rotate(
    registry: Path,
    role: Role,
    keys: tuple[Path, ...],
    new_keys: Path,
    passphrase_file: Path | None,
    replace: str | None,
    add: bool,
    threshold: int | None,
) -> None:
    """Make a new key for ROLE, in place of another or beside it. Takes the keys of root, and of what they sign.

    Devices follow by themselves from the root that they pin. A key that was lost or stolen need not be at hand.
    """
    from edgewright.trust.repository import Signing

    signing = Signing.open(registry, keys, passphrase_file)
    path = signing.rotate(
        role, new_keys, replace=replace, add=add, threshold=threshold, passphrase_file=passphrase_file
    )
    click.echo(f"{path} signs from now on")
