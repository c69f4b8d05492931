from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgewright.artifact.manifest import Quantisation, TensorSpec
from edgewright.artifact.release import find_artifact
from edgewright.errors import DataError
from edgewright.mqtt import BrokerSettings
from edgewright.runtime.model import Model, load_artifact
from edgewright_agent.feed_config import SourceConfig
from edgewright_agent.sources import open_source
from edgewright_agent.sources.recorded import npz_rows

IMAGE = TensorSpec(name="image", runtime_name="i", shape=(1, 3), dtype="uint8")
REAL = TensorSpec(
    name="x", runtime_name="x", shape=(1, 2), dtype="int8", quantisation=Quantisation(scale=0.5, zero_point=1)
)
FLAT = TensorSpec(name="tokens", runtime_name="t", shape=(2,), dtype="int64")


def saved(tmp_path: Path, **arrays: Any) -> Path:
    path = tmp_path / "inputs.npz"
    np.savez(path, **arrays)
    return path


def rows_of(config: SourceConfig, model: Model, count: int) -> list[Any]:
    source = open_source(config, broker=BrokerSettings(), client_id="c")
    return [sample.prepare(model) for sample in (source.next(0) for _ in range(count)) if sample]


def test_golden_inputs_are_cycled_raw(registry: Any) -> None:
    registry.release("1.0.0")
    artifact = find_artifact(registry.root)
    golden = artifact.golden()
    rows = rows_of(SourceConfig(), load_artifact(artifact), 9)
    assert len(rows) == 9
    for i, row in enumerate(rows):
        np.testing.assert_array_equal(row["x"], golden.inputs["x"][i % golden.count])


def test_a_switch_of_models_switches_the_golden_inputs(registry: Any) -> None:
    registry.release("1.0.0")
    registry.release("2.0.0")
    one, two = (load_artifact(find_artifact(f"oci:{registry.root}:sorter:{v}.0.0")) for v in "12")
    source = open_source(SourceConfig(), broker=BrokerSettings(), client_id="c")
    for model in (one, two, one):
        sample = source.next(0)
        assert sample is not None
        assert model.artifact is not None
        np.testing.assert_array_equal(sample.prepare(model)["x"], model.artifact.golden().inputs["x"][0])


def test_recorded_arrays_are_cycled_one_sample_at_a_time(registry: Any, tmp_path: Path) -> None:
    registry.release("1.0.0")
    samples = np.arange(12, dtype=np.uint8).reshape(3, 4)
    config = SourceConfig(kind="npz", path=saved(tmp_path, x=samples, y=np.zeros(3)))
    model = load_artifact(find_artifact(registry.root))
    rows = rows_of(config, model, 4)
    given = [row["x"][0].tolist() for row in rows]
    assert given == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11], [0, 1, 2, 3]]
    assert all(model.run_raw(row)["scores"].shape == (1, 3) for row in rows)


def test_real_values_are_quantised_as_the_artifact_says(tmp_path: Path) -> None:
    (row,) = npz_rows(saved(tmp_path, x=np.array([[1.0, -200.0]], np.float32)), (REAL,))
    assert row["x"].dtype == np.int8
    assert row["x"].tolist() == [[3, -128]]


def test_several_inputs_go_by_name_with_and_without_a_batch_axis(tmp_path: Path) -> None:
    path = saved(tmp_path, image=np.ones((4, 3), np.uint8), tokens=np.ones((4, 2), np.int64))
    rows = npz_rows(path, (IMAGE, FLAT))
    assert len(rows) == 4
    assert (rows[0]["image"].shape, rows[0]["tokens"].shape) == ((1, 3), (2,))


@pytest.mark.parametrize(
    ("arrays", "problem"),
    [
        ({"image": np.ones((4, 3), np.uint8)}, "given: image"),
        ({"image": np.ones((4, 3), np.uint8), "tokens": np.ones((3, 2), np.int64)}, "same number of samples"),
        ({"image": np.ones((0, 3), np.uint8), "tokens": np.ones((0, 2), np.int64)}, "at least one"),
        ({"image": np.uint8(1), "tokens": np.int64(1)}, "same number of samples"),
        ({"image": np.ones((1, 5), np.uint8), "tokens": np.ones((1, 2), np.int64)}, "it takes [1, 3]"),
        (
            {"image": np.array([{}]), "tokens": np.ones((1, 2), np.int64)},
            "cannot be loaded when allow_pickle",
        ),
    ],
)
def test_data_that_does_not_fit_is_refused_when_the_source_is_opened(
    tmp_path: Path, arrays: dict[str, Any], problem: str
) -> None:
    with pytest.raises(DataError) as caught:
        npz_rows(saved(tmp_path, **arrays), (IMAGE, FLAT))
    assert problem in str(caught.value)


@pytest.mark.parametrize("content", [None, b"", b"noise", b"PK\x03\x04"])
def test_a_file_that_is_no_npz_is_one_line(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "inputs.npz"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=r"is not an \.npz file"):
        npz_rows(path, (IMAGE,))


def test_a_single_array_is_not_an_npz(tmp_path: Path) -> None:
    path = tmp_path / "inputs.npy"
    np.save(path, np.ones(3))
    with pytest.raises(DataError, match=r"is not an \.npz file"):
        npz_rows(path, (IMAGE,))
