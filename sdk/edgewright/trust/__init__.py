"""Signed releases: metadata of The Update Framework beside an OCI layout.

`repository` signs what the registry holds, with the private keys of `keys`; `verify` is the other end, which
starts from a root that it has pinned. The cryptography is python-tuf's, imported by those modules alone.
Source: TUF specification 1.0, https://theupdateframework.github.io/specification/latest/
"""

from __future__ import annotations

from pathlib import Path

FOLDER = "trust"
"""In the registry's folder, beside `index.json`. Other tools ignore it; a copy of the folder brings it along."""


def metadata_folder(registry: Path) -> Path:
    """Where a registry's metadata lies."""
    return registry / FOLDER


def first_root(registry: Path) -> Path:
    """The root that a registry began with: what devices pin, and what counts where nobody pins any."""
    return metadata_folder(registry) / "1.root.json"


def is_signed(registry: Path) -> bool:
    """Whether the releases of a registry are meant to be signed."""
    return metadata_folder(registry).is_dir()


def short(keyid: str) -> str:
    """As much of a key's id as people compare."""
    return keyid[:8]
