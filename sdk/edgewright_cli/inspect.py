"""`edgewright inspect`."""

from __future__ import annotations

from pathlib import Path

import click

from edgewright.figures import MANIFEST_COLUMNS, gate_lines, manifest_row
from edgewright_cli.output import json_option, print_json, print_table


@click.command(
    epilog="""\b
Examples:
  edgewright inspect registry/
  edgewright inspect oci:registry:digits:1.0.0 --json
  edgewright inspect oci:registry:digits:1.1.0 --card card.html
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
def inspect(target: str, as_json: bool, card_file: Path | None) -> None:
    """Show what the releases and artifacts in a folder or reference are and were seen to achieve.

    Every digest is checked; a corrupt part is named and the exit code is 2.
    """
    from edgewright.artifact.model_card import read_card
    from edgewright.artifact.release import open_all, open_releases
    from edgewright.card.text import card_lines
    from edgewright.card.write import write_card

    artifacts = open_all(target)
    cards = [card for release in open_releases(target) if (card := read_card(release)) is not None]
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
