from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import edgewright as ew
from conftest import PROFILE, put_tiny, tiny_golden, tiny_manifest, tiny_onnx
from edgewright.artifact.golden import golden_from_bytes, prove
from edgewright.artifact.layout import Layout
from edgewright.artifact.manifest import (
    ArtifactManifest,
    FloatOperator,
    GateCheck,
    GateReport,
    ImagePreprocessing,
    TensorSpec,
)
from edgewright.artifact.release import copy_artifact, find_artifact, open_all, open_release
from edgewright.contract import from_json, to_json
from edgewright.errors import ArtifactError, DataError, EdgewrightError, StorageError
from edgewright.runtime.model import Model


def test_manifest_survives_a_round_trip() -> None:
    manifest = tiny_manifest(tiny_onnx(), tiny_golden())
    assert from_json(ArtifactManifest, to_json(manifest), where="test") == manifest


shares = st.none() | st.floats(0, 1)
figures = st.none() | st.floats(-1e9, 1e9)
verdicts = st.sampled_from(["pass", "fail", "inconclusive"])
checks = st.builds(
    GateCheck,
    name=st.from_regex(r"[a-z0-9][a-z0-9-]{0,12}", fullmatch=True),
    verdict=verdicts,
    actual=figures,
    low=figures,
    high=figures,
    limit=figures,
    unit=st.text(max_size=8),
    how=st.sampled_from(["measured on host", "predicted", "not measured"]),
    samples_needed=st.none() | st.integers(1, 10**6),
    says=st.text(max_size=20),
    remedy=st.none() | st.text(max_size=20),
)
float_operators = st.builds(
    FloatOperator, name=st.text(max_size=9), type=st.text(max_size=9), mac_share=shares, time_share=shares
)
gates = st.builds(
    GateReport,
    verdict=verdicts,
    checks=st.lists(checks, min_size=1, max_size=4).map(tuple),
    int8_mac_share=shares,
    float_operators=st.lists(float_operators, max_size=3).map(tuple),
    operator_time=st.sampled_from([None, "predicted", "measured on host"]),
    runtime_memory_bytes=st.none() | st.integers(1, 2**40),
    peak_memory_bytes=st.none() | st.integers(1, 2**40),
    conversion_s=st.floats(0, 1e6),
)
names = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,20}", fullmatch=True)


@given(
    names,
    names,
    st.lists(st.integers(1, 512), min_size=1, max_size=5),
    st.floats(1e-9, 1e9),
    st.integers(-128, 255),
    st.lists(st.text(max_size=12), max_size=4),
    st.none() | gates,
)
def test_any_manifest_survives_a_round_trip(
    name: str,
    version: str,
    shape: list[int],
    scale: float,
    zero_point: int,
    labels: list[str],
    gate: GateReport | None,
) -> None:
    base = tiny_manifest(tiny_onnx(), tiny_golden(), version)
    stored = {"scale": scale, "zero_point": zero_point}
    spec = {**base.inputs[0].model_dump(), "shape": shape, "quantisation": stored}
    changes = {"name": name, "inputs": [spec], "labels": labels, "gate": gate}
    manifest = ArtifactManifest.model_validate({**base.model_dump(), **changes})
    assert from_json(ArtifactManifest, to_json(manifest), where="test") == manifest


def test_manifest_from_before_the_gate_is_still_read() -> None:
    old = to_json(tiny_manifest(tiny_onnx(), tiny_golden()))
    assert b'"gate"' not in old
    assert from_json(ArtifactManifest, old, where="test").gate is None


@given(st.binary(max_size=200))
def test_any_bytes_are_a_manifest_or_one_line(data: bytes) -> None:
    with pytest.raises(EdgewrightError) as caught:
        from_json(ArtifactManifest, data, where="bytes", error=ArtifactError)
    assert "\n" not in str(caught.value)


@given(st.binary(max_size=300))
def test_any_bytes_are_golden_vectors_or_an_artifact_error(data: bytes) -> None:
    with pytest.raises(ArtifactError):
        golden_from_bytes(data)


def test_model_of_a_release_runs_with_float_in_and_out(registry: Layout) -> None:
    model = ew.load(f"oci:{registry.root}:tiny:1.0.0", profile=PROFILE)
    x = np.array([[0.0, 1.0, 2.0, 3.0]], np.float32)
    # stored = x / 0.5 + 10; the model adds 1 to it; real = (stored - 10) * 0.5
    assert np.allclose(model.run(x)["y"], x + 0.5)
    assert np.array_equal(model.run({"x": x})["y"], model.run(x)["y"])
    raw = model.run(np.array([[1, 2, 3, 4]], np.uint8), raw=True)["y"]
    assert raw.tolist() == [[2, 3, 4, 5]]


def test_picture_is_prepared_as_the_manifest_says(registry: Layout, tmp_path: Path) -> None:
    from PIL import Image

    session = Recording()
    artifact = find_artifact(registry.root)
    Image.new("RGB", (9, 7), (10, 20, 30)).save(tmp_path / "red.png")
    with pytest.raises(DataError, match="describes no preprocessing of images; give the array"):
        Model(session, artifact).run(tmp_path / "red.png")
    how = ImagePreprocessing(height=2, width=2, mean=(10, 10, 10), std=(10, 20, 40))
    described = replace(artifact, manifest=artifact.manifest.model_copy(update={"preprocessing": how}))
    model = Model(session, described, inputs=session.inputs, outputs=session.outputs)
    for picture in (tmp_path / "red.png", (tmp_path / "red.png").read_bytes()):
        assert model.run(picture)["y"][0, :, 0, 0].tolist() == [0.0, 0.5, 0.5]


class Recording:
    """A session that gives its image back."""

    runtime = "none"
    inputs = (TensorSpec(name="x", runtime_name="x", shape=(1, 3, 2, 2), dtype="float32"),)
    outputs = (TensorSpec(name="y", runtime_name="y", shape=(1, 3, 2, 2), dtype="float32"),)

    def run(self, inputs: Sequence[Any]) -> list[Any]:
        return list(inputs)


@pytest.mark.parametrize(
    ("given_", "problem"),
    [
        (np.zeros((1, 5), np.float32), "has shape"),
        ({"z": np.zeros((1, 4), np.float32)}, "takes the inputs x"),
        (np.zeros((1, 4), np.complex64), "has dtype complex64"),
    ],
)
def test_wrong_input_is_refused_in_one_line(registry: Layout, given_: object, problem: str) -> None:
    model = ew.load(str(registry.root))
    with pytest.raises(DataError, match=problem):
        model.run(given_)


def test_release_that_is_not_there_lists_those_that_are(registry: Layout) -> None:
    with pytest.raises(ArtifactError, match=r"no release 'tiny:9'; releases there: tiny:1.0.0"):
        ew.load(f"oci:{registry.root}:tiny:9")


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.data())
def test_any_single_flipped_bit_is_found(registry: Layout, data: st.DataObject) -> None:
    files = sorted(path for path in registry.root.rglob("*") if path.is_file())
    path = data.draw(st.sampled_from(files))
    sound = path.read_bytes()
    position = data.draw(st.integers(0, len(sound) - 1))
    broken = bytearray(sound)
    broken[position] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(bytes(broken))
    try:
        with pytest.raises(ArtifactError) as caught:
            find_artifact(f"oci:{registry.root}:tiny:1.0.0")
        assert "\n" not in str(caught.value)
    finally:
        path.write_bytes(sound)
    find_artifact(f"oci:{registry.root}:tiny:1.0.0")


def test_copy_is_whole_and_verified(registry: Layout, tmp_path: Path) -> None:
    artifact = find_artifact(registry.root)
    copied = copy_artifact(artifact, Layout.create(tmp_path / "copy"))
    assert copied.digest == artifact.digest
    assert prove(copied.golden(), copied.manifest.golden, ew.load(tmp_path / "copy").run_raw).passed


def test_golden_vectors_tell_a_wrong_result(registry: Layout) -> None:
    put_tiny(registry, "2.0.0", offset=1, golden_offset=3)
    model = ew.load(f"oci:{registry.root}:tiny:2.0.0")
    assert model.artifact is not None
    verdict = prove(model.artifact.golden(), model.artifact.manifest.golden, model.run_raw)
    assert not verdict.passed
    assert verdict.worst_lsb == 2


def test_releases_live_beside_each_other(registry: Layout) -> None:
    put_tiny(registry, "1.1.0", offset=2)
    assert [a.manifest.version for a in open_all(str(registry.root))] == ["1.0.0", "1.1.0"]
    assert open_release(registry, "tiny:1.0.0").digest != open_release(registry, "tiny:1.1.0").digest


def test_failed_write_leaves_nothing_behind(registry: Layout) -> None:
    before = sorted(registry.root.rglob("*"))
    with pytest.raises(RuntimeError), registry.undone_on_error():
        registry.put(b"half", "application/octet-stream")
        raise RuntimeError
    assert sorted(p for p in registry.root.rglob("*") if p.is_file()) == [p for p in before if p.is_file()]


def test_folder_with_other_files_is_not_made_a_registry(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(StorageError, match="other files"):
        Layout.create(tmp_path)


def _is_a_folder(blob: Path) -> None:
    blob.unlink()
    blob.mkdir()


def _is_on_a_bad_sector(blob: Path) -> None:
    blob.unlink()
    blob.symlink_to("/proc/self/mem")  # whose first page is EIO to read


@pytest.mark.parametrize(
    ("damage", "problem"), [(_is_a_folder, "is a folder"), (_is_on_a_bad_sector, "error")]
)
def test_blob_that_cannot_be_read_is_one_line_that_names_it(
    registry: Layout, tmp_path: Path, damage: Callable[[Path], None], problem: str
) -> None:
    artifact = find_artifact(registry.root)
    blob = artifact.model_path
    descriptor = next(b for b in artifact.blobs if registry.path_of(b.digest) == blob)
    damage(blob)
    other = Layout.create(tmp_path / "other")
    for attempt in (lambda: registry.verify(descriptor), lambda: other.copy_from(registry, descriptor)):
        with pytest.raises(StorageError, match=problem) as caught:
            attempt()
        assert str(caught.value).startswith(str(blob))
        assert "\n" not in str(caught.value)
    assert [path for path in (tmp_path / "other" / "blobs").rglob("*") if path.is_file()] == []


def test_unreadable_blob_is_written_anew(registry: Layout) -> None:
    artifact = find_artifact(registry.root)
    sound = artifact.model_path.read_bytes()
    _is_on_a_bad_sector(artifact.model_path)
    registry.put(sound, "application/octet-stream")
    find_artifact(registry.root)


def test_registry_below_a_file_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ArtifactError, match="no oci-layout file"):
        Layout.open(tmp_path / "file" / "registry")
    with pytest.raises(StorageError, match="a part of the path is a file"):
        Layout.create(tmp_path / "file" / "registry")


def test_layout_that_could_not_be_finished_leaves_no_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, data: bytes) -> None:
        if path.name == "oci-layout":
            raise StorageError("the disk is full", where=str(path))
        path.write_bytes(data)

    monkeypatch.setattr("edgewright.artifact.layout.write_durably", full)
    with pytest.raises(StorageError, match="full"):
        Layout.create(tmp_path)
    assert list(tmp_path.iterdir()) == []
