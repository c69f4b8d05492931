"""From a release to the specification of its rollout, made from the user's own. Nothing is started here."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import yaml

from edgewright.artifact.release import Release
from edgewright.contract import from_mapping
from edgewright.durable_file import write_durably
from edgewright.errors import ConfigError
from edgewright_fleet.rollout.spec import RolloutSpec, load_spec

LONGEST = 128
"""Of a name, by its contract."""


def read_template(template: Path, model: str) -> RolloutSpec:
    """The specification that a rollout of `model` is made from. Raises `ConfigError`."""
    asked = load_spec(template, registry="registry")  # in whose place the release's comes
    named = asked.release.partition(":")[0]
    if named != model:
        raise ConfigError(
            f"release: rolls out '{named}', but the candidate is a '{model}'",
            where=str(template),
            remedy="name a specification for that model",
        )
    return asked


def rollout_spec(template: Path, release: Release, taken: Collection[str] = ()) -> RolloutSpec:
    """The rollout of `template`, a complete specification, for another release and under a name of its own.

    The name is the template's with the release's version, and a number where a rollout in `taken` has it.
    Everything else is the template's, gates and waves above all. Raises `ConfigError`.
    """
    asked = read_template(template, release.name)
    stem, number = f"{asked.name}-{release.version}"[:LONGEST], 1
    name = stem
    while name in taken:
        number += 1
        name = f"{stem[: LONGEST - len(str(number)) - 1]}-{number}"
    changes = {
        "name": name,
        "release": f"{release.name}:{release.version}",
        "registry": str(release.layout.root.resolve()),
    }
    document = asked.model_dump(mode="json", by_alias=True, exclude_unset=True) | changes
    return from_mapping(RolloutSpec, document, where=str(template))


def write_rollout(spec: RolloutSpec, folder: Path) -> Path:
    """Write the specification as `NAME.yaml`, for `edgewright fleet rollout start`. Raises `StorageError`."""
    document = spec.model_dump(mode="json", by_alias=True, exclude_unset=True)
    path = folder / f"{spec.name}.yaml"
    write_durably(path, yaml.safe_dump(document, sort_keys=False, allow_unicode=True).encode())
    return path
