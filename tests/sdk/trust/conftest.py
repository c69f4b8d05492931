"""A signed registry with real keys, and devices that pin its root."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from edgewright.artifact.layout import Layout
from edgewright.trust.repository import Signing, create
from edgewright.trust.verify import verify_release


@dataclass
class Signed:
    """A registry that holds tiny:1.0.0, signed; its keys; and what one device remembers of it."""

    registry: Path
    keys: Path
    memory: Path

    @property
    def signing(self) -> Signing:
        """With all keys that are in the folder now."""
        return Signing.open(self.registry, [self.keys])

    @property
    def digest(self) -> str:
        return Layout.open(self.registry).names()["tiny:1.0.0"].digest

    @property
    def trust(self) -> Path:
        return self.registry / "trust"

    def verify(self, name: str = "tiny:1.0.0", digest: str | None = None) -> int:
        """As the device with this memory would."""
        root = self.keys / "root.json"
        return verify_release(self.registry, name, digest or self.digest, root=root, known=self.memory)

    def verify_as_new(self) -> int:
        """As a device that sees the registry for the first time."""
        return verify_release(self.registry, "tiny:1.0.0", self.digest, root=self.keys / "root.json")

    def key(self, role: str) -> Path:
        (found,) = self.keys.glob(f"{role}-*.pem")
        return found

    def copy(self, folder: Path) -> Path:
        """A copy of the registry as it is now."""
        return Path(shutil.copytree(self.registry, folder))


@pytest.fixture
def signed(tmp_path: Path, registry: Layout) -> Signed:
    create(registry.root, tmp_path / "keys")
    made = Signed(registry.root, tmp_path / "keys", tmp_path / "memory")
    made.signing.sign("tiny:1.0.0")
    return made
