from __future__ import annotations

from pathlib import Path

from edgewright.object_store.folder import FolderStore
from edgewright_fleet.retraining.field_data.collect import collect
from edgewright_fleet.retraining.field_data.reading import open_data_set
from edgewright_fleet.retraining.field_data.recent import RecentSamples
from fleet.retraining.field_data.stored_samples import RULE, labels, put


def test_candidates_are_compared_on_the_recent_part_with_its_groups_and_probabilities(tmp_path: Path) -> None:
    root = tmp_path / "store"
    root.mkdir()
    digests = [put(root, number, days_ago=number) for number in range(30)]
    file = labels(tmp_path, [f"{digest},{i % 3}" for i, digest in enumerate(digests)])
    manifest, _ = collect(FolderStore(root), file, tmp_path / "set", RULE)
    data_set = open_data_set(tmp_path / "set")
    recent = RecentSamples(data_set)
    for _ in range(2):
        found = list(recent)
        assert 0 < len(found) == manifest.counts["evaluation"] < 7
        assert all(sample.inputs["x"].shape == (1, 3, 4, 6) for sample in found)
        assert {sample.groups["profile"] for sample in found} == {"raspberry-pi-5"}
        assert {sample.groups["site"] for sample in found} == {"lab"}
        assert {sample.probability for sample in found} <= {0.01, 0.5}
    trained = {entry.digest for entry in data_set.entries("training")}
    assert trained.isdisjoint(entry.digest for entry in data_set.entries("evaluation"))
