"""`edgewright inspect`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgewright.figures import MANIFEST_COLUMNS, gate_lines, manifest_row
from edgewright_cli.output import json_option, print_json, print_table

if TYPE_CHECKING:
    from edgewright.artifact.release import Release


@click.command(
    epilog="""\b
Examples:
  edgewright inspect registry/
  edgewright inspect oci:registry:digits:1.0.0 --json
  edgewright inspect oci:registry:digits:1.1.0 --card card.html
  edgewright inspect registry/ --root /etc/edgewright/root.json
"""
)
@click.argument("target")
@json_option
@click.option(
    "--card",
    "card_file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write the release's model card as a page (.html), Markdown (.md) or JSON (.json).",
)
@click.option(
    "--root",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Judge signatures by this root.json, as devices do; by default, by the registry's own.",
)
def inspect(target: str, as_json: bool, card_file: Path | None, root: Path | None) -> None:
    """Show what the releases and artifacts in a folder or reference are and were seen to achieve, and who signed.

    Every digest is checked; a corrupt part is named and the exit code is 2.
    """
    from edgewright.artifact.model_card import read_card
    from edgewright.artifact.release import open_all, open_releases
    from edgewright.card.text import card_lines
    from edgewright.card.write import write_card
    from edgewright.trust import short

    artifacts, releases = open_all(target), open_releases(target)
    cards = [card for release in releases if (card := read_card(release)) is not None]
    signers, refusal = _signers(releases, root)
    if card_file is not None:
        write_card(cards, card_file, where=target)
    if as_json:
        described = {
            artifact.digest: card.model_dump(mode="json", by_alias=True)
            for card in cards
            for artifact in card.artifacts
        }
        print_json(
            [
                {
                    "digest": a.digest,
                    "manifest": a.manifest.model_dump(mode="json", by_alias=True),
                    "card": described.get(a.digest),
                    "signed_by": signers.get(f"{a.manifest.name}:{a.manifest.version}", ()),
                    "signature_refused": refusal,
                }
                for a in artifacts
            ]
        )
        return
    rows = [
        [f"{a.manifest.name}:{a.manifest.version}", *manifest_row(a.manifest), a.digest[7:19]]
        for a in artifacts
    ]
    print_table(("release", *MANIFEST_COLUMNS, "digest"), rows)
    for a in artifacts:
        if a.manifest.gate is not None:
            click.echo("\n".join([f"{a.manifest.name}:{a.manifest.version}", *gate_lines(a.manifest)]))
    for card in cards:
        click.echo("\n".join(card_lines(card)))
    for name, ids in signers.items():
        by = f"signed by {', '.join(map(short, ids))}, as {root or 'the registry itself'} has it"
        click.echo(f"{name}: {by if ids else refusal or 'not signed'}")


def _signers(releases: Sequence[Release], root: Path | None) -> tuple[dict[str, tuple[str, ...]], str | None]:
    """Who signed each release, by its name, and why no signature of the registry counts where none does."""
    from edgewright.errors import TrustError
    from edgewright.trust import is_signed

    names = {f"{release.name}:{release.version}": release for release in releases}
    registry = releases[0].layout.root if releases else None
    if registry is None or not (root or is_signed(registry)):
        return dict.fromkeys(names, ()), None
    from edgewright.trust.verify import verify_registry

    try:
        signed = verify_registry(registry, root=root)
    except TrustError as error:
        return dict.fromkeys(names, ()), f"signature refused: {error}"
    return {name: signed.signers(name, release.digest) for name, release in names.items()}, None
