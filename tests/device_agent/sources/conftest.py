"""A model that takes photos, made by hand, and photos."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper
from PIL import Image

from conftest import put_tiny, tiny_golden, tiny_manifest
from edgewright.artifact.layout import Layout, digest_of
from edgewright.artifact.manifest import Classification, ImagePreprocessing, Quantisation, TensorSpec
from edgewright.artifact.release import open_artifact, publish, put_artifact
from edgewright.runtime.model import Model, load_artifact

PREPROCESSING = ImagePreprocessing(height=4, width=6, mean=(120, 110, 100), std=(60, 61, 62))


def photo(seed: int, height: int = 20, width: int = 30) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 255, (height, width, 3), np.uint8)


def _photo_model() -> bytes:
    """Sums each channel of a quantised photo."""
    axes = helper.make_tensor("axes", TensorProto.INT64, [2], [2, 3])
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["image"], ["wide"], to=TensorProto.FLOAT),
            helper.make_node("ReduceSum", ["wide", "axes"], ["scores"], keepdims=0),
        ],
        "photo",
        [helper.make_tensor_value_info("image", TensorProto.INT8, [1, 3, 4, 6])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, [1, 3])],
        [axes],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())


@pytest.fixture
def photo_model(tmp_path: Path) -> Model:
    """Takes photos as its manifest describes, and has three classes of which two have names."""
    data, golden = _photo_model(), tiny_golden()
    image = Quantisation(scale=0.02, zero_point=-3)
    manifest = tiny_manifest(data, golden).model_copy(
        update={
            "model_digest": digest_of(data),
            "inputs": (
                TensorSpec(
                    name="image", runtime_name="image", shape=(1, 3, 4, 6), dtype="int8", quantisation=image
                ),
            ),
            "outputs": (TensorSpec(name="scores", runtime_name="scores", shape=(1, 3), dtype="float32"),),
            "preprocessing": PREPROCESSING,
            "postprocessing": Classification(output="scores"),
            "labels": ("red", "green"),
        }
    )
    layout = Layout.create(tmp_path / "photo-registry")
    descriptor = put_artifact(layout, manifest, data, golden)
    publish(layout, "tiny", "1.0.0", [descriptor])
    return load_artifact(open_artifact(layout, descriptor))


@pytest.fixture
def plain_model(tmp_path: Path) -> Model:
    """Takes four unsigned bytes, quantised by 0.5 and 10; knows nothing of photos."""
    layout = Layout.create(tmp_path / "plain-registry")
    (descriptor,) = put_tiny(layout, "1.0.0").artifacts.values()
    return load_artifact(open_artifact(layout, descriptor))


def save(path: Path, seed: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(photo(seed)).save(path)
    return path
