"""What a candidate must beat, and what training begins with: never what the fleet has taken back."""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path

import pytest
import yaml

from conftest import put_tiny
from edgewright.artifact.layout import Layout
from edgewright_fleet.retraining.releases import serving_release
from edgewright_fleet.retraining.run import begin
from edgewright_fleet.retraining.spec import RetrainingSpec, load_spec
from edgewright_fleet.retraining.stages.training import weights_of

AT = datetime(2026, 1, 1, tzinfo=timezone.utc)


@pytest.fixture
def spec(tmp_path: Path) -> RetrainingSpec:
    document = {
        "name": "night", "fleet": "f", "model": "m:net", "release": "tiny", "registry": "registry",
        "weights": "first.safetensors", "training": {"function": "m:train"},
        "data": {"training": "t.npz", "evaluation": "e.npz", "credentials_file": "keys.toml"},
        "conversion": {"profiles": ["raspberry-pi-5"]},
    }  # fmt: skip
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump(document))
    return load_spec(tmp_path / "spec.yaml")


def released(spec: RetrainingSpec, name: str, version: str, phase: str | None) -> Path:
    run = begin(spec.runs, name, "", "by hand", {}, AT)
    run.chain.add("release", "out", {"release": f"tiny:{version}"}, AT)
    run.chain.add("rollout", "rolled out", {"phase": phase} if phase else {}, AT)
    return run.folder / "training" / "output" / "model.safetensors"


def test_a_release_that_was_taken_back_serves_nobody(spec: RetrainingSpec) -> None:
    registry = Layout.create(spec.registry)
    for version in ("1.1.0", "1.10.0"):
        put_tiny(registry, version)
    good = released(spec, "night", "1.1.0", "succeeded")
    serving = serving_release(spec)
    assert serving is not None and serving.version == "1.10.0"
    released(spec, "night", "1.10.0", "failed")
    serving = serving_release(spec)
    assert serving is not None and serving.version == "1.1.0"
    assert weights_of(begin(spec.runs, "night", "", "by hand", {}, AT), spec) == good


def test_another_retraining_of_a_similar_name_is_another(spec: RetrainingSpec, tmp_path: Path) -> None:
    run = begin(spec.runs, "night", "", "by hand", {}, AT)
    released(spec, "night-2", "1.0.0", None)
    second = begin(spec.runs, "night", "", "by hand", {}, AT)
    assert weights_of(run, spec) == weights_of(second, spec) == tmp_path / "first.safetensors"
    assert spec.data.credentials_file == tmp_path / "keys.toml"
