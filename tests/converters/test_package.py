from __future__ import annotations

from pathlib import Path

import pytest

from edgewright.artifact.layout import Layout
from edgewright.errors import ArtifactError, StorageError
from edgewright_converters.package import check_output


def test_registry_that_could_not_be_made_is_known_before(tmp_path: Path, registry: Layout) -> None:
    (tmp_path / "file").write_text("mine")
    for place, problem in (
        (tmp_path / "file", "is a file"),
        (tmp_path, "other files"),
        (Path("z" * 300), "too long"),
    ):
        with pytest.raises(StorageError, match=problem):
            check_output(place)
    check_output(registry.root)
    check_output(tmp_path / "a" / "b")
    assert sorted(path.name for path in tmp_path.iterdir() if path != registry.root) == ["file"]
    (registry.root / "index.json").write_text("{")
    with pytest.raises(ArtifactError, match=r"index\.json"):
        check_output(registry.root)
