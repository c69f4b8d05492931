"""Writing a card to a file in the form that the file's name asks for."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from edgewright.artifact.model_card import ModelCard
from edgewright.card.page import page
from edgewright.card.text import markdown
from edgewright.durable_file import write_durably
from edgewright.errors import ArtifactError, ConfigError


def write_card(cards: Sequence[ModelCard], path: Path, *, where: str) -> None:
    """Write the one card of `cards`, found at `where`. Raises `ArtifactError` where it is not one, `ConfigError`
    for another ending than .html, .md and .json, `StorageError`."""
    if len(cards) != 1:
        held = ", ".join(f"{card.name}:{card.version}" for card in cards)
        raise ArtifactError(
            f"holds {len(cards)} model cards{f' ({held})' if held else ''}",
            where=where,
            remedy="write oci:FOLDER:NAME:VERSION" if held else "a release that was retrained has one",
        )
    if path.suffix == ".html":
        text = page(cards[0])
    elif path.suffix == ".md":
        text = markdown(cards[0])
    elif path.suffix == ".json":
        text = (
            json.dumps(cards[0].model_dump(mode="json", by_alias=True), indent=2, ensure_ascii=False) + "\n"
        )
    else:
        raise ConfigError("--card: ends in none of .html, .md and .json", where=str(path))
    write_durably(path, text.encode())
