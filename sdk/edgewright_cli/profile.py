"""`edgewright profile`."""

from __future__ import annotations

from dataclasses import asdict

import click

from edgewright.figures import size
from edgewright_cli.output import json_option, print_json, print_table


@click.group(
    epilog="""\b
Examples:
  edgewright profile list
  edgewright profile show raspberry-pi-5 --json
  edgewright profile detect
"""
)
def profile() -> None:
    """List, show and detect hardware profiles."""


@profile.command("list")
@json_option
def list_profiles(as_json: bool) -> None:
    """List the hardware profiles."""
    from edgewright_profiles import load_profile, profile_names

    profiles = [load_profile(name) for name in profile_names()]
    if as_json:
        print_json([{"name": p.name, "title": p.title, "formats": p.formats} for p in profiles])
        return
    rows = [[p.name, p.title, ", ".join(p.formats), size(p.memory.bytes)] for p in profiles]
    print_table(("name", "device", "formats, preferred first", "memory"), rows)


@profile.command()
@click.argument("name")
@json_option
def show(name: str, as_json: bool) -> None:
    """Show a profile, every fact with its source; NAME may also be a .toml file."""
    from edgewright_profiles import load_profile

    document = load_profile(name).model_dump(mode="json", by_alias=True, exclude_none=True)
    if as_json:
        print_json(document)
        return
    rows: list[list[str]] = []
    _flatten("", document, rows)
    print_table(("fact", "value"), rows)


@profile.command()
@json_option
def detect(as_json: bool) -> None:
    """Say what this host is, what each fact was read from, and which profile it matches."""
    from edgewright_profiles.detect import detect as run

    document = asdict(run())
    if as_json:
        print_json(document)
        return
    rows: list[list[str]] = []
    _flatten("", document, rows)
    print_table(("fact", "value"), rows)


def _flatten(prefix: str, value: object, rows: list[list[str]]) -> None:
    if isinstance(value, dict):
        for key, item in value.items():
            _flatten(f"{prefix}.{key}" if prefix else str(key), item, rows)
    elif isinstance(value, (list, tuple)) and any(isinstance(item, dict) for item in value):
        for index, item in enumerate(value):
            _flatten(f"{prefix}.{index}", item, rows)
    else:
        text = ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
        rows.append([prefix, "unknown" if value is None else text])
