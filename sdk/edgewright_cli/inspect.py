"""`edgewright inspect`."""

from __future__ import annotations

import click

from edgewright.figures import MANIFEST_COLUMNS, gate_lines, manifest_row
from edgewright_cli.output import json_option, print_json, print_table


@click.command(
    epilog="""\b
Examples:
  edgewright inspect registry/
  edgewright inspect oci:registry:digits:1.0.0 --json
"""
)
@click.argument("target")
@json_option
def inspect(target: str, as_json: bool) -> None:
    """Show what the releases and artifacts in a folder or reference are and were seen to achieve.

    Every digest is checked; a corrupt part is named and the exit code is 2.
    """
    from edgewright.artifact.release import open_all

    artifacts = open_all(target)
    if as_json:
        print_json(
            [
                {"digest": a.digest, "manifest": a.manifest.model_dump(mode="json", by_alias=True)}
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
